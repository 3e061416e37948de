//! How soon the last of three replicas refuses a key that was revoked: in a keys file, and in Redis.
//!
//! ```text
//! write ─► two looks at the file, or an entry of Redis' stream ─► another set ─► first refusal
//! ├──────────────────────────────── what is measured ───────────────────────────────────────┤
//! ```

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ext_authz::admin::Event;
use ext_authz::check::key::KeyId;
use ext_authz::check::record::Status;
use ext_authz::config::Config;
use ext_authz::key_file::Rules;
use ext_authz::store::Store;
use ext_authz::store::redis::RedisStore;
use ext_authz::timestamp::Timestamp;
use futures_util::future::try_join_all;

use super::write_keys;
use crate::edge::service;
use crate::load::bench::Context;
use crate::load::bench::results::Aim;
use crate::load::bench::rig::{self, Server};
use crate::parts::authz::Authz;

const REPLICAS: usize = 3;
/// Keys in force.
const KEYS: usize = 10_000;
/// Keys that are revoked, and in a quick run.
const REVOKED: (usize, usize) = (1_000, 100);
/// A file comes into force once it has been still: so many keys are revoked by one change of it.
const AT_ONCE: usize = 20;
/// How soon a change of a file must be in force: two looks at it, as the reference of ext-authz
/// says, and the time to read it.
const FILE_MAX_MS: f64 = 500.0;
/// The same for a change in Redis.
const REDIS_MAX_MS: f64 = 100.0;
/// Until then a key must be refused.
const REFUSED_MAX: Duration = Duration::from_secs(30);

/// Runs this part of the stage.
///
/// # Errors
/// When a server does not start, or a key is not refused.
pub async fn measure(cx: &mut Context, dir: &Path, pepper: &Path) -> Result<()> {
    let count = if cx.quick { REVOKED.1 } else { REVOKED.0 };
    let file = dir.join("keys-to-revoke.json");
    let keys: Vec<String> = write_keys(&file, KEYS)?.into_iter().take(count).collect();
    cx.step("authz: revocations in Redis");
    let took = in_redis(dir, pepper, &file, &keys).await?;
    add(cx, "Redis", took, REDIS_MAX_MS);
    cx.step("authz: revocations in a file");
    let took = in_file(dir, pepper, &file, &keys).await?;
    add(cx, "file", took, FILE_MAX_MS);
    Ok(())
}

fn add(cx: &mut Context, source: &str, mut took_ms: Vec<f64>, most_ms: f64) {
    let name = format!("authz/revocation at the last of {REPLICAS}/{source}");
    cx.results.add_samples(&name, &took_ms, "ms");
    took_ms.sort_by(f64::total_cmp);
    let last = took_ms.len().saturating_sub(1);
    cx.results.add(format!("{name} (99 %)"), took_ms[last * 99 / 100], "ms", Aim::None);
    cx.results.add(format!("{name} (most)"), took_ms[last], "ms", Aim::AtMost(most_ms));
}

/// Revokes one key after the other in Redis.
async fn in_redis(dir: &Path, pepper: &Path, file: &Path, keys: &[String]) -> Result<Vec<f64>> {
    let redis = rig::redis(dir, "redis-of-keys").await?;
    let source = format!("redis:\n  address: {}", redis.address);
    let config = rig::authz_config(dir, "revoking", &source, pepper)?;
    let mut load = Command::new(service("ext-authz")?);
    load.args(["keys", "load"]).arg(file).arg("--config").arg(&config.path);
    ensure!(load.output()?.status.success(), "ext-authz keys load");
    let (_servers, mut replicas) = replicas(dir, "redis", &source, pepper).await?;

    let config = Config::load(&config.path)?;
    let rules =
        Rules { peppers: &config.keys.peppers, priority_classes: &config.keys.priority_classes };
    let settings = config.keys.redis.as_ref().context("keys are in Redis")?;
    let mut store = Store::Redis(Box::new(RedisStore::open(settings, rules)?));
    let mut took_ms = Vec::new();
    for key in keys {
        let id = id_of(key)?;
        let mut event = Event {
            at: Timestamp::now(),
            who: "bench".to_owned(),
            what: "revoke",
            key_id: Some(id),
            tenant: None,
        };
        let began = Instant::now();
        store.set_status(id, Status::Revoked, &mut event)?;
        took_ms.push(refused(&mut replicas, key, began).await?);
    }
    Ok(took_ms)
}

/// Revokes [`AT_ONCE`] keys after the other in a file, which is renamed over the one before.
async fn in_file(dir: &Path, pepper: &Path, file: &Path, keys: &[String]) -> Result<Vec<f64>> {
    let source = format!("keys_file: {}", file.display());
    let (_servers, mut replicas) = replicas(dir, "file", &source, pepper).await?;
    let (mut text, new) = (std::fs::read_to_string(file)?, file.with_extension("new"));
    let mut took_ms = Vec::new();
    for keys in keys.chunks(AT_ONCE) {
        for key in keys {
            let record = format!("{{\"id\": \"{}\"", id_of(key)?);
            let revoked = record.replacen('{', "{\"revoked\": true, ", 1);
            text = text.replacen(&record, &revoked, 1);
        }
        let began = Instant::now();
        std::fs::write(&new, &text)?;
        std::fs::rename(&new, file)?;
        for key in keys {
            took_ms.push(refused(&mut replicas, key, began).await?);
        }
    }
    Ok(took_ms)
}

async fn replicas(
    dir: &Path,
    name: &str,
    source: &str,
    pepper: &Path,
) -> Result<(Vec<Server>, Vec<Authz>)> {
    let (mut servers, mut clients) = (Vec::new(), Vec::new());
    for number in 0..REPLICAS {
        let name = format!("authz-{name}-{number}");
        let server = rig::authz_of(dir, &name, source, pepper).await?;
        clients.push(Authz::connect(server.address, None).await?);
        servers.push(server);
    }
    Ok((servers, clients))
}

/// Asks every replica for a key until all have refused it; how long that was, ms.
async fn refused(replicas: &mut [Authz], key: &str, began: Instant) -> Result<f64> {
    let until_refused = replicas.iter_mut().map(async |replica: &mut Authz| {
        while replica.allows(key).await? {
            ensure!(began.elapsed() < REFUSED_MAX, "a revoked key is not refused");
        }
        anyhow::Ok(began.elapsed().as_secs_f64() * 1e3)
    });
    Ok(try_join_all(until_refused).await?.into_iter().fold(0.0, f64::max))
}

fn id_of(key: &str) -> Result<KeyId> {
    key.split('_').nth(2).and_then(|rest| KeyId::parse(rest.get(..12)?)).context("a key has an id")
}
