//! Redis servers in company: certificates, sentinels, a cluster. All on loopback; each ends with
//! its value.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::support::{RedisServer, wait_for};

/// A free port. Below the range that outgoing connections use, and with room for a cluster bus
/// 10,000 above.
pub fn free_port() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Processes that run side by side begin at different places.
    let offset = (std::process::id() as u16).wrapping_mul(61) % 9000;
    for _ in 0..9000 {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 11_000 + (offset.wrapping_add(step)) % 9000;
        let free = |port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        if free(port) && free(port + 10_000) {
            return port;
        }
    }
    panic!("no free port");
}

/// Certificates of one authority, as PEM files.
pub struct Certificates {
    dir: TempDir,
}

impl Certificates {
    /// An authority, a server at `name`, and a client.
    pub fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let ca_key = KeyPair::generate().expect("a key");
        let mut ca = CertificateParams::new(Vec::new()).expect("valid");
        // A name of its own: certificates whose names are those of their issuer sign themselves.
        ca.distinguished_name.push(DnType::CommonName, "authority");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_certificate = ca.self_signed(&ca_key).expect("signed");
        let issuer = Issuer::new(ca, ca_key);
        let write = |file: &str, text: &str| {
            std::fs::write(dir.path().join(file), text).expect("written");
        };
        write("ca.pem", &ca_certificate.pem());
        for (file, name) in [("server", name), ("client", "ratelimit")] {
            let key = KeyPair::generate().expect("a key");
            let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
            let certificate = params.signed_by(&key, &issuer).expect("signed");
            write(&format!("{file}.pem"), &certificate.pem());
            write(&format!("{file}.key"), &key.serialize_pem());
        }
        Self { dir }
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    pub fn text(&self, file: &str) -> String {
        self.path(file).display().to_string()
    }

    /// What makes a server speak TLS on `port`; it asks clients for certificates when told to.
    pub fn arguments(&self, port: u16, clients: bool) -> Vec<String> {
        let clients = if clients { "yes" } else { "no" };
        let (port, ca) = (port.to_string(), self.text("ca.pem"));
        let (certificate, key) = (self.text("server.pem"), self.text("server.key"));
        [
            ["--bind", "127.0.0.1"],
            ["--tls-port", &port],
            ["--tls-ca-cert-file", &ca],
            ["--tls-cert-file", &certificate],
            ["--tls-key-file", &key],
            ["--tls-auth-clients", clients],
        ]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect()
    }

    /// The same, and between servers too.
    pub fn between_servers(&self, port: u16) -> Vec<String> {
        let mut arguments = self.arguments(port, false);
        arguments.extend(["--tls-replication", "yes"].map(str::to_owned));
        arguments
    }

    /// What makes `redis-cli` speak TLS.
    pub fn of_redis_cli(&self) -> Vec<String> {
        vec!["--tls".to_owned(), "--cacert".to_owned(), self.text("ca.pem")]
    }
}

/// A process that is killed with its value.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Servers on ports.
pub async fn server_at(port: u16, more: &[&str]) -> RedisServer {
    let port = port.to_string();
    RedisServer::start_with(&[&["--bind", "127.0.0.1", "--port", &port], more].concat()).await
}

/// Servers on ports, of many; encrypted with certificates.
async fn member_at(port: u16, more: &[&str], certificates: Option<&Certificates>) -> RedisServer {
    let Some(certificates) = certificates else { return server_at(port, more).await };
    let tls = certificates.between_servers(port);
    let tls: Vec<&str> = tls.iter().map(String::as_str).collect();
    RedisServer::start_with(&[&tls[..], &["--port", "0"], more].concat()).await
}

/// Does not wait for more replicas before it sends its data.
const SYNC_AT_ONCE: [&str; 2] = ["--repl-diskless-sync-delay", "0"];

/// A master, a replica, and three sentinels that watch over them.
pub struct Watched {
    pub master: RedisServer,
    pub replica: RedisServer,
    pub sentinels: Vec<u16>,
    _processes: Vec<Process>,
    _dir: TempDir,
}

impl Watched {
    /// With these passwords, for the servers and for the sentinels.
    pub async fn start(password: &str, sentinel_password: &str) -> Self {
        Self::start_with(password, sentinel_password, None).await
    }

    /// And everything encrypted, between them too.
    pub async fn start_with(
        password: &str,
        sentinel_password: &str,
        certificates: Option<&Certificates>,
    ) -> Self {
        let (master_port, replica_port) = (free_port(), free_port());
        let auth = ["--requirepass", password, "--masterauth", password];
        let auth = [&auth[..], &SYNC_AT_ONCE].concat();
        let master = member_at(master_port, &auth, certificates).await;
        let of = master_port.to_string();
        let replica_of = [&auth[..], &["--replicaof", "127.0.0.1", &of]].concat();
        let replica = member_at(replica_port, &replica_of, certificates).await;
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut sentinels = Vec::new();
        let mut processes = Vec::new();
        for _ in 0..3 {
            let port = free_port();
            let listen = match certificates {
                None => format!("port {port}\n"),
                Some(certificates) => certificates
                    .between_servers(port)
                    .chunks(2)
                    .fold("port 0\n".to_owned(), |text, pair| {
                        text + pair[0].trim_start_matches('-') + " " + &pair[1] + "\n"
                    }),
            };
            let text = format!(
                "{listen}bind 127.0.0.1\nrequirepass {sentinel_password}\n\
                 sentinel sentinel-pass {sentinel_password}\n\
                 sentinel monitor mymaster 127.0.0.1 {master_port} 2\n\
                 sentinel auth-pass mymaster {password}\n\
                 sentinel down-after-milliseconds mymaster 500\n\
                 sentinel failover-timeout mymaster 3000\n"
            );
            processes.push(sentinel(dir.path(), port, &text));
            sentinels.push(port);
        }
        let watched = Self { master, replica, sentinels, _processes: processes, _dir: dir };
        watched.know_each_other(sentinel_password, certificates).await;
        watched
    }

    /// Waits until a failover can work: every sentinel knows the replica and the other sentinels.
    async fn know_each_other(&self, password: &str, certificates: Option<&Certificates>) {
        for port in &self.sentinels {
            wait_for("sentinels know each other", async || {
                let mut about = Command::new("redis-cli");
                about.args(["--no-auth-warning", "-a", password, "-p", &port.to_string()]);
                about.args(certificates.map(Certificates::of_redis_cli).unwrap_or_default());
                let about = about.args(["sentinel", "master", "mymaster"]).output();
                let about = about.expect("redis-cli is installed").stdout;
                let about = String::from_utf8_lossy(&about).into_owned();
                let lines: Vec<&str> = about.lines().collect();
                let number = |name: &str| {
                    let at = lines.iter().position(|line| *line == name)?;
                    lines.get(at + 1)?.parse::<u32>().ok()
                };
                number("num-slaves") == Some(1) && number("num-other-sentinels") == Some(2)
            })
            .await;
        }
        wait_for("the replica follows", async || {
            self.replica.asked(&["info", "replication"]).contains("master_link_status:up")
        })
        .await;
    }

    pub fn url(&self) -> String {
        self.sentinels.iter().fold("mymaster".to_owned(), |mut url, port| {
            write!(url, ",127.0.0.1:{port}").expect("writing to memory does not fail");
            url
        })
    }
}

fn sentinel(dir: &Path, port: u16, text: &str) -> Process {
    let file = dir.join(format!("{port}.conf"));
    std::fs::write(&file, text).expect("written");
    let child = Command::new("redis-server")
        .arg(&file)
        .arg("--sentinel")
        .current_dir(dir)
        .stdout(Stdio::null())
        .spawn();
    Process(child.expect("redis-server is installed (apt install redis-server)"))
}

/// A cluster of three primaries, each with a replica.
pub struct Cluster {
    pub nodes: Vec<(u16, RedisServer)>,
}

impl Cluster {
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    /// With everything encrypted, between them too.
    pub async fn start_with(certificates: Option<&Certificates>) -> Self {
        let mut nodes = Vec::new();
        let clustered = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];
        let encrypted: &[&str] = certificates.map_or(&[], |_| &["--tls-cluster", "yes"]);
        let arguments = [&clustered[..], &SYNC_AT_ONCE, encrypted].concat();
        for _ in 0..6 {
            let port = free_port();
            nodes.push((port, member_at(port, &arguments, certificates).await));
        }
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create"]);
        create.args(nodes.iter().map(|(port, _)| format!("127.0.0.1:{port}")));
        create.args(["--cluster-replicas", "1", "--cluster-yes"]);
        create.args(certificates.map(Certificates::of_redis_cli).unwrap_or_default());
        let created = create.output().expect("redis-cli is installed");
        assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stdout));
        let cluster = Self { nodes };
        for (_, node) in &cluster.nodes {
            wait_for("every node sees the cluster", async || {
                let nodes = node.asked(&["cluster", "nodes"]);
                let replicas = nodes.lines().filter(|line| line.contains("slave")).count();
                let about = node.asked(&["info", "replication"]);
                // A replica that never had the data takes over from nobody.
                replicas == 3
                    && node.asked(&["cluster", "info"]).contains("cluster_state:ok")
                    && (about.contains("role:master") || about.contains("master_link_status:up"))
            })
            .await;
        }
        cluster
    }

    pub fn url(&self) -> String {
        let at = |(port, _): &(u16, RedisServer)| format!("127.0.0.1:{port}");
        self.nodes.iter().map(at).collect::<Vec<_>>().join(",")
    }

    /// The node that has the slot of `key`.
    pub fn owner(&mut self, key: &str) -> &mut RedisServer {
        let slot: u16 =
            self.nodes[0].1.asked(&["cluster", "keyslot", key]).trim().parse().expect("a slot");
        let slots = self.nodes[0].1.asked(&["cluster", "nodes"]);
        let has = |range: &str| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            matches!((first.parse::<u16>(), last.parse::<u16>()),
                (Ok(first), Ok(last)) if (first..=last).contains(&slot))
        };
        let line = slots.lines().find(|line| line.split(' ').skip(8).any(has)).expect("an owner");
        let address = line.split(' ').nth(1).expect("an address");
        let port = address.split('@').next().and_then(|at| at.rsplit(':').next()).expect("a port");
        let port: u16 = port.parse().expect("a port");
        let node = self.nodes.iter_mut().find(|(known, _)| *known == port);
        &mut node.expect("one of ours").1
    }
}
