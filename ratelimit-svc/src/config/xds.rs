//! The variables of a control plane.

use std::time::Duration;

use chassis::config::DurationText;
use chassis::process::UsageError;
use chassis::tls::client::ClientSettings;
use chassis::tls::subjects;
use rustls::pki_types::ServerName;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use tonic::transport::Endpoint;

use super::Vars;
use crate::xds::Settings;
use crate::xds::backoff::Backoff;

/// The largest response where nothing else is set, as gRPC has it.
pub const MESSAGE_BYTES: usize = 4 << 20;

impl Vars<'_> {
    pub(super) fn xds(&self) -> Result<Settings, UsageError> {
        let server = self.text("CONFIG_GRPC_XDS_SERVER_URL");
        let is_address = server.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && !host.contains(['/', '@']) && port.parse::<u16>().is_ok()
        });
        let endpoint = Endpoint::from_shared(format!("http://{server}")).ok();
        let Some(endpoint) = endpoint.filter(|_| is_address) else {
            return Err(self.bad("CONFIG_GRPC_XDS_SERVER_URL", "must be HOST:PORT"));
        };
        let random_factor: f64 = self.number("XDS_CLIENT_BACKOFF_RANDOM_FACTOR")?;
        if !(0.0..=1.0).contains(&random_factor) {
            return Err(self.bad("XDS_CLIENT_BACKOFF_RANDOM_FACTOR", "must be from 0 to 1"));
        }
        let jitter = self.flag("XDS_CLIENT_BACKOFF_JITTER")?;
        let backoff = Backoff::new(
            self.pause("XDS_CLIENT_BACKOFF_INITIAL_INTERVAL")?,
            self.pause("XDS_CLIENT_BACKOFF_MAX_INTERVAL")?,
            if jitter { random_factor } else { 0.0 },
        );
        let message_bytes_max = match self.text("XDS_CLIENT_MAX_MSG_SIZE_IN_BYTES").as_str() {
            "" => MESSAGE_BYTES,
            _ => self.number("XDS_CLIENT_MAX_MSG_SIZE_IN_BYTES")?,
        };
        if message_bytes_max == 0 {
            return Err(self.bad("XDS_CLIENT_MAX_MSG_SIZE_IN_BYTES", "must be at least 1"));
        }
        Ok(Settings {
            server,
            endpoint,
            tls: self.xds_tls()?,
            node_id: self.text("CONFIG_GRPC_XDS_NODE_ID"),
            node_metadata: self.pairs("CONFIG_GRPC_XDS_NODE_METADATA", &[':', '='])?,
            headers: self.headers()?,
            connect_retry: self.pause("CONFIG_GRPC_XDS_SERVER_CONNECT_RETRY_INTERVAL")?,
            backoff,
            message_bytes_max,
        })
    }

    fn xds_tls(&self) -> Result<Option<ClientSettings>, UsageError> {
        if !self.flag("CONFIG_GRPC_XDS_SERVER_USE_TLS")? {
            return Ok(None);
        }
        let certificate = self.path("CONFIG_GRPC_XDS_CLIENT_TLS_CERT");
        let key = self.path("CONFIG_GRPC_XDS_CLIENT_TLS_KEY");
        if certificate.is_some() != key.is_some() {
            return Err(UsageError(
                "CONFIG_GRPC_XDS_CLIENT_TLS_CERT and CONFIG_GRPC_XDS_CLIENT_TLS_KEY need each other"
                    .to_owned(),
            ));
        }
        let name = "CONFIG_GRPC_XDS_SERVER_TLS_SAN";
        let text = self.text(name);
        let (mut server_name, mut server_subjects) = (None, Vec::new());
        if text.contains("://") {
            server_subjects = subjects(&text).map_err(|problem| self.bad(name, problem))?;
        } else if !text.is_empty() {
            let bad = |_| self.bad(name, "is neither a DNS name, an address nor a URI");
            server_name = Some(ServerName::try_from(text).map_err(bad)?);
        }
        let files = ClientSettings {
            authorities: self.path("CONFIG_GRPC_XDS_SERVER_TLS_CACERT"),
            identity: certificate.zip(key),
            server_name,
            server_subjects,
            ..ClientSettings::default()
        };
        let settings = self.client_tls("CONFIG_GRPC_XDS_CLIENT_TLS_WORKLOAD_API", files)?;
        if settings.authorities.is_none() && !settings.server_subjects.is_empty() {
            // Public authorities sign for hosts: none of them vouches for such a name.
            return Err(self.bad(name, "is a URI, which needs CONFIG_GRPC_XDS_SERVER_TLS_CACERT"));
        }
        Ok(Some(settings))
    }

    /// A pause without which a control plane that is gone would be asked without end.
    fn pause(&self, name: &str) -> Result<Duration, UsageError> {
        let pause = self.parse::<DurationText>(name)?.0;
        if pause.is_zero() || pause > Duration::from_secs(3600) {
            return Err(self.bad(name, "must be above 0 and at most 1h"));
        }
        Ok(pause)
    }

    pub(super) fn pairs(
        &self,
        name: &str,
        between: &[char],
    ) -> Result<Vec<(String, String)>, UsageError> {
        pairs(name, &self.text(name), between)
    }

    fn headers(&self) -> Result<MetadataMap, UsageError> {
        let name = "CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS";
        let mut headers = MetadataMap::new();
        for (key, value) in self.pairs(name, &[':'])? {
            let bad = |_| UsageError(format!("{name}: header '{key}' is not one of gRPC"));
            let parsed: AsciiMetadataKey = key.to_lowercase().parse().map_err(bad)?;
            let mut value = AsciiMetadataValue::try_from(value)
                .map_err(|_| UsageError(format!("{name}: bad value of header '{key}'")))?;
            value.set_sensitive(true);
            headers.insert(parsed, value);
        }
        Ok(headers)
    }
}

/// Pairs such as `key:value,key:value`. What is wrong is not repeated: values may be secrets.
pub(super) fn pairs(
    name: &str,
    text: &str,
    between: &[char],
) -> Result<Vec<(String, String)>, UsageError> {
    let pair = |pair: &str| match pair.split_once(between) {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err(UsageError(format!("{name} must be of the form key:value,key:value"))),
    };
    text.split(',').filter(|part| !part.trim().is_empty()).map(pair).collect()
}
