//! How the clients of Kafka prove who they are, and what they ask of the brokers.

use std::path::{Path, PathBuf};

use chassis::config::{ConfigError, Spanned, relative_to};
use chassis::reload::Source;
use chassis::tls::Material;
use chassis::tls::client::{ClientSettings, RawClientTls};
use serde::Deserialize;

/// `journal.kafka.sasl:` as written by the user.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawSasl {
    /// How to log in.
    pub mechanism: Spanned<Mechanism>,
    /// Whom to log in as, with a password.
    pub username: Option<Spanned<String>>,
    /// A file that holds the password.
    pub password_file: Option<Spanned<PathBuf>>,
    /// A file that holds the token of OAUTHBEARER.
    pub token_file: Option<Spanned<PathBuf>>,
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
    /// A token that somebody else gets for us, as it is, so over TLS alone.
    #[serde(rename = "OAUTHBEARER")]
    OAuthBearer,
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
    /// With what.
    pub proof: Proof,
}

/// What proves who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A name and a password.
    Password {
        /// Whom to log in as.
        username: String,
        /// The file with the password.
        file: PathBuf,
    },
    /// A token, which says whose it is.
    Token {
        /// The file with the token.
        file: PathBuf,
    },
}

impl Mechanism {
    /// Its name in the protocol.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
            Self::OAuthBearer => "OAUTHBEARER",
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
        if let Some(name) = tls.and_then(|tls| tls.server_san.as_ref()) {
            let message = format!("'{key}.server_san' cannot be: brokers are known by their hosts");
            return Err(ConfigError::at(path, name, message));
        }
        let tls = tls.map(|tls| tls.settings(path, key)).transpose()?;
        let Some(raw) = sasl else { return Ok(Self { tls, sasl: None }) };
        let in_clear = matches!(raw.mechanism.value, Mechanism::Plain | Mechanism::OAuthBearer);
        if in_clear && tls.is_none() {
            let message = format!(
                "journal.kafka.sasl.mechanism {} needs journal.kafka.tls: it would send its secret \
                 in clear text",
                raw.mechanism.value.name()
            );
            return Err(ConfigError::at(path, &raw.mechanism, message));
        }
        Ok(Self {
            tls,
            sasl: Some(Sasl { mechanism: raw.mechanism.value, proof: raw.proof(path)? }),
        })
    }

    /// The files, but for a token, which is read whenever it is asked for.
    pub fn source(&self) -> Source {
        let mut files = match &self.tls {
            Some(tls) => tls.source().paths(),
            None => Vec::new(),
        };
        if let Some(Sasl { proof: Proof::Password { file, .. }, .. }) = &self.sasl {
            files.push(file.clone());
        }
        Source::Files(files)
    }

    /// The same, and what a Workload API sends in place of certificate, key and authorities.
    pub fn material(&self) -> Material {
        let address = self.tls.as_ref().and_then(|tls| tls.workload_api.as_deref());
        Material::open(self.source(), address)
    }

    /// The same security as long as a Workload API has sent nothing: brokers that want a certificate refuse us.
    pub fn before_the_first(&self) -> Self {
        let tls = self.tls.as_ref().map(ClientSettings::on_disk);
        Self { tls, sasl: self.sasl.clone() }
    }

    /// The file of the token, where that is how to log in.
    pub fn token_file(&self) -> Option<&Path> {
        match &self.sasl {
            Some(Sasl { proof: Proof::Token { file }, .. }) => Some(file),
            _ => None,
        }
    }
}

impl RawSasl {
    fn proof(&self, path: &Path) -> Result<Proof, ConfigError> {
        let mechanism = self.mechanism.value.name();
        let refuse = |message: String| ConfigError::at(path, &self.mechanism, message);
        if self.mechanism.value == Mechanism::OAuthBearer {
            if self.username.is_some() || self.password_file.is_some() {
                let message = "journal.kafka.sasl takes no username and no password with";
                return Err(refuse(format!("{message} {mechanism}")));
            }
            let file = self.token_file.as_ref().ok_or_else(|| {
                refuse(format!("journal.kafka.sasl.token_file is needed for {mechanism}"))
            })?;
            return Ok(Proof::Token { file: relative_to(path, &file.value) });
        }
        if let Some(file) = &self.token_file {
            let message = "journal.kafka.sasl.token_file is for OAUTHBEARER alone";
            return Err(ConfigError::at(path, file, message));
        }
        let (Some(username), Some(file)) = (&self.username, &self.password_file) else {
            let message = "journal.kafka.sasl needs username and password_file for";
            return Err(refuse(format!("{message} {mechanism}")));
        };
        if username.value.is_empty() {
            let message = "journal.kafka.sasl.username is empty";
            return Err(ConfigError::at(path, username, message));
        }
        Ok(Proof::Password {
            username: username.value.clone(),
            file: relative_to(path, &file.value),
        })
    }
}
