//! One quota file: from bytes to validated rules, or to the first thing that is wrong with it.
//!
//! The grammar and the wording of messages are those of envoyproxy/ratelimit, with file, line
//! and column in front. On top of it a file may define `priority_classes`, and a limit may
//! choose its algorithm and any period.

mod classes;
mod faults;
mod rate_limit;
mod sharing;
mod trial;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chassis::config::{ConfigError, parse_yaml_within};
use xxhash_rust::xxh3::xxh3_64;

use crate::document::{Node as Yaml, Value};
use crate::limits::class::Classes;
use crate::limits::pattern::Precedence;
use crate::limits::rule::{Rule, Step, header_safe, push_step};
use crate::limits::stats::CountsOfRule;
use crate::limits::tree::{Level, Node};

pub use faults::{FAULTS_MAX, faults, meant};

/// The largest quota file.
pub const FILE_BYTES_MAX: usize = 16 << 20;

/// The most keys, values, maps and lists in a file: at four bytes each a file of the largest size
/// holds no more, and reading it takes some 500 MB.
pub const FILE_NODES_MAX: usize = FILE_BYTES_MAX / 4;

/// The largest `metadata` of one descriptor, as JSON.
pub const METADATA_BYTES_MAX: usize = 4096;

/// Keys that may stand in a file; other keys are refused wherever they stand.
const KNOWN_KEYS: [&str; 27] = [
    "domain",
    "key",
    "value",
    "descriptors",
    "rate_limit",
    "unit",
    "unit_multiplier",
    "window",
    "requests_per_unit",
    "algorithm",
    "burst",
    "overdraft",
    "unlimited",
    "shadow_mode",
    "quota_mode",
    "name",
    "replaces",
    "detailed_metric",
    "value_to_metric",
    "share_threshold",
    "metadata",
    "reserve",
    "floor",
    "reserve_min",
    "admit_up_to",
    "mode",
    "trial",
];
/// Known keys that hold keys of the user's own.
const FREE_KEYS: [&str; 4] = ["metadata", "floor", "reserve_min", "admit_up_to"];
const FILE_KEYS: [&str; 4] = ["domain", "descriptors", PRIORITY_CLASSES, WILDCARDS];
const DESCRIPTOR_KEYS: [&str; 10] = [
    "key",
    "value",
    "rate_limit",
    "descriptors",
    "shadow_mode",
    "quota_mode",
    "detailed_metric",
    "value_to_metric",
    "share_threshold",
    "metadata",
];
const RATE_LIMIT_KEYS: [&str; 16] = [
    "unit",
    "unit_multiplier",
    "window",
    "requests_per_unit",
    "algorithm",
    "burst",
    "overdraft",
    "unlimited",
    "name",
    "replaces",
    "reserve",
    "floor",
    "reserve_min",
    "admit_up_to",
    "mode",
    "trial",
];
const PRIORITY_CLASSES: &str = "priority_classes";
const WILDCARDS: &str = "wildcards";

/// Every key that a quota file may have of ours.
pub fn known_keys() -> impl Iterator<Item = &'static str> {
    KNOWN_KEYS.into_iter().chain(FILE_KEYS)
}

/// A node at the top of a domain's tree.
#[derive(Clone, Debug)]
pub struct Top {
    /// Key of the entry.
    pub key: Box<str>,
    /// Value of the entry, empty for any.
    pub value: Box<str>,
    /// The node.
    pub node: Arc<Node>,
}

/// A file in which nothing is wrong.
#[derive(Clone, Debug)]
pub struct File {
    /// Where it was read.
    pub path: PathBuf,
    /// What its bytes hash to, by which a file that has not changed is known.
    pub hash: u64,
    /// The domain its rules are for.
    pub domain: Box<str>,
    /// Its rules, in order.
    pub tops: Vec<Top>,
    /// The classes of the service, if this file defines them.
    pub classes: Option<Classes>,
    /// Which pattern counts where several match.
    pub wildcards: Precedence,
    /// Keys that are known but mean nothing where they stand.
    pub warnings: Vec<ConfigError>,
}

impl File {
    /// Whether what its rules say about classes fits those in force, which may be defined in
    /// another file.
    ///
    /// # Errors
    /// The first thing that does not fit.
    pub fn check_classes(&self, classes: &Classes) -> Result<(), ConfigError> {
        self.misfits(classes).into_iter().next().map_or(Ok(()), Err)
    }

    /// What its rules say about classes and does not fit those of the service, in the order of the file.
    pub fn misfits(&self, classes: &Classes) -> Vec<ConfigError> {
        let rules = self.tops.iter().flat_map(|top| {
            let below = top.node.children.rules();
            top.node.rule.clone().into_iter().chain(below)
        });
        let sharings = rules.flat_map(|rule| {
            let trial = rule.trial.as_ref().map(|trial| trial.sharing.clone());
            [Some(rule.sharing.clone()), trial].into_iter().flatten()
        });
        let mut misfits = Vec::new();
        for sharing in sharings {
            misfits.extend(sharing.misfits(classes).into_iter().map(|(portion, error)| {
                let (path, message) = (self.path.clone(), error.to_string());
                ConfigError { path, at: portion.at, message }
            }));
        }
        misfits.sort_by_key(|misfit| misfit.at);
        // A trial that says nothing else shares as its rule does.
        misfits.dedup();
        misfits
    }
}

/// What the bytes of a file hash to, in this process.
pub fn hash(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// Reads a quota file.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<File, ConfigError> {
    if bytes.len() > FILE_BYTES_MAX {
        return Err(ConfigError::file(path, format!("is larger than {FILE_BYTES_MAX} bytes")));
    }
    let root: Yaml = parse_yaml_within(path, bytes, FILE_NODES_MAX).map_err(|mut error| {
        error.message = format!("error loading config file: {}", error.message);
        error
    })?;
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    let reader = Reader { path, text, domain: String::new(), warnings: Vec::new() };
    reader.check_keys(&root, true)?;
    reader.file(&root)
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    domain: String,
    warnings: Vec<ConfigError>,
}

/// What a node inherits from those above it.
#[derive(Clone, Default)]
struct Above {
    steps: Vec<Step>,
    id: String,
}

impl Reader<'_> {
    fn error(&self, at: &Yaml, message: impl Into<String>) -> ConfigError {
        ConfigError::at(self.path, at, message)
    }

    /// Checks the shape of the whole document before anything is made of it.
    fn check_keys(&self, node: &Yaml, root: bool) -> Result<(), ConfigError> {
        let Value::Map(pairs) = &node.value else {
            return match &node.value {
                Value::Null if root => Ok(()),
                _ => Err(self.error(node, "error loading config file: must be a map")),
            };
        };
        for (key, value) in pairs {
            let Some(name) = key.value.as_text() else {
                let message = format!("config error, key is not of type string: {}", key.value);
                return Err(self.error(key, message));
            };
            if root && [PRIORITY_CLASSES, WILDCARDS].contains(&name) {
                continue;
            }
            if !KNOWN_KEYS.contains(&name) {
                return Err(self.error(key, format!("config error, unknown key '{name}'")));
            }
            if FREE_KEYS.contains(&name) {
                continue;
            }
            self.check_value(value)?;
        }
        Ok(())
    }

    fn check_value(&self, value: &Yaml) -> Result<(), ConfigError> {
        match &value.value {
            Value::Map(_) => self.check_keys(value, false),
            Value::List(items) => items.iter().try_for_each(|item| match &item.value {
                Value::Map(_) => self.check_keys(item, false),
                other => {
                    let problem = "config error, yaml file contains list of type other than map";
                    Err(self.error(item, format!("{problem}: {other}")))
                }
            }),
            // The parser takes `007` for a fraction; the reference does not.
            Value::Float(_) if self.written(value).bytes().all(|b| b.is_ascii_digit()) => Ok(()),
            Value::Float(_) => Err(self.error(value, "error checking config")),
            _ => Ok(()),
        }
    }

    fn file(mut self, root: &Yaml) -> Result<File, ConfigError> {
        self.warn_misplaced(root, &FILE_KEYS, "at the top of a file");
        self.domain = self.text_of(root, "domain")?;
        if self.domain.is_empty() {
            let message = "config file cannot have empty domain";
            return Err(match root.value.get("domain") {
                Some(domain) => self.error(domain, message),
                None => ConfigError::file(self.path, message),
            });
        }
        let classes =
            root.value.get(PRIORITY_CLASSES).map(|node| self.classes(node)).transpose()?;
        let wildcards = self.wildcards(root)?;
        let mut seen = Level::new(wildcards);
        let mut tops = Vec::new();
        for item in self.maps_of(root, "descriptors")? {
            tops.push(self.descriptor(item, &Above::default(), &mut seen)?);
        }
        let domain = self.domain.into_boxed_str();
        let (path, warnings) = (self.path.to_owned(), self.warnings);
        let hash = hash(self.text.as_bytes());
        let file = File { path, hash, domain, tops, classes, wildcards, warnings };
        if let Some(classes) = &file.classes {
            file.check_classes(classes)?;
        }
        Ok(file)
    }

    fn wildcards(&self, root: &Yaml) -> Result<Precedence, ConfigError> {
        let Some(node) = root.value.get(WILDCARDS) else { return Ok(Precedence::default()) };
        Precedence::parse(&self.scalar_text(node)?)
            .ok_or_else(|| self.error(node, "wildcards must be file_order or most_specific"))
    }

    fn descriptor(
        &mut self,
        item: &Yaml,
        above: &Above,
        siblings: &mut Level,
    ) -> Result<Top, ConfigError> {
        self.warn_misplaced(item, &DESCRIPTOR_KEYS, "in a descriptor");
        let (key, value) = (self.text_of(item, "key")?, self.text_of(item, "value")?);
        if key.is_empty() {
            return Err(self.error(item, "descriptor has empty key"));
        }
        let share_threshold = self.flag_of(item, "share_threshold")?;
        if share_threshold && !value.contains('*') {
            let at = item.value.get("share_threshold").unwrap_or(item);
            let message = format!(
                "share_threshold can only be used with wildcard values (containing '*'), but \
                 found key '{}'",
                composite(&key, &value)
            );
            return Err(self.error(at, message));
        }
        let mut here = above.clone();
        push_step(&mut here.id, &key, (!value.is_empty()).then_some(&*value));
        here.steps.push(Step {
            key: key.as_str().into(),
            value: (!value.is_empty()).then(|| value.as_str().into()),
            value_to_metric: self.flag_of(item, "value_to_metric")?,
            share_threshold,
        });
        let rule = self.rule(item, &here)?.map(Arc::new);
        let mut children = Level::new(siblings.precedence());
        for child in self.maps_of(item, "descriptors")? {
            self.descriptor(child, &here, &mut children)?;
        }
        let position = (item.referenced.line(), item.referenced.column());
        let node = Arc::new(Node { rule, children, at: Some(position) });
        siblings.insert(&key, &value, node.clone()).map_err(|_| {
            let message =
                format!("duplicate descriptor composite key '{}.{}'", self.domain, here.id);
            self.error(item, message)
        })?;
        Ok(Top { key: key.into(), value: value.into(), node })
    }

    fn rule(&mut self, item: &Yaml, here: &Above) -> Result<Option<Rule>, ConfigError> {
        let shadow_mode = self.flag_of(item, "shadow_mode")?;
        let quota_mode = self.flag_of(item, "quota_mode")?;
        let detailed_metric = self.flag_of(item, "detailed_metric")?;
        let metadata = self.metadata(item)?;
        let Some(limit) = item.value.get("rate_limit").filter(|node| node.value != Value::Null)
        else {
            return Ok(None);
        };
        if !matches!(limit.value, Value::Map(_)) {
            return Err(self.error(limit, "error loading config file: rate_limit must be a map"));
        }
        self.warn_misplaced(limit, &RATE_LIMIT_KEYS, "in a rate_limit");
        self.warn_unfit(limit, &here.steps);
        let name = self.text_of(limit, "name")?;
        let file = self.path.file_name().unwrap_or_default().to_string_lossy();
        Ok(Some(Rule {
            id: here.id.as_str().into(),
            steps: here.steps.clone(),
            allowance: self.allowance(limit, &here.steps)?,
            overdraft: self.overdraft(limit)?,
            sharing: self.sharing(limit)?,
            trial: self.trial(limit, &here.steps)?.map(Box::new),
            replaces: self.replaces(limit, &name)?,
            header_name: header_safe(&name),
            name,
            shadow_mode,
            quota_mode,
            detailed_metric,
            metadata,
            origin: format!("{file}:{}", item.referenced.line()).into(),
            counts: CountsOfRule::default(),
        }))
    }

    fn replaces(&self, limit: &Yaml, own: &str) -> Result<Vec<String>, ConfigError> {
        let mut names = Vec::new();
        for item in self.maps_of(limit, "replaces")? {
            let name = self.text_of(item, "name")?;
            if name.is_empty() {
                return Err(self.error(item, "should not have an empty replaces entry"));
            }
            if name == own {
                let message = "replaces should not contain name of same descriptor";
                return Err(self.error(item, message));
            }
            names.push(name);
        }
        Ok(names)
    }

    fn metadata(&self, item: &Yaml) -> Result<Option<serde_json::Value>, ConfigError> {
        let Some(node) = item.value.get("metadata").filter(|node| node.value != Value::Null) else {
            return Ok(None);
        };
        let json = self.json(node)?;
        if !json.is_object() {
            return Err(self.error(node, "error parsing metadata: must be a map"));
        }
        if json.to_string().len() > METADATA_BYTES_MAX {
            let message =
                format!("error parsing metadata: is larger than {METADATA_BYTES_MAX} bytes");
            return Err(self.error(node, message));
        }
        Ok(Some(json))
    }

    /// A value as JSON, with the keys as they are written.
    fn json(&self, node: &Yaml) -> Result<serde_json::Value, ConfigError> {
        use serde_json::Value as Json;
        Ok(match &node.value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Integer(value) => i64::try_from(*value).map_or(Json::Null, Json::from),
            Value::Float(value) => Json::from(*value),
            Value::Text(text) => Json::String(text.clone()),
            Value::List(items) => {
                Json::Array(items.iter().map(|item| self.json(item)).collect::<Result<_, _>>()?)
            }
            Value::Map(pairs) => {
                let pair =
                    |(key, value): &(Yaml, Yaml)| Ok((self.scalar_text(key)?, self.json(value)?));
                Json::Object(pairs.iter().map(pair).collect::<Result<_, ConfigError>>()?)
            }
        })
    }

    fn maps_of<'y>(&self, node: &'y Yaml, key: &str) -> Result<&'y [Yaml], ConfigError> {
        match node.value.get(key).map(|list| (list, &list.value)) {
            None | Some((_, Value::Null)) => Ok(&[]),
            Some((_, Value::List(items))) => Ok(items),
            Some((list, _)) => {
                Err(self.error(list, format!("error loading config file: {key} must be a list")))
            }
        }
    }

    fn flag_of(&self, node: &Yaml, key: &str) -> Result<bool, ConfigError> {
        match node.value.get(key).map(|flag| (flag, &flag.value)) {
            None | Some((_, Value::Null)) => Ok(false),
            Some((_, Value::Bool(flag))) => Ok(*flag),
            Some((flag, _)) => {
                let message = format!("error loading config file: {key} must be true or false");
                Err(self.error(flag, message))
            }
        }
    }

    fn text_of(&self, node: &Yaml, key: &str) -> Result<String, ConfigError> {
        node.value.get(key).map_or(Ok(String::new()), |text| self.scalar_text(text))
    }

    /// The text of a scalar. What YAML takes for a number or a truth value keeps its spelling:
    /// a tenant called `007` or `y` is that.
    fn scalar_text(&self, node: &Yaml) -> Result<String, ConfigError> {
        match &node.value {
            Value::Null => Ok(String::new()),
            Value::Text(text) => Ok(text.clone()),
            Value::Bool(_) | Value::Integer(_) | Value::Float(_) => {
                let written = self.written(node);
                Ok(if written.is_empty() { node.value.to_string() } else { written })
            }
            _ => Err(self.error(node, "error loading config file: must be a string")),
        }
    }

    /// The plain scalar as it stands in the file.
    fn written(&self, node: &Yaml) -> String {
        let offset = node.defined.span().byte_offset().and_then(|at| usize::try_from(at).ok());
        let text = offset.and_then(|at| self.text.get(at..)).unwrap_or_default();
        // A colon ends a key; numbers and truth values hold none.
        text.chars().take_while(|c| !c.is_whitespace() && !",]}#:".contains(*c)).collect()
    }

    fn warn_misplaced(&mut self, node: &Yaml, allowed: &[&str], place: &str) {
        let Value::Map(pairs) = &node.value else { return };
        for (key, _) in pairs {
            let name = key.value.to_string();
            if !allowed.contains(&name.as_str()) {
                let message = format!("key '{name}' has no effect {place}");
                self.warnings.push(ConfigError::at(self.path, key, message));
            }
        }
    }
}

fn composite(key: &str, value: &str) -> String {
    let mut id = String::new();
    push_step(&mut id, key, (!value.is_empty()).then_some(value));
    id
}

#[cfg(test)]
mod tests;
