//! The Redis variables: where the counters are and how to get in.

use std::time::Duration;

use chassis::config::DurationText;
use chassis::process::UsageError;

use super::{StoreSettings, Vars};
use crate::store::redis::RedisSettings;
use crate::store::redis::connection::address::{HostPort, Login};
use crate::store::redis::connection::tls::TlsSettings;
use crate::store::redis::topology::link::{LinkSettings, Topology};

/// The variables of one Redis.
struct Names {
    socket_type: &'static str,
    kind: &'static str,
    url: &'static str,
    auth: &'static str,
    sentinel_auth: &'static str,
    tls: &'static str,
}

const MAIN: Names = Names {
    socket_type: "REDIS_SOCKET_TYPE",
    kind: "REDIS_TYPE",
    url: "REDIS_URL",
    auth: "REDIS_AUTH",
    sentinel_auth: "REDIS_SENTINEL_AUTH",
    tls: "REDIS_TLS",
};

const PER_SECOND: Names = Names {
    socket_type: "REDIS_PERSECOND_SOCKET_TYPE",
    kind: "REDIS_PERSECOND_TYPE",
    url: "REDIS_PERSECOND_URL",
    auth: "REDIS_PERSECOND_AUTH",
    sentinel_auth: "REDIS_PERSECOND_SENTINEL_AUTH",
    tls: "REDIS_PERSECOND_TLS",
};

impl Vars<'_> {
    /// Where counters live.
    pub(super) fn backend(&self) -> Result<StoreSettings, UsageError> {
        match self.text("BACKEND_TYPE").as_str() {
            "memory" => return Ok(StoreSettings::Memory),
            "redis" => {}
            "memcache" => {
                return Err(self.bad("BACKEND_TYPE", "memcache is not supported, use redis"));
            }
            _ => return Err(self.bad("BACKEND_TYPE", "must be redis or memory")),
        }
        let call_budget = self.parse::<DurationText>("REDIS_CALL_BUDGET")?.0;
        if call_budget.is_zero() || call_budget > Duration::from_secs(1) {
            return Err(self.bad("REDIS_CALL_BUDGET", "must be above 0 and at most 1s"));
        }
        let per_second = match self.flag("REDIS_PERSECOND")? {
            true => Some(self.link(&PER_SECOND)?),
            false => None,
        };
        Ok(StoreSettings::Redis {
            link: self.link(&MAIN)?,
            per_second,
            settings: RedisSettings {
                call_budget,
                key_prefix: self.text("CACHE_KEY_PREFIX"),
                expiration_jitter_max_seconds: self.number("EXPIRATION_JITTER_MAX_SECONDS")?,
                local_cache_bytes: self.number("LOCAL_CACHE_SIZE_IN_BYTES")?,
                threads: self.grpc_workers()?.get(),
            },
        })
    }

    fn link(&self, names: &Names) -> Result<LinkSettings, UsageError> {
        let text = self.text(names.url);
        // A password in the address would end up in logs: that is what the other variable is for.
        if text.contains('@') {
            let problem =
                format!("{} must be HOST:PORT; put credentials into {}", names.url, names.auth);
            return Err(UsageError(problem));
        }
        let topology = self.topology(names, &text)?;
        let encrypted = self.flag(names.tls)? || text.starts_with("rediss://");
        if encrypted && matches!(topology, Topology::Unix(_)) {
            return Err(self.bad(names.tls, "a unix socket has no TLS"));
        }
        Ok(LinkSettings {
            topology,
            login: login(&self.text(names.auth)),
            sentinel_login: login(&self.text(names.sentinel_auth)),
            tls: if encrypted { Some(self.redis_tls()?) } else { None },
        })
    }

    fn topology(&self, names: &Names, url: &str) -> Result<Topology, UsageError> {
        let addresses = |list: &str, what: &str| -> Result<Vec<HostPort>, UsageError> {
            let addresses: Option<Vec<_>> =
                list.split(',').map(|one| address(one.trim())).collect();
            addresses.ok_or_else(|| self.bad(names.url, what))
        };
        match self.text(names.kind).to_uppercase().as_str() {
            "SINGLE" => {}
            "SENTINEL" => {
                let what = "must be MASTER,HOST:PORT,HOST:PORT with the addresses of sentinels";
                let (master, list) =
                    url.split_once(',').ok_or_else(|| self.bad(names.url, what))?;
                if master.is_empty() || master.contains(['/', ':']) {
                    return Err(self.bad(names.url, what));
                }
                let sentinels = addresses(list, what)?;
                return Ok(Topology::Sentinel { master: master.to_owned(), sentinels });
            }
            "CLUSTER" => {
                return Ok(Topology::Cluster(addresses(url, "must be HOST:PORT,HOST:PORT")?));
            }
            _ => return Err(self.bad(names.kind, "must be SINGLE, SENTINEL or CLUSTER")),
        }
        match self.text(names.socket_type).as_str() {
            "unix" => Ok(Topology::Unix(url.into())),
            "tcp" => {
                let problem = format!("must be HOST:PORT when {} is tcp", names.socket_type);
                address(url).map(Topology::Tcp).ok_or_else(|| self.bad(names.url, problem))
            }
            _ => Err(self.bad(names.socket_type, "must be tcp or unix")),
        }
    }

    fn redis_tls(&self) -> Result<TlsSettings, UsageError> {
        let file = |name| Some(self.text(name)).filter(|path| !path.is_empty()).map(Into::into);
        let client = match (file("REDIS_TLS_CLIENT_CERT"), file("REDIS_TLS_CLIENT_KEY")) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate, key)),
            _ => {
                return Err(UsageError(
                    "REDIS_TLS_CLIENT_CERT and REDIS_TLS_CLIENT_KEY go together".to_owned(),
                ));
            }
        };
        let workload_api = self.workload_api("REDIS_TLS_WORKLOAD_API", client.is_some())?;
        Ok(TlsSettings {
            workload_api,
            ca: file("REDIS_TLS_CACERT"),
            client,
            skip_hostname_verification: self.flag("REDIS_TLS_SKIP_HOSTNAME_VERIFICATION")?,
        })
    }
}

/// `HOST:PORT`, also as a URL without anything more.
fn address(text: &str) -> Option<HostPort> {
    let text = text.strip_prefix("redis://").or(text.strip_prefix("rediss://")).unwrap_or(text);
    let (host, port) = text.trim_end_matches('/').rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let plain = !host.is_empty() && !host.contains(['@', ',', '/']);
    Some((host.to_owned(), port.parse().ok().filter(|_| plain)?))
}

/// `PASSWORD` or `USER:PASSWORD`.
fn login(text: &str) -> Login {
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    match text.split_once(':') {
        Some((user, password)) => Login { user: some(user), password: some(password) },
        None => Login { user: None, password: some(text) },
    }
}
