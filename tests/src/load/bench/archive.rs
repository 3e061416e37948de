//! The figures of all stages on disk: a file for each stage, replaced as a whole when its stage has run, and
//! what is made of all of them after each stage. A run that is cut leaves what its stages had measured.
//!
//! ```text
//! stages/cost.json   stages/rules.json   …        what each stage measured last
//!        └──────────────────┴──► results.json, samples.json, …, report.html
//! ```

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use super::measured::{self, Measured};
use super::report;
use super::stage::Stage;

/// A directory of figures.
pub struct Archive {
    dir: PathBuf,
}

impl Archive {
    /// The archive in a directory, which need not be there.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// What a stage measured last, if it ever ran.
    ///
    /// # Errors
    /// When its file cannot be read, or is not one of ours.
    pub fn stage(&self, stage: Stage) -> Result<Option<Measured>> {
        let path = self.path(stage);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let read = serde_json::from_slice(&text);
        read.map(Some)
            .with_context(|| format!("{} is of another version: remove it", path.display()))
    }

    /// All stages that ever ran, in their order.
    ///
    /// # Errors
    /// As [`Archive::stage`].
    pub fn all(&self) -> Result<Vec<Measured>> {
        let stages = Stage::all().iter().map(|stage| self.stage(*stage));
        stages.filter_map(Result::transpose).collect()
    }

    /// Puts what a stage measured in the place of what it had, and makes everything else anew.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn put(&self, stage: Stage, measured: &Measured) -> Result<()> {
        let path = self.path(stage);
        std::fs::create_dir_all(self.dir.join("stages"))
            .with_context(|| format!("cannot create {}", self.dir.display()))?;
        replace(&path, &format!("{}\n", json!(measured)))?;
        self.publish(&self.all()?)
    }

    fn publish(&self, all: &[Measured]) -> Result<()> {
        let write = |name: &str, text: String| replace(&self.dir.join(name), &text);
        let merged = |of: fn(&Measured) -> &Map<String, Value>| -> Value {
            let entries = all.iter().flat_map(|one| of(one).clone());
            Value::Object(entries.collect())
        };
        let taken: Map<String, Value> =
            all.iter().map(|one| (one.stage.clone(), json!(one.taken))).collect();
        write("results.json", format!("{:#}\n", json!(measured::rows(all))))?;
        write("samples.json", format!("{:#}\n", merged(|one| &one.samples)))?;
        write("seconds.json", format!("{:#}\n", merged(|one| &one.seconds)))?;
        write("histograms.json", merged(|one| &one.histograms).to_string())?;
        write("machine.json", format!("{:#}\n", Value::Object(taken)))?;
        write("notes.json", format!("{:#}\n", json!(measured::remarks(all))))?;
        write("report.html", report::html(all))
    }

    fn path(&self, stage: Stage) -> PathBuf {
        self.dir.join("stages").join(format!("{}.json", stage.name()))
    }
}

/// Writes a file beside its place and moves it there, so that nobody ever reads half of it.
fn replace(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    let written = std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, path));
    written.with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::super::measured::tests::{results, taken};
    use super::*;

    fn run(archive: &Archive, stage: Stage, commit: &str, value: f64) {
        let before = archive.stage(stage).expect("readable");
        let name = format!("{}/x", stage.name());
        let measured = Measured::after(before, stage, taken(commit), Ok(results(&name, value)));
        archive.put(stage, &measured).expect("written");
    }

    #[test]
    fn a_run_of_one_stage_leaves_the_others_as_they_were() {
        let dir = tempfile::tempdir().expect("a directory");
        let archive = Archive::new(dir.path());
        assert!(archive.all().expect("nothing").is_empty());
        run(&archive, Stage::Rules, "a", 1.0);
        run(&archive, Stage::Cost, "a", 1.0);
        run(&archive, Stage::Rules, "b", 2.0);
        let all = archive.all().expect("readable");
        let of = |one: &Measured| (one.taken.clone().expect("taken").commit, one.rows[0].value);
        assert_eq!(
            all.iter().map(of).collect::<Vec<_>>(),
            [("a".to_owned(), 1.0), ("b".to_owned(), 2.0)]
        );
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).expect("written");
        let rows: Vec<Value> = serde_json::from_str(&read("results.json")).expect("rows");
        let names: Vec<_> = rows.iter().filter_map(|row| row["name"].as_str()).collect();
        assert_eq!(names, ["cost/x", "rules/x", "run/cost", "run/rules"]);
        let machine: Value = serde_json::from_str(&read("machine.json")).expect("an object");
        assert_eq!(machine["rules"]["commit"], "b");
        assert!(read("report.html").contains("rules/x"));
        let left = std::fs::read_dir(dir.path().join("stages")).expect("there").count();
        assert_eq!(left, 2, "no file is left half written");
    }

    #[test]
    fn a_file_of_something_else_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let archive = Archive::new(dir.path());
        run(&archive, Stage::Cost, "a", 1.0);
        std::fs::write(dir.path().join("stages/cost.json"), "{}").expect("written");
        let error = format!("{:#}", archive.all().expect_err("of another version"));
        assert!(error.contains("cost.json is of another version: remove it"), "{error}");
    }
}
