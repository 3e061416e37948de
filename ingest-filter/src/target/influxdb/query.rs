//! Values in the query of a URL. Pure.

/// Percent-encodes all but unreserved characters.
pub(super) fn query_value(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_in_a_query() {
        assert_eq!(query_value("a b&c=\u{e9}%"), "a%20b%26c%3D%C3%A9%25");
        assert_eq!(query_value("tele-metry_1.2~"), "tele-metry_1.2~");
    }
}
