//! `make run` and `make run-full`: the edge for a person at a terminal.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::edge::{DATABASE, Edge, Options, Parts, Patience, Proxy};
use crate::ports::{Held, hold};

const TENANT: &str = "demo";
const DEFAULT_PORT: u16 = 8080;

/// Starts the edge, says what to try, and stops it on SIGINT or SIGTERM.
///
/// # Errors
/// When something does not come up, or ends by itself.
pub async fn run(dir: PathBuf, parts: Parts, port: Option<u16>) -> Result<()> {
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
    let up = start(dir, parts, port);
    let (mut edge, key) = tokio::select! {
        up = up => up?,
        // What was started so far is killed as its owner is dropped.
        name = signalled => {
            say(&format!("{}: stopped before everything was ready", name?))?;
            return Ok(());
        }
    };
    let env = edge.options.dir.join("env");
    write_new(&env, &assignments(&edge, &key))?;
    say(&format!("ready in {:.1} s\n", began.elapsed().as_secs_f64()))?;
    say(&what_to_try(&edge, &key))?;
    let ended = until_signal(&mut edge).await;
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

async fn start(dir: PathBuf, parts: Parts, port: Option<Arc<Held>>) -> Result<(Edge, String)> {
    let options = Options {
        dir,
        parts,
        port,
        quotas: include_str!("../../ratelimit-svc/examples/edge.yaml").to_owned(),
        otlp: std::env::var("OTLP").ok().map(|otlp| otlp.parse()).transpose().context("OTLP")?,
        patience: Patience::DESK,
        proxy: Proxy::default(),
    };
    // Nothing can be done for a person whose terminal is gone.
    let edge = Edge::start(options, |step| drop(say(&format!("  {step}")))).await?;
    let key = edge.issue_live_key(TENANT, "ingest").await?;
    say(&format!("  demo key         issued for tenant {TENANT}, 3 writes a minute"))?;
    Ok((edge, key))
}

async fn until_signal(edge: &mut Edge) -> Result<()> {
    let signalled = chassis::drain::signalled();
    tokio::pin!(signalled);
    loop {
        tokio::select! {
            name = &mut signalled => {
                say(&format!("\n{}", name?))?;
                return Ok(());
            }
            () = tokio::time::sleep(Duration::from_millis(500)) => edge.check_alive()?,
        }
    }
}

/// The shell assignments of `target/run/env`.
fn assignments(edge: &Edge, key: &str) -> String {
    let at = &edge.at;
    let mut lines = vec![
        format!("TIDEGATE_EDGE=http://{}", at.edge),
        format!("TIDEGATE_KEY={key}"),
        format!("TIDEGATE_TENANT={TENANT}"),
        format!("RLS_GRPC={}", at.ratelimit_grpc),
        format!("RLS_HTTP=http://{}", at.ratelimit_http),
        format!("AUTHZ_GRPC={}", at.authz_grpc),
        format!("GATEWAY_HTTP=http://{}", at.gateway),
        format!("ENVOY_ADMIN=http://{}", at.envoy_admin),
        format!("RLS_ADMIN=http://{}", at.ratelimit_admin),
        format!("AUTHZ_ADMIN=http://{}", at.authz_admin),
        format!("GATEWAY_ADMIN=http://{}", at.gateway_admin),
        format!("WRITER_ADMIN=http://{}", at.writer_admin),
    ];
    match &edge.influxdb {
        Some(influxdb) => {
            lines.push(format!("TIDEGATE_INFLUXDB=http://{}", influxdb.address));
            lines.push(format!("TIDEGATE_DATABASE={DATABASE}"));
        }
        None => lines.push(format!("TIDEGATE_POINTS={}", edge.points_file().display())),
    }
    lines.join("\n") + "\n"
}

fn what_to_try(edge: &Edge, key: &str) -> String {
    let url = format!("'{}'", edge.url("/write?db=demo"));
    let read = match &edge.influxdb {
        Some(influxdb) => format!(
            "curl -sG http://{}/query --data-urlencode db={DATABASE} \\\n       \
             --data-urlencode 'q=SELECT * FROM weather'",
            influxdb.address
        ),
        None => format!("cat {}", edge.points_file().display()),
    };
    format!(
        "A write, answered 204 once the journal has it:\n\n  \
         curl -i {url} -H 'Authorization: Token {key}' \\\n       \
         --data-binary 'weather,city=Oslo temperature=4.5'\n\n\
         The quota is 3 a minute, so the fourth is refused with 429, Retry-After and x-ratelimit-*:\n\n  \
         for i in 1 2 3 4; do curl -si {url} -H 'Authorization: Token {key}' \\\n       \
         --data-binary \"weather,city=Rome temperature=1$i\" | grep -iE '^(HTTP|retry-after|x-ratelimit)'; done\n\n\
         A bad key, refused with 401:\n\n  \
         curl -i {url} -H 'Authorization: Token wrong' --data-binary 'weather temperature=1'\n\n\
         What has arrived:\n\n  \
         {read}\n\n\
         Shell variables for scripts: {dir}/env. Logs and configuration: {dir}.\n\
         Quotas reload when {dir}/quotas/edge.yaml changes. Ctrl-C stops everything.\n",
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
