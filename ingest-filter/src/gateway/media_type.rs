//! `Content-Type` as RFC 9110 writes it (§5.6.6 and §8.3.1): names are compared without case, and
//! a parameter's value may be quoted.

use http::{HeaderMap, header};

/// A media type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MediaType {
    /// `type/subtype`, in lower case; empty where no header was.
    pub essence: String,
    /// Names in lower case, and values without their quotes.
    pub parameters: Vec<(String, String)>,
}

impl MediaType {
    /// Reads the header; text that is not ASCII is no media type and reads as none.
    pub fn of(headers: &HeaderMap) -> Self {
        let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        Self::parse(value.unwrap_or(""))
    }

    /// The parameter of this name, given in lower case.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    fn parse(text: &str) -> Self {
        let (essence, mut rest) = text.split_once(';').unwrap_or((text, ""));
        let mut parameters = Vec::new();
        while !rest.trim_ascii().is_empty() {
            let (name, after) = match rest.find(['=', ';']) {
                Some(at) if rest.as_bytes()[at] == b'=' => (&rest[..at], &rest[at + 1..]),
                Some(at) => {
                    rest = &rest[at + 1..];
                    continue;
                }
                None => break,
            };
            let (value, after) = value(after);
            parameters.push((name.trim_ascii().to_ascii_lowercase(), value));
            rest = after;
        }
        Self { essence: essence.trim_ascii().to_ascii_lowercase(), parameters }
    }
}

/// The value at the beginning of `text`, and what comes behind its semicolon.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.trim_ascii_start().strip_prefix('"') else {
        let (value, rest) = text.split_once(';').unwrap_or((text, ""));
        return (value.trim_ascii().to_owned(), rest);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => {
                let rest = &quoted[at + 1..];
                return (value, rest.split_once(';').map_or("", |(_, rest)| rest));
            }
            '\\' => value.extend(chars.next().map(|(_, char)| char)),
            char => value.push(char),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, essence: &str, proto: Option<&str>) {
        let read = MediaType::parse(text);
        assert_eq!((read.essence.as_str(), read.parameter("proto")), (essence, proto), "{text}");
    }

    #[test]
    fn names_have_no_case_and_values_may_be_quoted() {
        check("", "", None);
        check("Text/Plain", "text/plain", None);
        check("a/b;proto=x.Y", "a/b", Some("x.Y"));
        check("a/b ; Proto = \"x.Y\"; q=1", "a/b", Some("x.Y"));
        check("a/b; charset=\"u;proto=no\\\"\" ;PROTO=x", "a/b", Some("x"));
        check("a/b;;flag; proto=x", "a/b", Some("x"));
        check("a/b;proto", "a/b", None);
        check("a/b;proto=\"open", "a/b", Some("open"));
    }
}
