//! `make run` and `make run-full`: the edge for a person at a terminal.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::demo::{self, ROSTER};
use crate::edge::encryption::ENVOY;
use crate::edge::{
    DATABASE, Edge, Encryption, Options, Part, Parts, Patience, Proxy, Service, Supervisor,
};
use crate::ports::{Held, hold};

const TENANT: &str = "demo";
const LOAD_TENANT: &str = "load";
const DEFAULT_PORT: u16 = 8080;

/// How often it is looked whether a part has ended.
const POLL_EVERY: Duration = Duration::from_millis(100);

/// Starts the edge, says what to try, and stops it on SIGINT or SIGTERM.
///
/// # Errors
/// When something does not come up, or ends by itself.
pub async fn run(dir: PathBuf, parts: Parts, replicas: usize, port: Option<u16>) -> Result<()> {
    let began = Instant::now();
    let dir = std::path::absolute(dir)?;
    let lock = lock(&dir.with_extension("lock"))?;
    let signalled = chassis::drain::signalled();
    let port = match (port, hold(port.unwrap_or(DEFAULT_PORT))) {
        (Some(port), None) => {
            bail!("port {port} is in use: choose another with EDGE_PORT=… or stop its owner")
        }
        (_, held) => held.map(Arc::new),
    };
    if port.is_none() {
        say(&format!(
            "  port {DEFAULT_PORT} is in use, so a free one is taken; EDGE_PORT=… chooses one"
        ))?;
    }
    let up = start(dir, parts, replicas, port);
    let (mut edge, keys) = tokio::select! {
        up = up => up?,
        // What was started so far is killed as its owner is dropped.
        name = signalled => {
            say(&format!("{}: stopped before everything was ready", name?))?;
            return Ok(());
        }
    };
    let env = edge.options.dir.join("env");
    write_new(&env, &assignments(&edge, &keys))?;
    say(&format!("ready in {:.1} s\n", began.elapsed().as_secs_f64()))?;
    say(&what_to_try(&edge, &keys.demo))?;
    let ended = until_signal(&mut edge, &env, &keys).await;
    std::fs::remove_file(&env)?;
    say("stopping")?;
    edge.stop().await;
    say("stopped")?;
    drop(lock);
    ended
}

fn lock(path: &Path) -> Result<File> {
    let context = || format!("cannot write {}", path.display());
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(context)?;
    }
    let lock = File::create(path).with_context(context)?;
    if lock.try_lock().is_err() {
        bail!("another edge of this directory is running: stop it first, or choose a --dir");
    }
    Ok(lock)
}

/// The keys that are issued at the start.
struct Keys {
    /// Of the tenant with the small quota, to meet it by hand.
    demo: String,
    /// Of the tenant whose quota no load of one machine reaches.
    load: String,
    /// Of those who ask in `make demo`, in the order of its roster.
    roster: Vec<String>,
}

async fn start(
    dir: PathBuf,
    parts: Parts,
    replicas: usize,
    port: Option<Arc<Held>>,
) -> Result<(Edge, Keys)> {
    let options = Options {
        dir,
        parts,
        replicas,
        port,
        quotas: include_str!("../../ratelimit-svc/examples/quotas/edge.yaml").to_owned(),
        otlp: std::env::var("OTLP").ok().map(|otlp| otlp.parse()).transpose().context("OTLP")?,
        patience: Patience::DESK,
        proxy: Proxy::default(),
        encryption: encryption(parts)?,
        keys_in_redis: keys_in_redis(parts)?,
    };
    // Nothing can be done for a person whose terminal is gone.
    let edge = Edge::start(options, |step| drop(say(&format!("  {step}")))).await?;
    let demo = edge.issue_key(TENANT, "ingest")?;
    let load = edge.issue_live_key(LOAD_TENANT, "ingest").await?;
    let roster = ROSTER.iter().map(|(tenant, class, _)| edge.issue_key(tenant, class));
    let roster: Vec<String> = roster.collect::<Result<_>>()?;
    for key in roster.iter().chain([&demo]) {
        edge.wait_for_key(key).await?;
    }
    say(&format!("  demo key         issued for tenant {TENANT}, 3 writes a minute"))?;
    if parts == Parts::Embedded && replicas > 1 {
        say("  counters in memory are each replica's own: a quota is met once for each of them")?;
    }
    Ok((edge, Keys { demo, load, roster }))
}

/// On real parts every hop is encrypted unless `TLS=off`; embedded parts are a desk.
fn encryption(parts: Parts) -> Result<Encryption> {
    let wanted = std::env::var("TLS").unwrap_or_default();
    let encryption = match (parts, wanted.as_str()) {
        (Parts::Real, "" | "on") => Encryption::On,
        (Parts::Real, "off") | (Parts::Embedded, "" | "off") => Encryption::Off,
        (Parts::Embedded, "on") => Encryption::On,
        _ => bail!("TLS={wanted} is neither on nor off"),
    };
    if encryption == Encryption::Off {
        say("  in clear text, on loopback alone; make run-full encrypts every hop")?;
    }
    Ok(encryption)
}

/// Keys are in a file unless `KEYS=redis`.
fn keys_in_redis(parts: Parts) -> Result<bool> {
    match (parts, std::env::var("KEYS").unwrap_or_default().as_str()) {
        (_, "" | "file") => Ok(false),
        (Parts::Real, "redis") => Ok(true),
        (Parts::Embedded, "redis") => bail!("KEYS=redis needs a Redis: make run-full KEYS=redis"),
        (_, wanted) => bail!("KEYS={wanted} is neither file nor redis"),
    }
}

/// Until then, what ends is started again.
async fn until_signal(edge: &mut Edge, env: &Path, keys: &Keys) -> Result<()> {
    let mut supervisor = Supervisor::default();
    let signalled = chassis::drain::signalled();
    tokio::pin!(signalled);
    loop {
        tokio::select! {
            name = &mut signalled => {
                say(&format!("\n{}", name?))?;
                return Ok(());
            }
            () = tokio::time::sleep(POLL_EVERY) => {
                // Nothing can be done for a person whose terminal is gone.
                if supervisor.poll(edge, |line| drop(say(line))) {
                    write_new(env, &assignments(edge, keys))?;
                }
            }
        }
    }
}

/// The shell assignments of `target/run/env`: the addresses of the first replicas, the process ids of
/// all.
fn assignments(edge: &Edge, keys: &Keys) -> String {
    let (ratelimit, authz) = (&edge.ratelimit[0], &edge.authz[0]);
    let (gateway, writer) = (&edge.gateway[0], &edge.writer[0]);
    let mut lines = vec![
        format!("TIDEGATE_EDGE=http://{}", edge.at.edge),
        format!("TIDEGATE_KEY={}", keys.demo),
        format!("TIDEGATE_TENANT={TENANT}"),
        format!("TIDEGATE_LOAD_KEY={}", keys.load),
        format!("{}='{}'", demo::KEYS, keys.roster.join(" ")),
        format!("{}={}", demo::COUNTERS, edge.counters()),
        format!("RLS_GRPC={}", ratelimit.listen),
        format!("RLS_HTTP=http://{}", ratelimit.http),
        format!("AUTHZ_GRPC={}", authz.listen),
        format!("GATEWAY_HTTP={}://{}", edge.scheme_of_services(), gateway.listen),
        format!("ENVOY_ADMIN=http://{}", edge.at.envoy_admin),
        format!("ENVOY_STATUS=http://{}", edge.at.envoy_status),
        format!("RLS_ADMIN=http://{}", ratelimit.admin),
        format!("AUTHZ_ADMIN=http://{}", authz.admin),
        format!("GATEWAY_ADMIN=http://{}", gateway.admin),
        format!("WRITER_ADMIN=http://{}", writer.admin),
    ];
    let pid = |part| edge.child(part).map(|child| child.pid().to_string());
    for (name, service) in [
        ("RLS_PIDS", Service::Ratelimit),
        ("AUTHZ_PIDS", Service::Authz),
        ("GATEWAY_PIDS", Service::Gateway),
        ("WRITER_PIDS", Service::Writer),
    ] {
        let numbers = 0..edge.replicas(service).len();
        let pids: Vec<String> =
            numbers.filter_map(|number| pid(Part::Replica(service, number))).collect();
        lines.push(format!("{name}='{}'", pids.join(" ")));
    }
    for (name, part) in [
        ("ENVOY_PID", Part::Envoy),
        ("REDIS_PID", Part::Redis),
        ("KAFKA_PID", Part::Kafka),
        ("INFLUXDB_PID", Part::InfluxDb),
    ] {
        lines.extend(pid(part).map(|pid| format!("{name}={pid}")));
    }
    if let Some(pki) = &edge.pki {
        lines.push(format!("TIDEGATE_CA={}", pki.authority().display()));
        lines.push(format!("TIDEGATE_EDGE_TLS=https://{}", edge.at.edge_tls));
        // Envoy's own, which the services take.
        lines.push(format!("TIDEGATE_CERT={}", pki.certificate(ENVOY).display()));
        lines.push(format!("TIDEGATE_CERT_KEY={}", pki.key(ENVOY).display()));
    }
    match &edge.influxdb {
        Some(influxdb) => {
            lines.push(format!("TIDEGATE_INFLUXDB={}", influxdb.url()));
            lines.push(format!("TIDEGATE_DATABASE={DATABASE}"));
        }
        None => lines.push(format!("TIDEGATE_POINTS={}", edge.points_file().display())),
    }
    lines.join("\n") + "\n"
}

fn what_to_try(edge: &Edge, key: &str) -> String {
    let url = edge.url("/api/v2/write?bucket=demo");
    let trust = match edge.authority() {
        Some(authority) => format!("--cacert {} ", authority.display()),
        None => String::new(),
    };
    let read = match &edge.influxdb {
        Some(influxdb) => format!(
            "curl -sG {trust}{}/query --data-urlencode db={DATABASE} \\\n       \
             --data-urlencode 'q=SELECT * FROM weather'",
            influxdb.url()
        ),
        None => format!("cat {}", edge.points_file().display()),
    };
    format!(
        "A write, answered 204 once the journal has it:\n\n  \
         curl -i '{url}' -H 'Authorization: Token {key}' \\\n       \
         --data-binary 'weather,city=Oslo temperature=4.5'\n\n\
         The quota is 3 a minute, so the fourth is refused with 429, Retry-After and x-ratelimit-*:\n\n  \
         for i in 1 2 3 4; do curl -si '{url}' -H 'Authorization: Token {key}' \\\n       \
         --data-binary \"weather,city=Rome temperature=1$i\" | grep -iE '^(HTTP|retry-after|x-ratelimit)'; done\n\n\
         A bad key, refused with 401:\n\n  \
         curl -i '{url}' -H 'Authorization: Token wrong' --data-binary 'weather temperature=1'\n\n\
         What has arrived:\n\n  \
         {read}\n\n\
         What the tenant sees of its quota, in a browser with the key as password:\n\n  \
         curl -s '{quota}' -H 'Authorization: Bearer {key}'\n\n\
         What is decided, live, in a browser: http://{admin}/console\n\
         make demo, in another terminal, sends it a little load of three tenants and four classes.\n\n\
         Shell variables for scripts: {dir}/env. Logs and configuration: {dir}.\n\
         Quotas reload when {dir}/quotas/edge.yaml changes. Ctrl-C stops everything.\n",
        admin = edge.ratelimit[0].admin,
        quota = edge.url("/api/v1/quota"),
        dir = edge.options.dir.display()
    )
}

fn write_new(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, text)?;
    std::fs::rename(&new, path).context("cannot write target/run/env")
}

fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}
