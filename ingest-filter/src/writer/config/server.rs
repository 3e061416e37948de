//! Where a database is and how it proves itself.

use std::path::Path;

use chassis::config::{ConfigError, Spanned};
use chassis::tls::client::{ClientSettings, RawClientTls};
use http::Uri;

use super::TargetConfig;

impl TargetConfig {
    /// How it is told of TLS, where its URL wants that.
    pub fn tls(&self) -> Option<&ClientSettings> {
        match self {
            Self::InfluxdbV1(config) => config.tls.as_ref(),
            Self::InfluxdbV2(config) => config.tls.as_ref(),
            Self::InfluxdbV3(config) => config.tls.as_ref(),
            Self::File(_) => None,
        }
    }
}

/// Scheme, host and port of a URL that has nothing else.
pub(super) fn url(
    path: &Path,
    section: &str,
    raw: &Spanned<String>,
) -> Result<String, ConfigError> {
    let error =
        |message: &str| ConfigError::at(path, raw, format!("writer.{section}.url {message}"));
    let url: Uri =
        raw.value.parse().map_err(|_| error("is not a URL such as http://127.0.0.1:8086"))?;
    match (url.scheme_str(), url.authority()) {
        (Some("http" | "https"), Some(authority)) if !authority.as_str().contains('@') => {}
        (Some("http" | "https"), Some(_)) => {
            return Err(error("must not hold a password, use the keys that name a file"));
        }
        _ => return Err(error("must begin with http:// or https://")),
    }
    if url.path() != "/" || url.query().is_some() {
        return Err(error("must have no path and no query"));
    }
    Ok(raw.value.trim_end_matches('/').to_owned())
}

/// TLS of an https URL, by default with the authorities of the system.
pub(super) fn tls(
    path: &Path,
    section: &str,
    url: &str,
    raw: Option<&Spanned<RawClientTls>>,
) -> Result<Option<ClientSettings>, ConfigError> {
    match (url.starts_with("https:"), raw) {
        (false, None) => Ok(None),
        (true, None) => Ok(Some(ClientSettings::default())),
        (true, Some(raw)) => raw.value.settings(path, &format!("writer.{section}.tls")).map(Some),
        (false, Some(raw)) => {
            let message = format!("writer.{section}.tls needs a url that begins with https://");
            Err(ConfigError::at(path, raw, message))
        }
    }
}
