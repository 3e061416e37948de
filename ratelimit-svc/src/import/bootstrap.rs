//! What an Envoy bootstrap says of a log and of descriptors: the format of its first access log, and the
//! actions of its rate limit filters and routes.

use std::path::Path;

use chassis::config::{ConfigError, parse_yaml};

use crate::document::{Node, Value};
use crate::import::operators::{Log, parse};
use crate::import::{DescriptorRule, EntryRule, ValueRule};

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The format of the first access log that has one.
    pub log: Option<Log>,
    /// The domain of the first rate limit filter.
    pub domain: Option<String>,
    /// Descriptors, each once.
    pub descriptors: Vec<DescriptorRule>,
    /// What cannot be made from a log.
    pub notes: Vec<String>,
}

/// Reads a bootstrap.
///
/// # Errors
/// When it is no YAML.
pub fn read(path: &Path, bytes: &[u8]) -> Result<Found, ConfigError> {
    let root: Node = parse_yaml(path, bytes)?;
    let mut found = Found::default();
    found.walk(&root);
    Ok(found)
}

impl Found {
    fn walk(&mut self, node: &Node) {
        match &node.value {
            Value::List(items) => items.iter().for_each(|item| self.walk(item)),
            Value::Map(pairs) => {
                let kind = text(node, "@type").unwrap_or_default();
                // Its actions are for counters of Envoy itself.
                if kind.ends_with("LocalRateLimit") {
                    return;
                }
                if kind.ends_with(".RateLimit") && self.domain.is_none() {
                    self.domain = text(node, "domain").map(str::to_owned);
                }
                for (key, value) in pairs {
                    match key.value.as_text() {
                        // Bodies of Envoy's own answers have formats as well.
                        Some("log_format") => self.log_format(value),
                        Some("rate_limits") => self.rate_limits(value),
                        _ => self.walk(value),
                    }
                }
            }
            _ => {}
        }
    }

    fn log_format(&mut self, node: &Node) {
        if let Some(json) = node.value.get("json_format") {
            self.json_format(json);
        }
        if let Some(text) = node.value.get("text_format_source") {
            self.text_format(text);
        }
    }

    fn json_format(&mut self, node: &Node) {
        let Value::Map(pairs) = &node.value else { return };
        let field = |(key, value): &(Node, Node)| {
            let operator = value.value.as_text()?.strip_prefix('%')?.strip_suffix('%')?;
            Some((key.value.as_text()?.to_owned(), operator.to_owned()))
        };
        let fields = pairs.iter().filter_map(field).collect();
        self.log.get_or_insert(Log::Json(fields));
    }

    fn text_format(&mut self, node: &Node) {
        if let Some(format) = text(node, "inline_string").and_then(|format| parse(format).ok()) {
            self.log.get_or_insert(Log::Text(format));
        }
    }

    fn rate_limits(&mut self, node: &Node) {
        let Value::List(items) = &node.value else { return };
        for item in items {
            let Some(Value::List(actions)) = item.value.get("actions").map(|list| &list.value)
            else {
                continue;
            };
            let hits = item.value.get("hits_addend").map(|hits| &hits.value);
            let number = hits.and_then(|hits| hits.get("number")).map(|number| &number.value);
            let is_look = number == Some(&Value::Integer(0));
            if hits.is_some() && !is_look {
                let line = item.referenced.line();
                self.note(format!(
                    "line {line}: hits_addend is not in a log, so each request is one hit"
                ));
            }
            match actions.iter().map(entry).collect::<Result<Vec<_>, _>>() {
                Ok(entries) => {
                    let rule = DescriptorRule { entries, is_look };
                    if !self.descriptors.contains(&rule) {
                        self.descriptors.push(rule);
                    }
                }
                Err((at, problem)) => self.note(format!("line {at}: {problem}")),
            }
        }
    }

    fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }
}

fn text<'n>(node: &'n Node, key: &str) -> Option<&'n str> {
    node.value.get(key)?.value.as_text()
}

/// The entry that an action makes, or the line and what is wrong.
fn entry(action: &Node) -> Result<EntryRule, (u64, String)> {
    let line = action.referenced.line();
    let Value::Map(pairs) = &action.value else { return Err((line, "no action".to_owned())) };
    let Some((name, inner)) = pairs.first() else { return Err((line, "no action".to_owned())) };
    let name = name.value.as_text().unwrap_or_default();
    let key = |default: &str| text(inner, "descriptor_key").unwrap_or(default).to_owned();
    let logged = |operator: String| {
        let default = text(inner, "default_value").map(str::to_owned);
        ValueRule::Logged(operator, default)
    };
    match name {
        "generic_key" => {
            let value = text(inner, "descriptor_value").unwrap_or_default().to_owned();
            Ok(EntryRule { key: key("generic_key"), value: ValueRule::Text(value) })
        }
        "request_headers" => {
            let header = text(inner, "header_name").unwrap_or_default().to_uppercase();
            Ok(EntryRule { key: key(""), value: logged(format!("REQ({header})")) })
        }
        "remote_address" => {
            let operator = "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT".to_owned();
            Ok(EntryRule { key: "remote_address".to_owned(), value: logged(operator) })
        }
        "metadata" | "dynamic_metadata" => {
            let place = inner.value.get("metadata_key");
            let namespace = place.and_then(|place| text(place, "key"));
            let steps = place.and_then(|place| place.value.get("path")).map(|path| &path.value);
            let Some(Value::List(steps)) = steps else {
                return Err((line, "metadata without a path".to_owned()));
            };
            let mut operator = format!("DYNAMIC_METADATA({}", namespace.unwrap_or_default());
            for step in steps {
                operator.push(':');
                operator += text(step, "key").unwrap_or_default();
            }
            operator.push(')');
            Ok(EntryRule { key: key(""), value: logged(operator) })
        }
        other => Err((line, format!("the action {other} cannot be made from a log"))),
    }
}
