//! What every agent sends, and what it must be answered: `tests/agents.yaml`, one recorded request
//! for each convention of the table of agents in REFERENCE.md.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ext_authz::check::profile::{Profile, WRITE_SCOPES};
use ext_authz::check::record::KeyRecord;
use proto::pb::envoy::service::auth::v3::CheckRequest;
use serde::Deserialize;

use crate::rig::{Files, Outcome, Running, keys_yaml, request, wait_for};

/// Every client whose convention the edge promises to understand.
const CONTRACT: [&str; 25] = [
    "Datadog Agent",
    "Vector datadog_*",
    "Fluent Bit datadog",
    "Telegraf datadog",
    "Telegraf influxdb_v2",
    "Telegraf influxdb (v1)",
    "Telegraf influxdb_v3, opentelemetry",
    "Telegraf http / loki",
    "InfluxDB clients",
    "Vector influxdb_*",
    "OTel Collector otlp_http",
    "OTel Collector otlp (gRPC)",
    "Prometheus remote_write",
    "vmagent",
    "Vector prometheus_remote_write",
    "Fluent Bit http / opentelemetry",
    "Fluent Bit prometheus_remote_write",
    "Fluent Bit influxdb",
    "Fluent Bit loki / es / nrlogs",
    "Grafana Cloud style",
    "Honeycomb",
    "New Relic",
    "Splunk HEC",
    "Elastic",
    "Generic",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recorded {
    agents: Vec<Agent>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Agent {
    contract: String,
    profile: String,
    request: String,
    answers: Answers,
}

/// A status and what the agent then does.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answers {
    bad_key: String,
    no_scope: Option<String>,
    throttled: String,
    away: String,
}

fn recorded() -> Vec<Agent> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/agents.yaml");
    let text = fs::read_to_string(path).expect("there are fixtures");
    serde_saphyr::from_str::<Recorded>(&text).expect("as described in its head").agents
}

fn status(answer: &str) -> u16 {
    answer.split(' ').next().and_then(|status| status.parse().ok()).expect("begins with a status")
}

impl Agent {
    fn profile(&self) -> Profile {
        Profile::named(Some(&self.profile)).expect("a profile")
    }

    /// The path without its query.
    fn path(&self) -> &str {
        let target = self.request.split(' ').nth(1).expect("a request line");
        target.split('?').next().expect("a path")
    }

    /// The scope that the shipped route demands.
    fn scope(&self) -> Option<&'static str> {
        let routes = self.profile().row().routes;
        routes.iter().find(|route| route.path == self.path()).and_then(|route| route.scope)
    }

    /// What Envoy asks when the agent uses this key.
    fn with_key(&self, key: &str) -> CheckRequest {
        let text = filled(&self.request, key);
        let (line, headers) = text.split_once('\n').expect("headers below the request line");
        let target = line.split(' ').nth(1).expect("a request line");
        let headers: Vec<(&str, &str)> =
            headers.lines().map(|line| line.split_once(": ").expect("name: value")).collect();
        let mut context = vec![("profile", self.profile.as_str())];
        context.extend(self.scope().map(|scope| ("scope", scope)));
        request(target, &headers, &context)
    }
}

/// The recorded text with a key in its places.
fn filled(text: &str, key: &str) -> String {
    let mut text = text.replace("{KEY}", key);
    while let Some((before, rest)) = text.split_once("{basic:") {
        let (user, after) = rest.split_once('}').expect("closed");
        text = format!("{before}{}{after}", STANDARD.encode(format!("{user}:{key}")));
    }
    text
}

#[test]
fn every_agent_of_the_contract_has_a_recorded_request() {
    let agents = recorded();
    let recorded: BTreeSet<&str> = agents.iter().map(|agent| agent.contract.as_str()).collect();
    let contract = BTreeSet::from(CONTRACT);
    assert_eq!(recorded, contract);
    for profile in Profile::ALL {
        assert!(agents.iter().any(|agent| agent.profile() == profile), "{}", profile.as_str());
        for route in profile.row().routes {
            let asked = |agent: &Agent| agent.path() == route.path && agent.profile() == profile;
            let grpc = route.path.starts_with("/opentelemetry");
            assert!(grpc || agents.iter().any(asked), "nobody asks for {}", route.path);
        }
    }
}

#[test]
fn the_reference_has_the_table_of_agents() {
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("REFERENCE.md");
    let reference = fs::read_to_string(reference).expect("there is a reference");
    let mut missing = String::new();
    for agent in recorded() {
        let Answers { bad_key, no_scope, throttled, away } = &agent.answers;
        let no_scope = no_scope.as_deref().unwrap_or("–");
        let line = format!(
            "| {} | `{}` | `{}` | {bad_key} | {no_scope} | {throttled} | {away} |\n",
            agent.contract,
            agent.profile,
            agent.path(),
        );
        if !reference.contains(&line) {
            missing.push_str(&line);
        }
    }
    assert_eq!(missing, "", "REFERENCE.md, \"What each agent is answered\", lacks these lines");
}

#[tokio::test]
async fn every_agent_gets_the_answer_on_which_it_does_what_is_stated() {
    let files = Files::new();
    let ((good, mut record), (scopeless, mut scopeless_record)) =
        (files.issue("acme"), files.issue("acme"));
    let (stranger, _) = files.issue("acme");
    let scopes = |record: &mut KeyRecord, scopes: &[&str]| {
        let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        Arc::make_mut(&mut record.grant).scopes = scopes;
    };
    scopes(&mut record, &WRITE_SCOPES);
    scopes(&mut scopeless_record, &["read"]);
    let running = Running::start(&files).await;
    for agent in recorded() {
        let Outcome::Failed { status: away, headers, .. } =
            running.check(agent.with_key(&good)).await
        else {
            panic!("{}: not our trouble", agent.request)
        };
        assert_eq!(away, i32::from(status(&agent.answers.away)), "{}", agent.request);
        assert!(headers.iter().any(|(name, _)| name == "retry-after"), "{}", agent.request);
    }
    files.write_keys(&keys_yaml(&[&record, &scopeless_record]));
    wait_for("ready", async || running.get("/readyz").await.0 == 200).await;
    for agent in recorded() {
        let what = &agent.request;
        assert_passes_without_its_key(&agent, &good, running.check(agent.with_key(&good)).await);
        let denied = async |key: &str| match running.check(agent.with_key(key)).await {
            Outcome::Denied { status, .. } => Some(status),
            _ => None,
        };
        assert_eq!(denied(&stranger).await, Some(status(&agent.answers.bad_key).into()), "{what}");
        let no_scope = agent.answers.no_scope.as_deref().map(|answer| status(answer).into());
        assert_eq!(denied(&scopeless).await, no_scope, "{what}");
        let throttled = status(&agent.answers.throttled);
        assert_eq!(throttled, agent.profile().row().throttled_status, "{what}");
    }
}

/// The key is in none of the headers and parameters that go on.
fn assert_passes_without_its_key(agent: &Agent, key: &str, outcome: Outcome) {
    let Outcome::Allowed { removed, removed_parameters, .. } = outcome else {
        panic!("{}: {outcome:?}", agent.request)
    };
    let text = filled(&agent.request, key);
    let (line, headers) = text.split_once('\n').expect("headers below the request line");
    for line in headers.lines() {
        let (name, value) = line.split_once(": ").expect("name: value");
        let secret = value.contains(key) || name.eq_ignore_ascii_case("authorization");
        let kept = !removed.contains(&name.to_ascii_lowercase());
        assert!(!(secret && kept), "{name} of {} goes on", agent.contract);
    }
    let target = line.split(' ').nth(1).expect("a target");
    let query = target.split_once('?').map_or("", |(_, query)| query);
    for parameter in query.split('&').filter(|parameter| parameter.contains(key)) {
        let name = parameter.split('=').next().expect("a name");
        assert!(removed_parameters.iter().any(|removed| removed == name), "{parameter}");
    }
}
