//! `hits_addend` by a format: where its value is missing, negative, no number or above 10^9, Envoy
//! drops the descriptor and does not ask for it.

use super::bootstrap::Chain;
use super::descriptors::{AUTHZ_METADATA, all, authz_before};
use super::tree::{field, text};
use super::{Findings, Rule, Severity};

static OPTIONAL: Rule = Rule {
    name: "optional-hits-addend",
    severity: Severity::Error,
    trap: "a value that is missing, negative, no number or above 10^9 drops the descriptor: it is neither counted nor limited",
    cure: "count in the service, or take a number that ext_authz writes into its metadata for every request",
};
static FROM_AUTHZ: Rule = Rule {
    name: "hits-addend-from-authz",
    severity: Severity::Warning,
    trap: "an answer of ext_authz without this number drops the descriptor: it is neither counted nor limited",
    cure: "make sure that every answer has it as a number from 0 to 10^9, and keep a descriptor without `hits_addend` beside it",
};
static FROM_RESPONSE: Rule = Rule {
    name: "hits-addend-from-response",
    severity: Severity::Warning,
    trap: "a response without this header, and a request that ends without one, is not counted",
    cure: "make sure that every response that should count has it",
};

/// The rules of this group.
pub const RULES: &[&Rule] = &[&OPTIONAL, &FROM_AUTHZ, &FROM_RESPONSE];

/// Commands that always have a number.
const ALWAYS: [&str; 4] = ["BYTES_RECEIVED", "BYTES_SENT", "DURATION", "RESPONSE_CODE"];
/// Commands of what the upstream answers.
const OF_RESPONSE: [&str; 3] = ["RESP", "TRAILER", "RESPONSE_TRAILER"];

pub(super) fn check(chain: &Chain<'_>, found: &mut Findings) {
    for descriptor in all(chain) {
        let Some(hits) = field(descriptor.node, "hits_addend") else { continue };
        let (Some(node), Some(format)) = (field(hits, "format"), text(hits, "format")) else {
            continue;
        };
        for (command, argument) in commands(format) {
            let of_authz = command == "DYNAMIC_METADATA"
                && argument.split(':').next() == Some(AUTHZ_METADATA)
                && authz_before(chain, descriptor.rank);
            let rule = match command {
                command if ALWAYS.contains(&command) => continue,
                command if OF_RESPONSE.contains(&command) => &FROM_RESPONSE,
                _ if of_authz => &FROM_AUTHZ,
                _ => &OPTIONAL,
            };
            found.add(rule, node, format!("%{command}({argument})%"));
        }
    }
}

/// The commands of a format string, `%COMMAND(ARGUMENT)%`, with their arguments.
pub(super) fn commands(format: &str) -> impl Iterator<Item = (&str, &str)> {
    let parts = format.split('%').skip(1).step_by(2);
    parts.map(|part| match part.split_once('(') {
        Some((command, rest)) => {
            (command, rest.rsplit_once(')').map_or(rest, |(argument, _)| argument))
        }
        None => (part, ""),
    })
}
