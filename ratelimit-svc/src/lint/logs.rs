//! Access logs: some agents carry their key in the query, and a log keeps it.

use super::bootstrap::Bootstrap;
use super::hits::commands;
use super::tree::{field, find, items, message, walk};
use super::{Findings, Rule, Severity};
use crate::document::{Node, Value};

static QUERY: Rule = Rule {
    name: "query-in-access-log",
    severity: Severity::Error,
    trap: "the log keeps the query, and with it the keys that some agents carry there",
    cure: "log `%PATH(NQ)%`, the path without its query",
};
static QUERY_SENT: Rule = Rule {
    name: "query-in-grpc-access-log",
    severity: Severity::Warning,
    trap: "the entries that are sent carry the path with its query, and no setting leaves it out",
    cure: "let the receiver cut the query off before it keeps anything",
};

/// The rules of this group.
pub const RULES: &[&Rule] = &[&QUERY, &QUERY_SENT];

/// Loggers that write a line by a format.
const WRITERS: [&str; 3] = [
    "envoy.extensions.access_loggers.file.v3.FileAccessLog",
    "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
    "envoy.extensions.access_loggers.stream.v3.StderrAccessLog",
];
const SENDER: &str = "envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig";

pub(super) fn check(bootstrap: &Bootstrap<'_>, found: &mut Findings) {
    for chain in &bootstrap.chains {
        // Of the chain, of its router's upstream, and of any filter that logs.
        walk(chain.manager, &mut |node| {
            for name in ["access_log", "upstream_log"] {
                items(node, name).iter().for_each(|log| check_log(log, found));
            }
        });
    }
}

fn check_log(log: &Node, found: &mut Findings) {
    let Some((kind, config)) = find(log, "typed_config").and_then(message) else { return };
    if kind == SENDER {
        found.add(&QUERY_SENT, config, "");
    }
    if !WRITERS.contains(&kind) {
        return;
    }
    let formats = ["log_format", "format", "json_format", "typed_json_format"];
    let formats: Vec<&Node> = formats.iter().filter_map(|name| field(config, name)).collect();
    if formats.is_empty() {
        found.add(&QUERY, config, "the default format");
    }
    for format in formats {
        walk(format, &mut |node| {
            let Value::Text(text) = &node.value else { return };
            for (command, argument) in commands(text) {
                if has_query(command, argument) {
                    let command = if argument.is_empty() {
                        command.to_owned()
                    } else {
                        format!("{command}({argument})")
                    };
                    found.add(&QUERY, node, format!("%{command}%"));
                }
            }
        });
    }
}

/// Whether a command writes a path with its query.
fn has_query(command: &str, argument: &str) -> bool {
    let argument = argument.to_ascii_uppercase();
    match command {
        "REQ" => argument.contains(":PATH") || argument.contains("X-ENVOY-ORIGINAL-PATH"),
        "PATH" => !argument.starts_with("NQ"),
        "QUERY_PARAMS" | "QUERY_PARAM" => true,
        _ => false,
    }
}
