//! All quota files together: the domains in force, and how a new state of the files becomes one.
//!
//! Files stand on their own: one that is bad keeps its last good version, or stays out, and the
//! others are in force as they are. A domain belongs to one file unless merging is on; of two
//! files that claim one, the file that was in force first keeps it. An edit that cannot stand
//! beside the other files is taken for a bad one, so no edit puts another file out of force:
//!
//! ```text
//! kept      unchanged files, and last good versions     fit together: they were in force
//! changed   edited files         ─ cannot be added ──►  back to kept, and all over again
//! new       other files          ─ cannot be added ──►  stay out; those with classes go first
//! ```

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;

use chassis::config::ConfigError;

use crate::keyed_hash::KeyedState;
use crate::limits::class::{Classes, PRIORITY_KEY};
use crate::limits::file::{self, File};
use crate::limits::rule::{REPORTED_KEY, push_step};
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
    /// The same of the `reported` entry.
    pub names_reported: bool,
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

impl Update {
    /// Everything that is wrong with the files that are not in force as they are, of each `each` faults
    /// at most. Each fault takes reading the file once more, so of one above `bytes_max` only one is told.
    pub fn faults(&self, contents: &Contents, each: usize, bytes_max: usize) -> Vec<ConfigError> {
        let of_file = |error: &ConfigError| {
            let all = match contents.get(&error.path) {
                Some(Ok(bytes)) if bytes.len() <= bytes_max => {
                    file::faults(&error.path, bytes, self.quotas.classes(), each)
                }
                _ => Vec::new(),
            };
            // What only shows beside other files is the one fault that the set has found.
            if all.is_empty() { vec![error.clone()] } else { all }
        };
        self.errors.iter().flat_map(of_file).collect()
    }
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

    /// The same for equal files at equal paths: of what is in force, so that replicas of which one keeps an
    /// older version of a file that is bad now can be told apart.
    pub fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.files.iter().for_each(|(path, file)| (path, file.hash).hash(&mut hasher));
        hasher.finish()
    }

    /// Takes a new state of all files. A file that is gone is gone with its rules; any other that
    /// was in force stays so, as it is now or in its last good version.
    pub fn update(&self, contents: &Contents) -> Update {
        let mut change = Change::of(self, contents);
        let builder = change.settle();
        let warnings = builder.files.values().flat_map(|file| file.warnings.clone()).collect();
        let classes = builder.classes();
        let quotas = Quotas { domains: builder.domains, classes };
        let library = Self { files: builder.files, merge_domains: self.merge_domains };
        Update { library, quotas, errors: change.errors.into_values().collect(), warnings }
    }
}

/// What is wrong, one error for each file.
type Errors = BTreeMap<PathBuf, ConfigError>;

/// Files on their way into force.
struct Change<'a> {
    library: &'a Library,
    /// Files as they were in force, which fit together.
    kept: Vec<Arc<File>>,
    /// Edited files, each with a last good version to go back to.
    changed: Vec<Arc<File>>,
    /// Files that were not in force.
    new: Vec<Arc<File>>,
    errors: Errors,
}

impl<'a> Change<'a> {
    fn of(library: &'a Library, contents: &Contents) -> Self {
        let (kept, changed, new) = Default::default();
        let mut change = Self { library, kept, changed, new, errors: Errors::new() };
        for (path, bytes) in contents {
            let last_good = library.files.get(path);
            let parsed = match (bytes, last_good) {
                (Ok(bytes), Some(good)) if good.hash == file::hash(bytes) => {
                    change.kept.push(good.clone());
                    continue;
                }
                (Ok(bytes), _) => file::parse(path, bytes).map(Arc::new),
                (Err(error), _) => Err(ConfigError::file(path, error.clone())),
            };
            match (parsed, last_good) {
                (Ok(file), Some(_)) => change.changed.push(file),
                (Ok(file), None) => change.new.push(file),
                (Err(error), last_good) => {
                    change.kept.extend(last_good.cloned());
                    change.errors.insert(path.clone(), error);
                }
            }
        }
        change
    }

    /// Puts together what can stand together. Each round but the last gives up one edit at least.
    fn settle(&mut self) -> Builder {
        // Before rules can be held against the classes, these must be known.
        let (define_classes, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.new).into_iter().partition(|file| file.classes.is_some());
        loop {
            let mut builder =
                Builder { merge_domains: self.library.merge_domains, ..Builder::default() };
            let mut wrong = builder.add_all(self.kept.iter().chain(&self.changed));
            if self.give_up(&wrong) {
                continue;
            }
            wrong.extend(builder.add_all(&define_classes));
            let classes = builder.classes();
            let misfit =
                |file: &Arc<File>| Some((file.path.clone(), file.check_classes(&classes).err()?));
            // A file keeps its last good version rather than speak of a class that is gone; what
            // that says of the class then means nothing.
            wrong.extend(builder.files.values().filter_map(misfit));
            if self.give_up(&wrong) {
                continue;
            }
            let misfits: Errors = others.iter().filter_map(misfit).collect();
            let fit = others.iter().filter(|file| !misfits.contains_key(&file.path));
            wrong.extend(builder.add_all(fit));
            wrong.extend(misfits);
            for (path, error) in wrong {
                // What is wrong with the newest version is told, not what with the one kept.
                self.errors.entry(path).or_insert(error);
            }
            return builder;
        }
    }

    /// Goes back to the last good version of each edited file in which something is wrong, and
    /// tells it; whether there was any.
    fn give_up(&mut self, wrong: &Errors) -> bool {
        let edits = self.changed.len();
        for file in self.changed.extract_if(.., |file| wrong.contains_key(&file.path)) {
            self.errors.insert(file.path.clone(), wrong[&file.path].clone());
            self.kept.extend(self.library.files.get(&file.path).cloned());
        }
        self.changed.len() < edits
    }
}

#[derive(Default)]
struct Builder {
    merge_domains: bool,
    files: BTreeMap<PathBuf, Arc<File>>,
    domains: HashMap<Box<str>, Domain, KeyedState>,
    classes: Option<(PathBuf, Classes)>,
}

impl Builder {
    /// The classes that a file defines, or those that ship.
    fn classes(&self) -> Classes {
        self.classes.as_ref().map(|(_, classes)| classes.clone()).unwrap_or_default()
    }

    /// Adds the files that fit, in order; what is wrong with the others.
    fn add_all<'f>(&mut self, files: impl IntoIterator<Item = &'f Arc<File>>) -> Errors {
        let add = |file: &Arc<File>| Some((file.path.clone(), self.add(file.clone()).err()?));
        files.into_iter().filter_map(add).collect()
    }

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
        let (names_priority, names_reported) = (root.names(PRIORITY_KEY), root.names(REPORTED_KEY));
        let name = (*file.domain).into();
        let domain = Domain { name, root, names_priority, names_reported };
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
