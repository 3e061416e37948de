//! How to reach the Redis that holds keys, and what its keys are called.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chassis::tls::Material;
use chassis::tls::client::ClientSettings;

/// How to reach Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisSettings {
    /// Hosts and ports: one Redis, or the sentinels or nodes that know which one it is.
    pub addresses: Vec<(String, u16)>,
    /// Which of the addresses has the keys.
    pub topology: Topology,
    /// Who we are there.
    pub login: Login,
    /// TLS, or clear text.
    pub tls: Option<RedisTls>,
    /// What all keys in Redis begin with.
    pub prefix: String,
    /// For how long records are believed without hearing of Redis.
    pub max_staleness: Duration,
}

/// Who we are. Without a password nobody logs in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Login {
    /// The ACL user; the default one where none is named.
    pub user: Option<String>,
    /// The file that holds the password, read anew for every connection.
    pub password_file: Option<PathBuf>,
}

/// How the Redis that has the keys is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topology {
    /// It is the one at the address.
    Single,
    /// Sentinels say which it is.
    Sentinel {
        /// What they call it.
        primary: String,
        /// Who we are to them.
        login: Login,
    },
    /// Nodes of a cluster say which has the slot of the keys.
    Cluster,
}

impl RedisSettings {
    /// The addresses, for people.
    pub fn shown(&self) -> String {
        let addresses = self.addresses.iter().map(|(host, port)| format!("{host}:{port}"));
        addresses.collect::<Vec<_>>().join(",")
    }
}

/// Certificates, as PEM files that are read anew for every connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedisTls {
    /// Who signs for the server; the roots of the system when absent.
    pub ca: Option<PathBuf>,
    /// Our certificate with its chain, and its key.
    pub client: Option<(PathBuf, PathBuf)>,
    /// What a SPIFFE Workload API sends in their place, where one is named.
    pub sent: Option<Sent>,
}

/// What a Workload API sends for connections to Redis, once it is asked.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The client's settings.
    pub settings: ClientSettings,
    material: Arc<OnceLock<Material>>,
}

impl Sent {
    /// Asks nobody yet.
    pub fn new(settings: ClientSettings) -> Self {
        Self { settings, material: Arc::default() }
    }

    /// What came last; the Workload API is asked from the first call on.
    pub fn material(&self) -> &Material {
        self.material.get_or_init(|| self.settings.material())
    }
}

impl PartialEq for Sent {
    fn eq(&self, other: &Self) -> bool {
        self.settings == other.settings
    }
}

impl Eq for Sent {}

/// What is where in Redis. All names share a hash tag, so that one script may touch them all.
#[derive(Clone, Debug)]
pub struct Names {
    /// A hash: `epoch`, `generation`, `count`, `origin`.
    pub state: String,
    /// A hash of records in JSON by key id.
    pub records: String,
    /// A hash of `active` or `suspended` by tenant.
    pub tenants: String,
    /// The stream of changes; an entry's id is its generation.
    pub changes: String,
    /// The stream of audit events.
    pub audit: String,
    /// A hash of what each replica has acknowledged.
    pub replicas: String,
}

impl Names {
    /// Those that begin so.
    pub fn new(prefix: &str) -> Self {
        let name = |what: &str| format!("{prefix}:{{keys}}:{what}");
        Self {
            state: name("state"),
            records: name("records"),
            tenants: name("tenants"),
            changes: name("changes"),
            audit: name("audit"),
            replicas: name("replicas"),
        }
    }
}
