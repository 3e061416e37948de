//! How to reach Redis, as the configuration file writes it.

use std::path::PathBuf;

use chassis::config::{ConfigError, DurationText, Spanned};
use chassis::tls::client::ClientSettings;
use serde::Deserialize;

use super::{
    MAX_STALENESS_BOUNDS, MAX_STALENESS_DEFAULT, REDIS_ADDRESSES_MAX, REDIS_PREFIX_DEFAULT, Reader,
};
use crate::names::name_problem;
use crate::source::redis::settings::{Login, RedisSettings, RedisTls, Sent, Topology};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRedis {
    address: Spanned<String>,
    sentinel_primary: Option<Spanned<String>>,
    sentinel_user: Option<Spanned<String>>,
    sentinel_password_file: Option<Spanned<PathBuf>>,
    cluster: Option<Spanned<bool>>,
    user: Option<String>,
    password_file: Option<PathBuf>,
    tls: Option<RawRedisTls>,
    prefix: Option<Spanned<String>>,
    max_staleness: Option<Spanned<DurationText>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRedisTls {
    ca_file: Option<PathBuf>,
    certificate_file: Option<PathBuf>,
    key_file: Option<Spanned<PathBuf>>,
    workload_api: Option<Spanned<String>>,
}

impl Reader<'_> {
    pub(super) fn redis(&self, raw: RawRedis) -> Result<RedisSettings, ConfigError> {
        let (addresses, topology) = self.redis_address(&raw)?;
        let prefix = match raw.prefix {
            None => REDIS_PREFIX_DEFAULT.to_owned(),
            Some(prefix) => match name_problem("prefix", &prefix.value) {
                Some(problem) => return Err(ConfigError::at(self.path, &prefix, problem)),
                None => prefix.value,
            },
        };
        Ok(RedisSettings {
            addresses,
            topology,
            login: Login {
                user: raw.user,
                password_file: raw.password_file.map(|file| self.beside(&file)),
            },
            tls: raw.tls.map(|tls| self.redis_tls(tls)).transpose()?,
            prefix,
            max_staleness: self.duration(
                "max_staleness",
                raw.max_staleness.as_ref(),
                MAX_STALENESS_DEFAULT,
                MAX_STALENESS_BOUNDS,
            )?,
        })
    }

    fn redis_address(&self, raw: &RawRedis) -> Result<(Vec<(String, u16)>, Topology), ConfigError> {
        let bad = |message: String| ConfigError::at(self.path, &raw.address, message);
        let address = |text: &str| {
            let (host, port) = text.trim().rsplit_once(':')?;
            let host = host.trim_start_matches('[').trim_end_matches(']');
            (!host.is_empty()).then_some((host.to_owned(), port.parse().ok()?))
        };
        let addresses: Option<Vec<_>> = raw.address.value.split(',').map(address).collect();
        let addresses = addresses.ok_or_else(|| {
            bad("'address' must be a host and a port such as redis:6379".to_owned())
        })?;
        if addresses.len() > REDIS_ADDRESSES_MAX {
            return Err(bad(format!("'address' has more than {REDIS_ADDRESSES_MAX} of them")));
        }
        let topology = self.redis_topology(raw)?;
        if topology == Topology::Single && addresses.len() > 1 {
            let message = "several addresses need 'sentinel_primary' or 'cluster: true'";
            return Err(bad(message.to_owned()));
        }
        Ok((addresses, topology))
    }

    fn redis_topology(&self, raw: &RawRedis) -> Result<Topology, ConfigError> {
        let is_cluster = raw.cluster.as_ref().filter(|cluster| cluster.value);
        let (user, file) = (raw.sentinel_user.as_ref(), raw.sentinel_password_file.as_ref());
        let Some(primary) = &raw.sentinel_primary else {
            let message = "the login of sentinels needs 'sentinel_primary'";
            let user = user.map(|at| ConfigError::at(self.path, at, message));
            let file = file.map(|at| ConfigError::at(self.path, at, message));
            return match user.or(file) {
                Some(error) => Err(error),
                None if is_cluster.is_some() => Ok(Topology::Cluster),
                None => Ok(Topology::Single),
            };
        };
        if let Some(cluster) = is_cluster {
            let message = "'cluster' and 'sentinel_primary' exclude each other";
            return Err(ConfigError::at(self.path, cluster, message));
        }
        if primary.value.is_empty() {
            return Err(ConfigError::at(self.path, primary, "'sentinel_primary' is empty"));
        }
        let login = Login {
            user: user.map(|user| user.value.clone()),
            password_file: file.map(|file| self.beside(&file.value)),
        };
        Ok(Topology::Sentinel { primary: primary.value.clone(), login })
    }

    fn redis_tls(&self, raw: RawRedisTls) -> Result<RedisTls, ConfigError> {
        let client = match (raw.certificate_file, raw.key_file) {
            (Some(certificate), Some(key)) => {
                Some((self.beside(&certificate), self.beside(&key.value)))
            }
            (None, None) => None,
            (None, Some(key)) => {
                return Err(ConfigError::at(
                    self.path,
                    &key,
                    "'key_file' needs 'certificate_file'",
                ));
            }
            (Some(_), None) => {
                return Err(ConfigError::file(self.path, "'certificate_file' needs 'key_file'"));
            }
        };
        let ca = raw.ca_file.map(|file| self.beside(&file));
        let Some(address) = raw.workload_api else {
            return Ok(RedisTls { ca, client, sent: None });
        };
        let bad = |message| ConfigError::at(self.path, &address, message);
        if client.is_some() {
            return Err(bad("'workload_api' is in place of a certificate and its key"));
        }
        let settings = ClientSettings::by_workload_api(&address.value).ok_or_else(|| {
            bad("'workload_api' must be a socket as unix:///run/spire/agent.sock")
        })?;
        let authorities = ca.clone().or(settings.authorities);
        let sent = Sent::new(ClientSettings { authorities, ..settings });
        Ok(RedisTls { ca, client, sent: Some(sent) })
    }
}
