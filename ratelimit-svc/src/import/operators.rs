//! Envoy's access logs read back: JSON by the names of its fields, text by the operator string that Envoy
//! was given, such as `[%START_TIME%] "%REQ(:METHOD)% …" %RESPONSE_CODE%`.

use serde_json::{Map, Value as Json};

/// What Envoy logs when it is told nothing.
pub const DEFAULT_FORMAT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"";

/// The fields of this platform's own access log.
pub const OWN_FIELDS: [(&str, &str); 7] = [
    ("time", "START_TIME"),
    ("method", "REQ(:METHOD)"),
    ("path", "PATH(NQ)"),
    ("status", "RESPONSE_CODE"),
    ("client", "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT"),
    ("tenant", "DYNAMIC_METADATA(envoy.filters.http.ext_authz:tenant)"),
    ("priority", "DYNAMIC_METADATA(envoy.filters.http.ext_authz:priority)"),
];

/// A part of a format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Stands as it is.
    Text(String),
    /// An operator, without its percent signs and without the length it is cut to.
    Operator(String),
}

/// How a log is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Log {
    /// An object a line; operators by field.
    Json(Vec<(String, String)>),
    /// Text.
    Text(Vec<Piece>),
}

/// Where a line does not match.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broke {
    /// It is no object.
    #[error("is no JSON object")]
    NotJson,
    /// What stands after an operator does not come.
    #[error("at column {column}: expected {expected:?} after %{after}%")]
    Expected {
        /// Where it was looked for, from 1.
        column: usize,
        /// What should come.
        expected: String,
        /// The operator before it, or nothing at the start.
        after: String,
    },
    /// There is more than the format has.
    #[error("at column {0}: nothing should follow")]
    Longer(usize),
    /// Nothing says when it was.
    #[error("has no %START_TIME%")]
    NoTime,
    /// What says when it was does not read.
    #[error("'{0}' is no instant")]
    Time(String),
}

/// What a line says, by operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Values<'l>(Vec<(&'l str, String)>);

impl Values<'_> {
    /// The value of an operator, unless the log has none for it.
    pub fn get(&self, operator: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(operator));
        found.map(|(_, value)| value.as_str()).filter(|value| !matches!(*value, "-" | ""))
    }

    /// The value of the first operator of that name, whatever its arguments.
    pub fn starting(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known.split('(').next() == Some(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// Reads an operator string.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub fn parse(format: &str) -> Result<Vec<Piece>, String> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut text = String::new();
    let mut rest = format.trim_end_matches(['\n', '\r']);
    while let Some(at) = rest.find('%') {
        text += &rest[..at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            text.push('%');
            rest = after;
            continue;
        }
        let (operator, after) = operator(rest)?;
        if !text.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut text)));
        } else if let Some(Piece::Operator(before)) = pieces.last() {
            return Err(format!("nothing stands between %{before}% and %{operator}%"));
        }
        pieces.push(Piece::Operator(operator));
        rest = after;
    }
    text += rest;
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    if pieces.iter().any(|piece| matches!(piece, Piece::Operator(_))) {
        Ok(pieces)
    } else {
        Err("has no operator such as %START_TIME%".to_owned())
    }
}

/// `NAME`, `NAME(arguments)` or either with `:LENGTH`, up to its percent sign. Arguments may hold percent
/// signs.
fn operator(text: &str) -> Result<(String, &str), String> {
    let name = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    let arguments = match text[name..].starts_with('(') {
        true => text[name..].find(')').map(|end| name + end + 1),
        false => Some(name),
    };
    let bad = || format!("'%{}' is no operator", text.chars().take(20).collect::<String>());
    let end = arguments.filter(|_| name > 0).ok_or_else(bad)?;
    let after = text[end..]
        .strip_prefix(':')
        .map_or(&text[end..], |length| length.trim_start_matches(|c: char| c.is_ascii_digit()));
    let after = after.strip_prefix('%').ok_or_else(bad)?;
    Ok((text[..end].to_owned(), after))
}

impl Log {
    /// The log that this platform writes.
    pub fn own() -> Self {
        let own = |(field, operator): (&str, &str)| (field.to_owned(), operator.to_owned());
        Self::Json(OWN_FIELDS.map(own).into())
    }

    /// Whether the log has a value for an operator.
    pub fn has(&self, operator: &str) -> bool {
        let same = |known: &str| known.eq_ignore_ascii_case(operator);
        match self {
            Self::Json(fields) => fields.iter().any(|(_, known)| same(known)),
            Self::Text(pieces) => {
                pieces.iter().any(|piece| matches!(piece, Piece::Operator(known) if same(known)))
            }
        }
    }

    /// What a line says.
    ///
    /// # Errors
    /// Where it does not match.
    pub fn read(&self, line: &str) -> Result<Values<'_>, Broke> {
        match self {
            Self::Json(fields) => {
                let object: Map<String, Json> =
                    serde_json::from_str(line).map_err(|_| Broke::NotJson)?;
                let values = fields.iter().filter_map(|(field, operator)| {
                    let text = match object.get(field)? {
                        Json::String(text) => text.clone(),
                        Json::Null => return None,
                        other => other.to_string(),
                    };
                    Some((operator.as_str(), text))
                });
                Ok(Values(values.collect()))
            }
            Self::Text(pieces) => matched(pieces, line),
        }
    }
}

/// The values of a line of text: of each operator what comes before the next text of the format.
fn matched<'p>(pieces: &'p [Piece], line: &str) -> Result<Values<'p>, Broke> {
    let line = line.trim_end_matches(['\n', '\r']);
    let (mut at, mut values, mut waiting) = (0, Vec::new(), None);
    let column = |at: usize| line[..at].chars().count() + 1;
    for piece in pieces {
        match piece {
            Piece::Operator(operator) => waiting = Some(operator.as_str()),
            Piece::Text(text) => {
                let found = match waiting {
                    Some(_) => line[at..].find(text.as_str()),
                    None => line[at..].starts_with(text.as_str()).then_some(0),
                };
                let found = found.ok_or_else(|| Broke::Expected {
                    column: column(at),
                    expected: text.clone(),
                    after: waiting.unwrap_or_default().to_owned(),
                })?;
                if let Some(operator) = waiting.take() {
                    values.push((operator, line[at..at + found].to_owned()));
                }
                at += found + text.len();
            }
        }
    }
    match waiting {
        Some(operator) => values.push((operator, line[at..].to_owned())),
        None if at < line.len() => return Err(Broke::Longer(column(at))),
        None => {}
    }
    Ok(Values(values))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn envoys_own_format_is_read() {
        let log = Log::Text(parse(DEFAULT_FORMAT).expect("a format"));
        let line = r#"[2027-01-15T08:00:00.125Z] "POST /write HTTP/2" 429 RL 12 0 3 - "10.0.0.1" "telegraf/1.30 (x y)" "id" "edge" "-""#;
        let values = log.read(line).expect("matches");
        assert_eq!(values.starting("START_TIME"), Some("2027-01-15T08:00:00.125Z"));
        assert_eq!(values.get("RESPONSE_CODE"), Some("429"));
        assert_eq!(values.get("REQ(user-agent)"), Some("telegraf/1.30 (x y)"));
        assert_eq!(values.get("UPSTREAM_HOST"), None, "a dash is nothing");
        let error = |line: &str| log.read(line).expect_err("does not match").to_string();
        assert!(error("GET /").starts_with("at column 1: expected \"[\""), "{}", error("GET /"));
        assert!(error("[2027] \"GET").contains("after %REQ(:METHOD)%"));
        assert_eq!(
            error(&format!("{line} more")),
            format!("at column {}: nothing should follow", line.len() + 1)
        );
    }

    #[test]
    fn formats_of_any_kind() {
        let operators = |format: &str| parse(format).map(|pieces| pieces.len());
        assert_eq!(operators("%START_TIME(%s.%3f)%|%REQ(A):20%\n"), Ok(3));
        assert_eq!(operators("100%% %RESPONSE_CODE%"), Ok(2));
        for bad in ["", "text", "%A%%B%x%", "%START_TIME", "%REQ(X%", "% %", "%A% %B%%C%"] {
            let _ = operators(bad);
        }
        assert!(operators("%START_TIME").is_err() && operators("text").is_err());
        assert!(operators("%REQ(X%").is_err() && operators("% %").is_err());
    }

    #[test]
    fn json_is_read_by_fields() {
        let log = Log::own();
        let line =
            r#"{"time":"2027-01-15T08:00:00Z","status":200,"tenant":"acme","priority":null}"#;
        let values = log.read(line).expect("matches");
        let tenant = "DYNAMIC_METADATA(envoy.filters.http.ext_authz:tenant)";
        assert_eq!((values.get(tenant), values.get("RESPONSE_CODE")), (Some("acme"), Some("200")));
        assert!(log.has(tenant) && !log.has("UPSTREAM_HOST"));
        assert_eq!(log.read("[1]"), Err(Broke::NotJson));
    }

    proptest! {
        #[test]
        fn lines_and_formats_of_anyone_do_no_harm(format in ".{0,40}", line in ".{0,60}") {
            if let Ok(pieces) = parse(&format) {
                let _ = Log::Text(pieces).read(&line);
            }
        }
    }
}
