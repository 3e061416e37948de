//! Changing a keys file as text, so that everything else in it stays byte for byte: comments,
//! order and layout belong to whoever keeps the file.
//!
//! An edit is proposed and then proven: the new text is parsed, and its records must be exactly
//! the old ones and the one change. A layout in which no proposal holds is refused.

use std::fmt::Write;
use std::path::Path;

use chassis::config::ConfigError;

use super::{KeyFile, Position, Rules, json};
use crate::admin::{Objection, may_become};
use crate::check::key::KeyId;
use crate::check::record::{KeyRecord, Kind, Status};
use crate::timestamp::Timestamp;

/// Why a file was not changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The file as it stands is not valid.
    #[error("the keys file is not valid as it stands, so it was left alone")]
    Invalid(#[source] ConfigError),
    /// The file would not be valid after the change.
    #[error("the keys file would not be valid afterwards, so it was left alone")]
    Refused(#[source] ConfigError),
    /// The key cannot be changed so.
    #[error(transparent)]
    Objection(#[from] Objection),
    /// The file is written in a way that cannot be changed safely.
    #[error("the keys file is laid out in a way that cannot be changed safely: please edit it")]
    Layout,
}

/// A record as YAML, one key a line, without indentation and without a list dash. The digest, which
/// no record may lack, is last: a file cut off in the middle of a record is never valid, so it can
/// not lose a `revoked` or an `expires_at`.
pub fn render(record: &KeyRecord, comment: Option<&str>) -> Vec<String> {
    let hex = json::hex_text(&record.digest.hmac_sha256);
    let mut lines = vec![
        format!("id: \"{}\"", record.id),
        format!("tenant: \"{}\"", record.tenant),
        format!("priority: \"{}\"", record.grant.priority),
        format!("plan: \"{}\"", record.grant.plan),
    ];
    let scopes: Vec<String> =
        record.grant.scopes.iter().map(|scope| format!("\"{scope}\"")).collect();
    lines.push(format!("scopes: [{}]", scopes.join(", ")));
    if let Some(moment) = record.not_before {
        lines.push(format!("not_before: \"{moment}\""));
    }
    if let Some(moment) = record.expires_at {
        lines.push(format!("expires_at: \"{moment}\""));
    }
    match record.status {
        Status::Active => {}
        Status::Suspended => lines.push("suspended: true".to_owned()),
        Status::Revoked => lines.push("revoked: true".to_owned()),
    }
    if !record.grant.networks.is_empty() {
        let networks = record.grant.networks.iter().map(|network| format!("\"{network}\""));
        lines.push(format!("networks: [{}]", networks.collect::<Vec<_>>().join(", ")));
    }
    if record.kind == Kind::Imported {
        lines.push("imported: true".to_owned());
    }
    if let Some(comment) = comment {
        // JSON strings are YAML strings.
        lines.push(format!("comment: {}", serde_json::Value::from(comment)));
    }
    lines.push(format!("digest: {{pepper: {}, hmac_sha256: \"{hex}\"}}", record.digest.pepper));
    lines
}

/// Whether a file of this name is begun in JSON.
pub fn is_json(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "json")
}

/// The file with one more key at its end; without a file, a new one.
///
/// # Errors
/// When the file or the result is not valid, or the layout is not understood.
pub fn append(
    path: &Path,
    text: Option<&str>,
    record: &KeyRecord,
    comment: Option<&str>,
    rules: Rules<'_>,
) -> Result<String, EditError> {
    let mut expected: Vec<(KeyRecord, Option<String>)> = Vec::new();
    let mut proposals = Vec::new();
    match text {
        None if is_json(path) => {
            proposals.push(json::file(&[], [(record, comment)].into_iter()));
        }
        None => proposals.push(format!("keys:\n{}", item("  ", record, comment))),
        Some(text) => {
            let file = parse(path, text, rules)?;
            let text = &one_more(text, &file);
            if json::read(text.as_bytes()).is_some() {
                proposals.extend(json::appended(text, record, comment));
            }
            proposals.extend(appended(text, &file, record, comment));
            expected = contents(file);
        }
    }
    expected.push((record.clone(), comment.map(str::to_owned)));
    proven(path, proposals, &expected, rules)
}

/// The file with another status of one key.
///
/// # Errors
/// When there is no such key, it has that status already or is revoked, the file or the result is
/// not valid, or the layout is not understood.
pub fn set_status(
    path: &Path,
    text: &str,
    id: KeyId,
    status: Status,
    rules: Rules<'_>,
) -> Result<String, EditError> {
    let file = parse(path, text, rules)?;
    let entry = file.entries.iter().find(|entry| entry.record.id == id);
    let entry = entry.ok_or(Objection::NoSuchKey(id))?;
    may_become(id, entry.record.status, status)?;
    let (word, value, at) = match status {
        Status::Revoked => ("revoked", "true", entry.revoked_at),
        Status::Suspended => ("suspended", "true", entry.suspended_at),
        Status::Active => ("suspended", "false", entry.suspended_at),
    };
    let field = Field { word, value: value.to_owned(), at };
    let proposals = with_field(text, entry.id_at, &field, id);
    let mut expected = contents(file);
    for (record, _) in expected.iter_mut().filter(|(record, _)| record.id == id) {
        record.status = status;
    }
    proven(path, proposals, &expected, rules)
}

/// The file with another end of one key.
///
/// # Errors
/// As [`set_status`], whatever the key's status is.
pub fn expire(
    path: &Path,
    text: &str,
    id: KeyId,
    end: Timestamp,
    rules: Rules<'_>,
) -> Result<String, EditError> {
    let file = parse(path, text, rules)?;
    let entry = file.entries.iter().find(|entry| entry.record.id == id);
    let entry = entry.ok_or(Objection::NoSuchKey(id))?;
    let field = Field { word: "expires_at", value: format!("\"{end}\""), at: entry.expires_at_at };
    let proposals = with_field(text, entry.id_at, &field, id);
    let mut expected = contents(file);
    for (record, _) in expected.iter_mut().filter(|(record, _)| record.id == id) {
        record.expires_at = Some(end);
    }
    proven(path, proposals, &expected, rules)
}

fn parse(path: &Path, text: &str, rules: Rules<'_>) -> Result<KeyFile, EditError> {
    KeyFile::parse(path, text.as_bytes(), rules).map_err(EditError::Invalid)
}

fn contents(file: KeyFile) -> Vec<(KeyRecord, Option<String>)> {
    file.entries.into_iter().map(|entry| (entry.record, entry.comment)).collect()
}

/// The first proposal that says what is expected. If none does but all are refused for a reason,
/// that reason is told.
fn proven(
    path: &Path,
    proposals: Vec<String>,
    expected: &[(KeyRecord, Option<String>)],
    rules: Rules<'_>,
) -> Result<String, EditError> {
    let mut error = EditError::Layout;
    for proposal in proposals {
        match KeyFile::parse(path, proposal.as_bytes(), rules) {
            Ok(file) => {
                if contents(file) == expected {
                    return Ok(proposal);
                }
            }
            Err(refused) => error = EditError::Refused(refused),
        }
    }
    Err(error)
}

/// The text with its number of keys raised by one, where it says one.
fn one_more(text: &str, file: &KeyFile) -> String {
    let Some((count, at)) = file.count else { return text.to_owned() };
    let Some(at) = offset(text, at) else { return text.to_owned() };
    let digits = text[at..].find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len() - at);
    format!("{}{}{}", &text[..at], count + 1, &text[at + digits..])
}

fn appended(text: &str, file: &KeyFile, record: &KeyRecord, comment: Option<&str>) -> Vec<String> {
    let mut proposals = Vec::new();
    if let Some(last) = file.entries.last() {
        let line_at = offset(text, (last.id_at.0, 1)).unwrap_or(0);
        let dash = text[..line_at + line(text, line_at).len()].rfind('-').unwrap_or(0);
        let indent = &text[line_start(text, dash)..dash];
        let ended = if text.ends_with('\n') { "" } else { "\n" };
        proposals.push(format!("{text}{ended}{}", item(indent, record, comment)));
        // The dash may stand further up than the line of the id.
        for indent in ["  ", "", "    "] {
            proposals.push(format!("{text}{ended}{}", item(indent, record, comment)));
        }
    } else if let Some(at) = offset(text, file.list_at)
        && text[at..].starts_with('[')
        && let Some(close) = text[at..].find(']')
    {
        let (before, after) = (text[..at].trim_end_matches(' '), &text[at + close + 1..]);
        // What follows on the line can only be a comment, which stays on the line of `keys:`.
        let rest = after.find('\n').map_or(after.len(), |end| end + 1);
        let ended = if after[..rest].ends_with('\n') { "" } else { "\n" };
        let item = item("  ", record, comment);
        proposals.push(format!("{before}{}{ended}{item}{}", &after[..rest], &after[rest..]));
    }
    proposals
}

fn item(indent: &str, record: &KeyRecord, comment: Option<&str>) -> String {
    let lines = render(record, comment);
    let mut text = String::new();
    for (at, line) in lines.iter().enumerate() {
        let lead = if at == 0 { "- " } else { "  " };
        writeln!(text, "{indent}{lead}{line}").expect("writing to a string does not fail");
    }
    text
}

/// A field of a record and where its value stands, if it does.
struct Field {
    word: &'static str,
    value: String,
    at: Option<Position>,
}

fn with_field(text: &str, id_at: Position, field: &Field, id: KeyId) -> Vec<String> {
    let Field { word, value, at } = field;
    let mut proposals = Vec::new();
    if let Some(at) = at.and_then(|at| offset(text, at)) {
        let rest = &text[at..];
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '.' | '-');
        let quoted = rest.chars().next().filter(|first| matches!(first, '"' | '\''));
        let old = match quoted.and_then(|quote| rest[1..].find(quote)) {
            Some(inner) => inner + 2,
            None => rest.find(|c: char| !plain(c)).unwrap_or(rest.len()),
        };
        proposals.push(format!("{}{value}{}", &text[..at], &rest[old..]));
        return proposals;
    }
    let Some(at) = offset(text, id_at) else { return proposals };
    // Between braces: right behind the id and its closing quote.
    let Some(found) = text[at..].find(id.as_str()) else { return proposals };
    let mut end = at + found + id.as_str().len();
    end += usize::from(text[end..].starts_with(['"', '\'']));
    // In JSON a key has quotes too, and what is JSON stays JSON.
    let quote = if json::read(text.as_bytes()).is_some() { "\"" } else { "" };
    proposals.push(format!("{}, {quote}{word}{quote}: {value}{}", &text[..end], &text[end..]));
    // On lines of its own: a line below the id, in the column of the word `id`.
    let start = line_start(text, at);
    let indent: String = match text[start..at].rfind("id") {
        Some(column) => {
            text[start..start + column].chars().map(|c| if c == '-' { ' ' } else { c }).collect()
        }
        None => return proposals,
    };
    let next = start + line(text, start).len();
    let (before, after) = text.split_at(next);
    let ended = if before.ends_with('\n') { "" } else { "\n" };
    proposals.push(format!("{before}{ended}{indent}{word}: {value}\n{after}"));
    proposals
}

/// The byte where a 1-based line and column, counted in characters, begin.
fn offset(text: &str, (row, column): Position) -> Option<usize> {
    let row = usize::try_from(row).ok()?.checked_sub(1)?;
    let column = usize::try_from(column).ok()?.checked_sub(1)?;
    let start: usize = text.split_inclusive('\n').take(row).map(str::len).sum();
    let (bytes, _) = text.get(start..)?.char_indices().nth(column)?;
    Some(start + bytes)
}

fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |newline| newline + 1)
}

/// From `start` to the end of its line, the line break included.
fn line(text: &str, start: usize) -> &str {
    text[start..].split_inclusive('\n').next().unwrap_or("")
}

#[cfg(test)]
#[path = "edit/tests.rs"]
mod tests;
