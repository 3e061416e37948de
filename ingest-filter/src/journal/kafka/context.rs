//! What every client of the library asks of us: a token where that is how to log in.

use std::error::Error;
use std::path::{Path, PathBuf};

use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;

use crate::journal::config::KafkaConfig;
use crate::journal::kafka::{log, security};
use crate::journal::token;

/// Where the token is that a client asks for well before it expires.
#[derive(Clone, Default)]
pub(super) struct Login {
    token_file: Option<PathBuf>,
}

impl Login {
    pub fn new(config: &KafkaConfig) -> Self {
        let file = config.credentials.security().token_file();
        Self { token_file: file.map(Path::to_owned) }
    }

    /// The token as it is in the file now. One that cannot be used is said at most once a minute; the
    /// client asks again every ten seconds.
    pub fn token(&self) -> Result<OAuthToken, Box<dyn Error>> {
        let file = self.token_file.as_deref().ok_or("there is no token")?;
        let token = token::read(file).inspect_err(|reason| {
            if security::may_be_said() {
                tracing::error!(reason, "there is no token to log in to Kafka with");
            }
        })?;
        // The client reckons in microseconds: later than 2106 is as good as never.
        let lifetime_ms = token.expires_at.min(u32::MAX.into()) as i64 * 1000;
        Ok(OAuthToken { token: token.text, principal_name: token.principal, lifetime_ms })
    }
}

/// For clients of which nothing else is to be heard.
pub(super) struct Quiet {
    login: Login,
}

impl Quiet {
    pub fn new(config: &KafkaConfig) -> Self {
        Self { login: Login::new(config) }
    }
}

impl ClientContext for Quiet {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "a Kafka client reports an error");
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.login.token()
    }
}

impl ConsumerContext for Quiet {}
