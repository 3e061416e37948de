//! The `priority_classes` at the top of a quota file. Unlike the rest of the grammar this part is
//! strict: it has no users yet who rely on leniency.

use std::collections::HashSet;

use chassis::config::ConfigError;

use crate::document::{Node as Yaml, Value};
use crate::limits::class::{Class, Classes, OutagePolicy};
use crate::limits::file::Reader;
use crate::limits::rule::header_safe;

impl Reader<'_> {
    pub(super) fn classes(&self, node: &Yaml) -> Result<Classes, ConfigError> {
        let Value::Map(pairs) = &node.value else {
            return Err(self.error(node, "priority_classes must be a map of classes"));
        };
        let mut names = HashSet::new();
        let mut classes = Vec::new();
        for (key, value) in pairs {
            let name = self.scalar_text(key)?;
            if name.is_empty() || header_safe(&name) != name {
                let message = "a priority class needs a name of printable ASCII characters";
                return Err(self.error(key, message));
            }
            if !names.insert(name.clone()) {
                return Err(self.error(key, format!("duplicate priority class '{name}'")));
            }
            classes.push(self.class(name, value)?);
        }
        Classes::try_new(classes).map_err(|error| self.error(node, error.to_string()))
    }

    fn class(&self, name: String, value: &Yaml) -> Result<(Class, bool), ConfigError> {
        let Value::Map(pairs) = &value.value else {
            return Err(self.error(value, format!("priority class '{name}' must be a map")));
        };
        for (key, _) in pairs {
            if !matches!(key.value.as_text(), Some("rank" | "outage" | "default")) {
                let message = format!("config error, unknown key '{}'", key.value);
                return Err(self.error(key, message));
            }
        }
        let rank = match value.value.get("rank").map(|node| (node, &node.value)) {
            Some((_, Value::Integer(rank))) if u32::try_from(*rank).is_ok() => *rank as u32,
            other => {
                let at = other.map_or(value, |(node, _)| node);
                let problem = "needs a rank from 0 to 4294967295";
                return Err(self.error(at, format!("priority class '{name}' {problem}")));
            }
        };
        let outage = match value.value.get("outage") {
            None => OutagePolicy::Local,
            Some(node) => node.value.as_text().and_then(OutagePolicy::parse).ok_or_else(|| {
                let problem = "must be bypass, local or deny";
                self.error(node, format!("outage of priority class '{name}' {problem}"))
            })?,
        };
        let default = self.flag_of(value, "default")?;
        Ok((Class { name, rank, outage }, default))
    }
}
