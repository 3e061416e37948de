//! All quota files together: the domains in force, and how a new state of the files becomes one.
//!
//! Files stand on their own: one that is bad keeps its last good version, or stays out, and the
//! others are in force as they are. A domain belongs to one file unless merging is on; of two
//! files that claim one, the file that was in force first keeps it.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use chassis::config::ConfigError;

use crate::keyed_hash::KeyedState;
use crate::limits::class::Classes;
use crate::limits::file::{self, File};
use crate::limits::rule::push_step;
use crate::limits::tree::Level;

/// Contents of files, or why they cannot be read.
pub type Contents = BTreeMap<PathBuf, Result<Vec<u8>, String>>;

/// The rules of one domain.
#[derive(Debug)]
pub struct Domain {
    /// Its name.
    pub name: Arc<str>,
    /// Its rules.
    pub root: Level,
    /// Whether a rule speaks of the `priority` entry, which is then matched like any other.
    pub names_priority: bool,
}

/// What is in force.
#[derive(Debug, Default)]
pub struct Quotas {
    domains: HashMap<Box<str>, Domain, KeyedState>,
    classes: Classes,
}

impl Quotas {
    /// The rules of a domain.
    pub fn domain(&self, name: &str) -> Option<&Domain> {
        self.domains.get(name)
    }

    /// All domains, sorted by name.
    pub fn domains(&self) -> Vec<&Domain> {
        let mut domains: Vec<&Domain> = self.domains.values().collect();
        domains.sort_by(|a, b| a.name.cmp(&b.name));
        domains
    }

    /// The priority classes of the service.
    pub fn classes(&self) -> &Classes {
        &self.classes
    }
}

/// The good version of every file, from which the quotas in force were made.
#[derive(Clone, Debug, Default)]
pub struct Library {
    files: BTreeMap<PathBuf, Arc<File>>,
    merge_domains: bool,
}

/// The outcome of reading a new state of the files.
#[derive(Debug)]
pub struct Update {
    /// The files in force from now on.
    pub library: Library,
    /// What they say.
    pub quotas: Quotas,
    /// What is wrong with files that are not in force as they are.
    pub errors: Vec<ConfigError>,
    /// What has no effect in files that are in force.
    pub warnings: Vec<ConfigError>,
}

impl Library {
    /// A library without files; `merge_domains` lets files share a domain.
    pub fn new(merge_domains: bool) -> Self {
        Self { files: BTreeMap::new(), merge_domains }
    }

    /// Whether no file was ever good.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Takes a new state of all files. A file that is gone is gone with its rules.
    pub fn update(&self, contents: &Contents) -> Update {
        // Files in force go first, so that a newcomer cannot push them out.
        let (known, new): (Vec<_>, Vec<_>) =
            contents.iter().partition(|(path, _)| self.files.contains_key(*path));
        let read = |(path, bytes): (&PathBuf, &Result<Vec<u8>, String>)| {
            let parsed = match bytes {
                Ok(bytes) => file::parse(path, bytes).map(Arc::new),
                Err(error) => Err(ConfigError::file(path, error.clone())),
            };
            (path.clone(), parsed)
        };
        let mut files: Vec<Parsed> = known.into_iter().chain(new).map(read).collect();
        let (mut builder, mut errors) = self.build(&files);
        // Only now the classes are known. A file keeps its last good version rather than speak
        // of a class that is gone; what that says of the class then means nothing.
        let classes = builder.classes.as_ref().map(|(_, classes)| classes.clone());
        let classes = classes.unwrap_or_default();
        let mut misfits = false;
        for (path, parsed) in &mut files {
            if let Ok(file) = &*parsed
                && builder.files.get(path).is_some_and(|added| Arc::ptr_eq(added, file))
                && let Err(error) = file.check_classes(&classes)
            {
                *parsed = Err(error);
                misfits = true;
            }
        }
        if misfits {
            (builder, errors) = self.build(&files);
        }
        let warnings = builder.files.values().flat_map(|file| file.warnings.clone()).collect();
        let library = Library { files: builder.files, merge_domains: self.merge_domains };
        let classes = builder.classes.map(|(_, classes)| classes).unwrap_or_default();
        let quotas = Quotas { domains: builder.domains, classes };
        Update { library, quotas, errors, warnings }
    }

    /// Puts files together, with the last good version in the place of each that is bad.
    fn build(&self, files: &[Parsed]) -> (Builder, Vec<ConfigError>) {
        let mut builder = Builder { merge_domains: self.merge_domains, ..Builder::default() };
        let mut errors = Vec::new();
        for (path, parsed) in files {
            let added = parsed.clone().and_then(|file| builder.add(file));
            let Err(error) = added else { continue };
            errors.push(error);
            if let Some(last_good) = self.files.get(path)
                && let Err(error) = builder.add(last_good.clone())
            {
                errors.push(error);
            }
        }
        (builder, errors)
    }
}

/// A file, or what is wrong with it.
type Parsed = (PathBuf, Result<Arc<File>, ConfigError>);

#[derive(Default)]
struct Builder {
    merge_domains: bool,
    files: BTreeMap<PathBuf, Arc<File>>,
    domains: HashMap<Box<str>, Domain, KeyedState>,
    classes: Option<(PathBuf, Classes)>,
}

impl Builder {
    /// Adds all of a file or nothing.
    fn add(&mut self, file: Arc<File>) -> Result<(), ConfigError> {
        let old = self.domains.get(&file.domain);
        if old.is_some() && !self.merge_domains {
            let message = format!("duplicate domain '{}' in config file", file.domain);
            return Err(ConfigError::file(&file.path, message));
        }
        if let (Some((owner, classes)), Some(other)) = (&self.classes, &file.classes)
            && classes != other
        {
            let message = format!("priority_classes differ from those in {}", owner.display());
            return Err(ConfigError::file(&file.path, message));
        }
        if old.is_some_and(|domain| domain.root.precedence() != file.wildcards) {
            let message = format!("wildcards differ in the files of domain '{}'", file.domain);
            return Err(ConfigError::file(&file.path, message));
        }
        let mut root = old.map_or_else(|| Level::new(file.wildcards), |old| old.root.clone());
        for top in &file.tops {
            root.insert(&top.key, &top.value, top.node.clone()).map_err(|_| {
                let mut id = String::new();
                push_step(&mut id, &top.key, (!top.value.is_empty()).then_some(&top.value));
                let domain = &file.domain;
                let message = format!("duplicate descriptor composite key '{domain}.{id}'");
                ConfigError { path: file.path.clone(), at: top.node.at, message }
            })?;
        }
        let names_priority = root.names_priority();
        let domain = Domain { name: (*file.domain).into(), root, names_priority };
        self.domains.insert(file.domain.clone(), domain);
        if let Some(classes) = &file.classes {
            self.classes.get_or_insert_with(|| (file.path.clone(), classes.clone()));
        }
        self.files.insert(file.path.clone(), file);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
