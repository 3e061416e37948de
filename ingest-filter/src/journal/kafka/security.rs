//! TLS and login in the client library's own words.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rdkafka::config::ClientConfig;

use crate::journal::config::security::Proof;
use crate::journal::credentials::Credentials;

/// A refused login is said once in so many seconds, though it is tried again every two.
const REFUSAL_PERIOD_SECONDS: u64 = 60;

/// Sets what the brokers ask for.
pub(super) fn apply(client: &mut ClientConfig, credentials: &Credentials) {
    let (security, material) = (credentials.security(), credentials.in_force().borrow().clone());
    let protocol = match (&security.tls, &security.sasl) {
        (None, None) => return,
        (Some(_), None) => "ssl",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    client.set("security.protocol", protocol);
    if security.tls.is_some() {
        client.set("ssl.endpoint.identification.algorithm", "https");
    }
    if let Some(authorities) = &material.authorities {
        client.set("ssl.ca.pem", authorities);
    }
    if let Some((certificate, key)) = &material.identity {
        client.set("ssl.certificate.pem", certificate).set("ssl.key.pem", key);
    }
    let Some(sasl) = &security.sasl else { return };
    client.set("sasl.mechanism", sasl.mechanism.name());
    if let Proof::Password { username, .. } = &sasl.proof {
        client.set("sasl.username", username);
        client.set("sasl.password", material.password.as_deref().unwrap_or_default());
    }
}

/// Whether what the client library says is about a login or certificate that was refused.
pub(super) fn is_refusal(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ["sasl auth", "authentication", "ssl handshake failed", "ssl alert"]
        .iter()
        .any(|it| message.contains(it))
}

/// Whether it is time to say that the brokers refuse us: every client tries again and again.
pub(super) fn may_be_said() -> bool {
    static SAID: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let said = SAID.load(Ordering::Relaxed);
    let is_due = said == 0 || now >= said + REFUSAL_PERIOD_SECONDS;
    is_due && SAID.compare_exchange(said, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_from_outages() {
        for (message, expected) in [
            ("sasl_ssl://b:9092/1: SASL authentication error: Authentication failed", true),
            ("ssl://b:9092/1: SSL handshake failed: certificate verify failed", true),
            ("ssl://b:9092/1: tlsv13 alert certificate required: SSL alert number 116", true),
            ("b:9092/1: Connect to ipv4#127.0.0.1:9092 failed: Connection refused", false),
        ] {
            assert_eq!(is_refusal(message), expected, "{message}");
        }
    }
}
