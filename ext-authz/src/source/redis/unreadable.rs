//! Records that cannot be used: how many, and what is wrong with the last. Others do not wait for
//! them.

use super::wire::WireError;

/// What could not be used.
#[derive(Debug, Default)]
pub struct Unreadable {
    /// How many records or changes.
    pub count: usize,
    /// What was wrong with the first of them.
    pub first: Option<String>,
}

impl Unreadable {
    /// One more, of this name.
    pub fn add(&mut self, name: &str, error: &WireError) {
        self.count += 1;
        // Whatever stands there may be long, and need not be text for a terminal.
        let name: String = name.chars().take(32).flat_map(char::escape_debug).collect();
        self.first.get_or_insert_with(|| format!("'{name}': {error}"));
    }

    /// What operators are told, if anything.
    pub fn problem(&self) -> Option<String> {
        let first = self.first.as_ref()?;
        Some(format!("{} records or changes cannot be used, the first {first}", self.count))
    }
}
