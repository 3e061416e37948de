//! The recorded requests of ext-authz's `tests/agents.yaml` through the real Envoy: what every agent
//! is answered for a good key, a bad one, one without the scope, a quota that is used up, and while
//! ext-authz is away.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ext_authz::check::profile::Profile;
use serde_json::Value;
use tests::edge::Service;
use tests::edge::{Parts, service};
use tests::http::Reply;
use tests::parts::workspace;

use crate::stage::Stage;
use crate::stand_in::StandIn;

/// Everyone has plenty, and tenant `full` nothing at all.
const QUOTAS: &str = "
domain: edge
descriptors:
  - key: tenant
    value: full
    rate_limit: {unit: year, requests_per_unit: 0}
";

struct Agent {
    name: String,
    request: String,
    answers: Value,
}

/// Those whose path the shipped bootstrap knows.
fn agents() -> Result<Vec<Agent>> {
    let path = workspace().join("ext-authz/tests/agents.yaml");
    let recorded: Value = serde_saphyr::from_str(&std::fs::read_to_string(path)?)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let agents = recorded["agents"].as_array().context("a list")?.iter().map(|agent| Agent {
        name: text(&agent["contract"]),
        request: text(&agent["request"]),
        answers: agent["answers"].clone(),
    });
    let shipped: Vec<&str> =
        Profile::ALL.iter().flat_map(|profile| profile.row().routes).map(|r| r.path).collect();
    Ok(agents.filter(|agent| shipped.contains(&agent.path())).collect())
}

impl Agent {
    fn path(&self) -> &str {
        let target = self.request.split(' ').nth(1).unwrap_or_default();
        target.split('?').next().unwrap_or_default()
    }

    fn status(&self, situation: &str) -> Option<u16> {
        self.answers[situation].as_str()?.split(' ').next()?.parse().ok()
    }

    async fn send(&self, stage: &Stage, key: &str) -> Result<Reply> {
        let mut text = self.request.replace("{KEY}", key);
        while let Some((before, rest)) = text.split_once("{basic:") {
            let (user, after) = rest.split_once('}').context("closed")?;
            text = format!("{before}{}{after}", STANDARD.encode(format!("{user}:{key}")));
        }
        let (line, headers) = text.split_once('\n').context("a request line")?;
        let mut words = line.split(' ');
        let (method, target) = (words.next(), words.next());
        let url = stage.edge.url(target.context("a target")?);
        let mut request = http::Request::builder().method(method.context("a method")?).uri(url);
        for header in headers.lines() {
            let (name, value) = header.split_once(": ").context("name: value")?;
            request = request.header(name, value);
        }
        stage.http.send(request.body(http_body_util::Full::from("m f=1"))?).await
    }

    async fn expect(&self, stage: &Stage, key: &str, situation: &str) -> Result<()> {
        let Some(status) = self.status(situation) else { return Ok(()) };
        let reply = self.send(stage, key).await?;
        let what = format!("{}, {situation}: {reply:?}", self.name);
        if self.request.contains("Content-Type: application/grpc") {
            let expected = match status {
                401 => "16",
                403 => "7",
                _ => "14",
            };
            ensure!(reply.header("grpc-status") == Some(expected), "{what}");
            return Ok(());
        }
        ensure!(reply.status == status, "{what}");
        let waits = matches!(status, 429 | 503);
        ensure!(reply.header("retry-after").is_some() == waits, "{what}");
        ensure!(!reply.text().contains(key), "{what}");
        Ok(())
    }
}

/// A key of tenant `acme` that is in force and permits this alone.
async fn issue_with_scope(stage: &Stage, scope: &str) -> Result<String> {
    let issued = Command::new(service("ext-authz")?)
        .args(["keys", "issue", "--append", "--tenant", "acme", "--scopes", scope, "--config"])
        .arg(stage.edge.authz_config())
        .output()?;
    let key = String::from_utf8(issued.stdout)?.trim().to_owned();
    stage.edge.wait_for_key(&key).await?;
    Ok(key)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_agent_is_answered_as_recorded() -> Result<()> {
    let change = |options: &mut tests::edge::Options| options.quotas = QUOTAS.to_owned();
    let mut stage = Stage::with(Parts::Embedded, change).await?;
    let good = stage.edge.issue_live_key("acme", "ingest").await?;
    let full = stage.edge.issue_live_key("full", "ingest").await?;
    let scopeless = issue_with_scope(&stage, "read").await?;
    let mut stranger = good.clone();
    let last = if stranger.pop() == Some('A') { 'B' } else { 'A' };
    stranger.push(last);
    let gateway = StandIn::take_over(&mut stage).await?;
    let agents = agents()?;
    ensure!(agents.len() > 25, "{}", agents.len());
    for agent in &agents {
        let reply = agent.send(&stage, &good).await?;
        ensure!(reply.status == 204, "{}: {reply:?}", agent.name);
        agent.expect(&stage, &stranger, "bad_key").await?;
        agent.expect(&stage, &scopeless, "no_scope").await?;
        agent.expect(&stage, &full, "throttled").await?;
    }
    let seen = format!("{:?}", gateway.seen());
    ensure!(!seen.contains(&good), "a key went on to the gateway");
    stage.edge.kill(Service::Authz);
    for agent in &agents {
        agent.expect(&stage, &good, "away").await?;
    }
    Ok(())
}
