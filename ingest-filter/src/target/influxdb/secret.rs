//! Passwords and tokens, read from files that may change while we run.

use std::path::PathBuf;

use base64::Engine;
use http::header::HeaderValue;

use crate::secret;

/// Where the `Authorization` header comes from.
pub(super) enum Secret {
    Password { username: String, file: PathBuf },
    Token { scheme: &'static str, file: PathBuf },
}

impl Secret {
    /// The `Authorization` header of what the file holds now.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(&self) -> std::io::Result<HeaderValue> {
        let text = match self {
            Self::Password { username, file } => {
                let login = format!("{username}:{}", secret::read(file)?);
                format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(login))
            }
            Self::Token { scheme, file } => format!("{scheme} {}", secret::read(file)?),
        };
        let mut value = HeaderValue::try_from(text).map_err(std::io::Error::other)?;
        value.set_sensitive(true);
        Ok(value)
    }
}
