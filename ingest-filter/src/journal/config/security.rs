//! How the clients of Kafka prove who they are, and what they ask of the brokers.

use std::path::{Path, PathBuf};

use chassis::config::{ConfigError, Spanned};
use chassis::process::UsageError;
use chassis::tls::client::{ClientSettings, RawClientTls};
use serde::Deserialize;

/// `journal.kafka.sasl:` as written by the user.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawSasl {
    /// How to log in.
    pub mechanism: Spanned<Mechanism>,
    /// Whom to log in as.
    pub username: Spanned<String>,
    /// A file that holds the password.
    pub password_file: PathBuf,
}

/// How to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Mechanism {
    /// The password as it is, so over TLS alone.
    #[serde(rename = "PLAIN")]
    Plain,
    /// Salted challenge and response with SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// The same with SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

/// TLS and login of the clients of Kafka; neither by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// TLS, or clear text.
    pub tls: Option<ClientSettings>,
    /// The login, if there is one.
    pub sasl: Option<Sasl>,
}

/// A login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sasl {
    /// How.
    pub mechanism: Mechanism,
    /// Whom as.
    pub username: String,
    /// The file with the password.
    pub password_file: PathBuf,
}

impl Mechanism {
    /// Its name in the protocol.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

impl Security {
    /// Checks what the user wrote in the file at `path`.
    ///
    /// # Errors
    /// For a name of the server, which Kafka's clients take from the brokers, and for a password
    /// that would travel in clear text.
    pub fn from_raw(
        path: &Path,
        tls: Option<&RawClientTls>,
        sasl: Option<&RawSasl>,
    ) -> Result<Self, ConfigError> {
        let key = "journal.kafka.tls";
        if let Some(name) = tls.and_then(|tls| tls.server_name.as_ref()) {
            let message = format!("'{key}.server_name' cannot be: brokers have names of their own");
            return Err(ConfigError::at(path, name, message));
        }
        let tls = tls.map(|tls| tls.settings(path, key)).transpose()?;
        let Some(raw) = sasl else { return Ok(Self { tls, sasl: None }) };
        if raw.mechanism.value == Mechanism::Plain && tls.is_none() {
            let message = "journal.kafka.sasl.mechanism PLAIN needs journal.kafka.tls: it would \
                           send the password in clear text";
            return Err(ConfigError::at(path, &raw.mechanism, message));
        }
        if raw.username.value.is_empty() {
            let message = "journal.kafka.sasl.username is empty";
            return Err(ConfigError::at(path, &raw.username, message));
        }
        let sasl = Sasl {
            mechanism: raw.mechanism.value,
            username: raw.username.value.clone(),
            password_file: path.parent().unwrap_or(Path::new("")).join(&raw.password_file),
        };
        Ok(Self { tls, sasl: Some(sasl) })
    }

    /// Whether the files can be used now.
    ///
    /// # Errors
    /// When they cannot; the first of them is named.
    pub fn check_files(&self) -> Result<(), UsageError> {
        if let Some(tls) = &self.tls {
            tls.check()?;
        }
        match &self.sasl {
            Some(sasl) => sasl.password().map(drop).map_err(|error| UsageError(error.to_string())),
            None => Ok(()),
        }
    }
}

impl Sasl {
    /// What the file holds now, without the end of its last line.
    ///
    /// # Errors
    /// When it cannot be read or holds nothing.
    pub fn password(&self) -> std::io::Result<String> {
        crate::secret::read(&self.password_file)
    }
}
