//! What a database says in the body of an answer.

use http_body_util::BodyExt;
use hyper::body::Incoming;

/// The body of an answer.
#[derive(Default)]
pub(super) struct Words {
    pub message: String,
    /// It names a line of the request, as 3 does.
    pub names_a_line: bool,
}

/// Reads an answer up to the bound, or to where it breaks; what is left unread closes the connection.
pub(super) async fn read_bounded(
    mut body: Incoming,
    bytes_max: usize,
) -> (Vec<u8>, Option<hyper::Error>) {
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => return (read, Some(error)),
        };
        if let Some(data) = frame.data_ref() {
            read.extend_from_slice(&data[..data.len().min(bytes_max - read.len())]);
        }
        if read.len() >= bytes_max {
            break;
        }
    }
    (read, None)
}

impl Words {
    /// What these bytes say, read as any of the versions means it.
    pub fn of(read: &[u8]) -> Self {
        let json: serde_json::Value = serde_json::from_slice(read).unwrap_or_default();
        let text = |value: &serde_json::Value| {
            value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
        };
        // 3 names the first bad line apart; 2.x says `message` where the others say `error`.
        let data = if json["data"].is_array() { &json["data"][0] } else { &json["data"] };
        let first_line = text(&data["error_message"]);
        let names_a_line = first_line.is_some() && data["line_number"].is_u64();
        let message = match (text(&json["error"]).or_else(|| text(&json["message"])), first_line) {
            (Some(error), Some(line)) => format!("{error}: {line}"),
            (Some(error), None) => error,
            (None, _) => String::from_utf8_lossy(read).trim_end().to_owned(),
        };
        Self { message, names_a_line }
    }
}
