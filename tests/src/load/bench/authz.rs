//! ext-authz: does a check cost more when there are more keys? From a hundred to a million.

mod core;
mod revocation;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ext_authz::check::digest::Peppers;
use ext_authz::check::key::NewKey;

use super::results::{Aim, median};
use super::rig::{self, Server};
use super::rounds::{Cell, interleave, ratios};
use super::{Context, cost};
use crate::http::Http;
use crate::load::cpu;
use crate::load::engine::{Engine, Target};
use crate::load::message;
use crate::load::traffic::Traffic;
use crate::load::wire::Meaning;
use crate::load::wire::grpc::{CHECK_PATH, grpc};

const PEPPER: &str = "a pepper of the benchmarks, thirty-two bytes and more";
/// Of each snapshot, so many keys are asked for.
const ASKED: usize = 1_000;
const CHECK_MAX: f64 = 1.25;
/// What ten thousand times the keys may cost.
const FLAT: f64 = 1.15;
/// How soon it is ready with the most keys, s.
const START_MAX: f64 = 3.0;
/// What it holds with the most keys, and while another million takes their place, MiB.
const RESIDENT_MAX: f64 = 400.0;
/// How long another set of keys may take to come into force.
const REPLACED_MAX: Duration = Duration::from_secs(60);

/// Runs the stage.
///
/// # Errors
/// As [`cost::measure`].
pub async fn measure(cx: &mut Context) -> Result<()> {
    let dir = rig::stage_dir(&cx.dir, "authz")?;
    let counts: &[usize] =
        if cx.quick { &[100, 10_000] } else { &[100, 1_000, 10_000, 100_000, 1_000_000] };
    if cx.quick {
        cx.results.notes.push("quick run: ext-authz with 100 and 10,000 keys".to_owned());
    }
    let pepper = dir.join("pepper");
    std::fs::write(&pepper, PEPPER)?;
    let echo = rig::echo(&dir).await?;
    let mut servers = Vec::new();
    for count in counts {
        cx.step(&format!("authz: {count} keys"));
        let file = dir.join(format!("keys-{count}.json"));
        let keys = write_keys(&file, *count)?;
        let server = rig::authz(&dir, &format!("authz-{count}"), &file, &pepper).await?;
        let messages: Result<Vec<_>> = keys.iter().map(|key| message::check(key)).collect();
        servers.push((*count, server, Traffic::zipf(messages?, 0.0)));
    }
    let mut cells = Vec::new();
    let yardstick = servers.first().context("there are counts")?.2.clone();
    cells.push(Cell::new("echo", vec![&echo], None, engine(&echo, yardstick)?));
    for (count, server, traffic) in &servers {
        let engine = engine(server, traffic.clone())?;
        cells.push(Cell::new(format!("{count} keys"), vec![server], None, engine));
    }
    cx.step("authz: interleaved rounds");
    let last = cells.len() - 1;
    interleave(&mut cells, cx.stopping(), cx.slice(), &[(1, 0), (last, 1)])?;
    for cell in &cells {
        let name = format!("authz/{}", cell.name);
        cx.results.add_samples(&format!("{name}/server"), &cell.column(|s| s.server_us), "us");
        let speed = median(&cell.column(|s| s.per_second));
        cx.results.add(format!("{name}/speed"), speed, "/s", Aim::None);
        let admitted = median(&cell.column(|s| s.admitted));
        cx.results.add(format!("{name}/admitted"), admitted, "share", Aim::AtLeast(1.0));
    }
    let echoes = median(&ratios(&cells[1], &cells[0]));
    cx.results.add("authz/a check", echoes, "E of its own", Aim::AtMost(CHECK_MAX));
    let slope = median(&ratios(&cells[last], &cells[1]));
    let name = format!("authz/{} to {}", cells[last].name, cells[1].name);
    cx.results.add(name, slope, "x", Aim::AtMost(FLAT));
    drop(cells);
    for (count, server, _) in &servers {
        cost::process(cx, &format!("ext-authz {count} keys"), server)?;
    }
    if let Some((count, server, _)) = servers.last() {
        let ready = server.ready_in.as_secs_f64();
        cx.results.add("authz/start with the most keys", ready, "s", Aim::AtMost(START_MAX));
        let file = dir.join(format!("keys-{count}.json"));
        replace(cx, server, &file).await?;
    }
    drop(servers);
    core::measure(cx, counts)?;
    revocation::measure(cx, &dir, &pepper).await?;
    let count = if cx.quick { 10_000 } else { 100_000 };
    let file = dir.join("keys.yaml");
    write_keys(&file, count)?;
    let server = rig::authz(&dir, "authz-yaml", &file, &pepper).await?;
    cost::process(cx, &format!("ext-authz {count} keys in YAML"), &server)
}

/// Changes one record of a keys file and waits until the new set of keys is in force.
async fn replace(cx: &mut Context, server: &Server, file: &Path) -> Result<()> {
    cx.step("authz: another set of keys");
    let text = std::fs::read_to_string(file)?;
    let changed = text.replacen("\"priority\": \"ingest\"", "\"priority\": \"background\"", 1);
    drop(text);
    let new = file.with_extension("new");
    std::fs::write(&new, changed)?;
    std::fs::rename(&new, file)?;
    let admin = server.admin.context("a server with metrics")?;
    let (began, http) = (Instant::now(), Http::new());
    loop {
        let metrics = http.get(&format!("http://{admin}/metrics")).await?.text();
        let version = metrics.lines().find_map(|line| line.strip_prefix("authz_snapshot_version "));
        if version.and_then(|version| version.parse().ok()) == Some(2.0) {
            break;
        }
        ensure!(began.elapsed() < REPLACED_MAX, "no other set of keys came into force");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    cx.results.add("authz/replace the most keys", began.elapsed().as_secs_f64(), "s", Aim::None);
    let most = cpu::resident_bytes_most(server.child.pid())? as f64 / f64::from(1 << 20);
    cx.results.add("authz/most resident meanwhile", most, "MiB", Aim::AtMost(RESIDENT_MAX));
    Ok(())
}

fn engine(server: &Server, traffic: Traffic) -> Result<Engine> {
    let target = Target { addresses: vec![server.address], connections: 4, streams: 16 };
    Engine::connect(&target, traffic, grpc(CHECK_PATH, Meaning::Check))
}

/// Writes a keys file of so many keys, as JSON or YAML by its name, and returns up to [`ASKED`] of
/// them, spread over the file.
fn write_keys(path: &Path, count: usize) -> Result<Vec<String>> {
    let peppers = Peppers::new(BTreeMap::from([(1, PEPPER.as_bytes().to_vec())]));
    let peppers = peppers.context("the pepper is long enough")?;
    let file = std::fs::File::create(path)?;
    let mut file = std::io::BufWriter::new(file);
    let is_json = path.extension().is_some_and(|extension| extension == "json");
    let (begin, end) = if is_json { ("{\"keys\": [\n", "]}\n") } else { ("keys:\n", "") };
    file.write_all(begin.as_bytes())?;
    let mut random = Random(0x243f_6a88_85a3_08d3);
    let every = count.div_ceil(ASKED);
    let mut asked = Vec::new();
    for number in 0..count {
        let key = NewKey::generate("live", |bytes| random.fill(bytes))?;
        let key = key.context("'live' is an environment")?;
        let digest = peppers.digest(&key).hmac_sha256;
        let mut hex = String::with_capacity(64);
        for byte in digest {
            // Writing into a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
        }
        let (id, tenant) = (key.id(), format!("tenant-{number:07}"));
        let line = match (is_json, number + 1 < count) {
            (true, more) => format!(
                "{{\"id\": \"{id}\", \"tenant\": \"{tenant}\", \"priority\": \"ingest\", \"digest\": \
                 {{\"pepper\": 1, \"hmac_sha256\": \"{hex}\"}}}}{}",
                if more { "," } else { "" }
            ),
            (false, _) => format!(
                "  - {{id: \"{id}\", tenant: \"{tenant}\", priority: \"ingest\", digest: {{pepper: 1, \
                 hmac_sha256: \"{hex}\"}}}}"
            ),
        };
        writeln!(file, "{line}")?;
        if number % every == 0 {
            asked.push(key.expose().to_owned());
        }
    }
    file.write_all(end.as_bytes())?;
    file.flush()?;
    Ok(asked)
}

/// Repeatable bytes for keys that guard nothing (xorshift64*).
struct Random(u64);

impl Random {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        for chunk in bytes.chunks_mut(8) {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            let word = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        Ok(())
    }
}
