//! The files of rules that are in force: each stands on its own, and one that is wrong leaves its
//! last good state in force.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use chassis::config::ConfigError;
use chassis::reload::Snapshot;

use super::Book;
use super::file::{FileRules, Partial};

/// The newest good state of each file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Library {
    files: BTreeMap<PathBuf, Arc<FileRules>>,
}

impl Library {
    /// What is in force once the files are as in `snapshot`, and what is wrong with them.
    pub fn update(&self, snapshot: &Snapshot) -> (Self, Vec<ConfigError>) {
        let (mut next, mut errors) = (Self::default(), Vec::new());
        for (path, contents) in snapshot {
            let parsed = match contents {
                Ok(bytes) => FileRules::parse(path, bytes),
                Err(reason) => Err(ConfigError::file(path, reason)),
            };
            let parsed = parsed.and_then(|file| next.fits(path, &file).map(|()| file));
            let file = match parsed {
                Ok(file) => Some(Arc::new(file)),
                Err(error) => {
                    errors.push(error);
                    self.files.get(path).filter(|old| next.fits(path, old).is_ok()).cloned()
                }
            };
            next.files.extend(file.map(|file| (path.clone(), file)));
        }
        (next, errors)
    }

    /// The rules of all tenants.
    pub fn book(&self) -> Book {
        let none = Partial::default();
        let default = self.files.values().find_map(|file| file.default.as_ref());
        let default = default.unwrap_or(&none);
        let tenants = self.files.values().flat_map(|file| &file.tenants);
        Book {
            default: Arc::new(none.over(default)),
            tenants: tenants
                .map(|(tenant, rules)| (tenant.clone(), Arc::new(rules.over(default))))
                .collect(),
        }
    }

    /// Whether nobody else has rules for the same tenants.
    fn fits(&self, path: &std::path::Path, file: &FileRules) -> Result<(), ConfigError> {
        for (other, known) in &self.files {
            let shared = file.tenants.keys().find(|tenant| known.tenants.contains_key(*tenant));
            let what = match shared {
                Some(tenant) => format!("tenant {tenant:?}"),
                None if file.default.is_some() && known.default.is_some() => "default".to_owned(),
                None => continue,
            };
            let message = format!("{what} has rules in {} already", other.display());
            return Err(ConfigError::file(path, message));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(files: &[(&str, Result<&str, &str>)]) -> Snapshot {
        let contents = |text: &Result<&str, &str>| {
            text.map(|text| text.as_bytes().to_vec()).map_err(str::to_owned)
        };
        files.iter().map(|(path, text)| (PathBuf::from(path), contents(text))).collect()
    }

    fn labels(library: &Library, tenant: &str) -> Option<usize> {
        library.book().of(tenant).labels_max
    }

    #[test]
    fn a_bad_file_leaves_its_last_good_state_and_its_neighbours_in_force() {
        let good = snapshot(&[
            ("a.yaml", Ok("tenants: {acme: {labels_max: 1}}")),
            ("b.yaml", Ok("default: {labels_max: 9}\ntenants: {bolt: {series_max: 5}}")),
        ]);
        let (library, errors) = Library::default().update(&good);
        assert_eq!(errors, []);
        assert_eq!((labels(&library, "acme"), labels(&library, "x")), (Some(1), Some(9)));
        assert_eq!(labels(&library, "bolt"), Some(9), "from the default");

        let bad = snapshot(&[
            ("a.yaml", Ok("tenants: {acme: {labels_max: 0}}")),
            ("b.yaml", Ok("default: {labels_max: 8}")),
            ("c.yaml", Err("cannot be read")),
        ]);
        let (library, errors) = library.update(&bad);
        let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert!(
            told[0].starts_with("a.yaml:1:") && told[1] == "c.yaml: cannot be read",
            "{told:?}"
        );
        assert_eq!((labels(&library, "acme"), labels(&library, "x")), (Some(1), Some(8)));

        let (library, errors) = library.update(&snapshot(&[("b.yaml", Ok("{}"))]));
        assert_eq!((errors, labels(&library, "acme")), (vec![], None));
    }

    #[test]
    fn of_two_files_with_a_tenant_the_first_by_name_counts() {
        let both = snapshot(&[
            ("a.yaml", Ok("tenants: {acme: {labels_max: 1}}")),
            ("b.yaml", Ok("tenants: {acme: {labels_max: 2}, bolt: {labels_max: 3}}")),
            ("c.yaml", Ok("default: {labels_max: 4}")),
            ("d.yaml", Ok("default: {labels_max: 5}")),
        ]);
        let (library, errors) = Library::default().update(&both);
        let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "b.yaml: tenant \"acme\" has rules in a.yaml already",
                "d.yaml: default has rules in c.yaml already",
            ]
        );
        assert_eq!((labels(&library, "acme"), labels(&library, "bolt")), (Some(1), Some(4)));
    }
}
