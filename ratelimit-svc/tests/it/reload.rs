//! Quota files that change while the service runs.

use std::fs;

use serde_json::Value as Json;

use crate::support::{Service, request, wait_for};

fn quotas(domain: &str, limit: u32) -> String {
    format!(
        "domain: {domain}\ndescriptors:\n  - key: tenant\n    rate_limit: {{unit: year, requests_per_unit: {limit}}}\n"
    )
}

pub async fn limit(service: &Service, domain: &str) -> Option<u32> {
    let mut asked = request(domain, &[&[("tenant", "looker")]]);
    asked.descriptors[0].hits_addend = Some(Default::default());
    let answer = service.ask(asked).await.expect("answered");
    answer.statuses[0].current_limit.as_ref().map(|limit| limit.requests_per_unit)
}

async fn config(service: &Service) -> Json {
    serde_json::from_str(&service.admin("/config").await.1).expect("JSON")
}

#[tokio::test]
async fn good_bad_and_deleted_files() {
    let (a, b) = (quotas("a", 3), quotas("b", 3));
    let service = Service::start(&[("a.yaml", &a), ("b.yaml", &b)]).await;
    for _ in 0..3 {
        assert!(!service.is_over("a", &[("tenant", "x")]).await);
    }
    assert!(service.is_over("a", &[("tenant", "x")]).await);

    service.write_quotas("a.yaml", quotas("a", 6));
    wait_for("the new limit", async || limit(&service, "a").await == Some(6)).await;
    // Four hits were counted: two are left, and not six.
    assert!(!service.is_over("a", &[("tenant", "x")]).await);
    assert!(!service.is_over("a", &[("tenant", "x")]).await);
    assert!(service.is_over("a", &[("tenant", "x")]).await);

    service.write_quotas("a.yaml", "domain: a\nnope: 1\n");
    service.write_quotas("b.yaml", quotas("b", 9));
    wait_for("the good file", async || limit(&service, "b").await == Some(9)).await;
    wait_for("the error", async || {
        let error = config(&service).await["quotas"]["last_error"].clone();
        error.as_str().is_some_and(|e| e.ends_with("a.yaml:2:1: config error, unknown key 'nope'"))
    })
    .await;
    assert_eq!(limit(&service, "a").await, Some(6), "the last good version");
    assert!(service.readiness.is_ready(), "a bad change costs no readiness");
    assert_eq!(service.metric("ratelimit_config_errors").await, Some(1.0));
    let failed = service.metric("ratelimit_config_loads_total{result=\"error\"}").await;
    assert!(failed.is_some_and(|count| (1.0..=2.0).contains(&count)), "{failed:?}");

    let (status, text) = service.admin("/readyz").await;
    assert!(status == 200 && text.starts_with("ready\nwarning: quotas: "), "{text}");

    fs::remove_file(service.quota_file("a.yaml")).expect("deleted");
    wait_for("the domain is gone", async || limit(&service, "a").await.is_none()).await;
    assert_eq!(config(&service).await["errors"], serde_json::json!([]));

    fs::remove_file(service.quota_file("b.yaml")).expect("deleted");
    wait_for("the error", async || {
        let text = config(&service).await["errors"].to_string();
        text.contains("holds no quota files")
    })
    .await;
    assert_eq!(limit(&service, "b").await, Some(9), "emptying a directory takes nothing away");
    service.stop().await;
}

#[tokio::test]
async fn a_refused_file_is_no_new_version() {
    let (good, other) = (quotas("a", 3), quotas("b", 3));
    let service = Service::start(&[("a.yaml", &good), ("b.yaml", &other)]).await;
    let in_force = |shown: &Json| {
        let quotas = &shown["quotas"];
        ["version", "hash", "loaded_at_seconds"].map(|key| quotas[key].clone())
    };
    let before = in_force(&config(&service).await);

    service.write_quotas("a.yaml", "domain: a\nnope: 1\n");
    wait_for("the error", async || config(&service).await["errors"] != serde_json::json!([])).await;
    assert_eq!(in_force(&config(&service).await), before, "what is in force is what it was");
    assert_eq!(service.metric("ratelimit_config_version").await, Some(1.0));

    service.write_quotas("a.yaml", &good);
    wait_for("no error", async || config(&service).await["errors"] == serde_json::json!([])).await;
    let shown = config(&service).await;
    assert_eq!(in_force(&shown), before);
    assert_eq!(shown["quotas"]["last_error"], Json::Null);
    assert_eq!(service.admin("/readyz").await, (200, "ready\n".to_owned()));
    service.stop().await;
}

#[tokio::test]
async fn every_fault_of_a_file_is_named_and_the_file_counts_once() {
    let (good, other) = (quotas("a", 3), quotas("b", 3));
    let service = Service::start(&[("a.yaml", &good), ("b.yaml", &other)]).await;
    service.write_quotas(
        "a.yaml",
        "domain: a\ndescriptors:\n  - key: x\n    rate_limt: {unit: minute, requests_per_unit: 5}\n  \
         - key: y\n    rate_limit: {unit: minut, requests_per_unit: many}\n  \
         - rate_limit: {unit: minute, requests_per_unit: 5}\n",
    );
    service.write_quotas("b.yaml", "domain: b\nnope: 1\n");
    let errors = async || config(&service).await["errors"].clone();
    wait_for("both files", async || errors().await.to_string().contains("b.yaml")).await;
    let errors = errors().await;
    let places = errors.as_array().expect("a list").iter().map(|error| {
        let error = error.as_str().expect("a text");
        let (_, place) = error.rsplit_once('/').expect("a path");
        place.splitn(4, ':').take(2).collect::<Vec<_>>().join(":")
    });
    let places: Vec<String> = places.collect();
    assert_eq!(places, ["a.yaml:4", "a.yaml:6", "a.yaml:6", "a.yaml:7", "b.yaml:2"], "{errors:#}");
    assert_eq!(service.metric("ratelimit_config_errors").await, Some(2.0), "files, not faults");
    service.write_quotas("a.yaml", &good);
    service.write_quotas("b.yaml", &other);
    wait_for("no error", async || config(&service).await["errors"] == serde_json::json!([])).await;
    assert_eq!(service.metric("ratelimit_config_errors").await, Some(0.0));
    service.stop().await;
}

#[tokio::test]
async fn an_edit_takes_no_other_file_out_of_force() {
    let with = |class: &str, domain: &str, limit| {
        let classes = format!("priority_classes: {{{class}: {{rank: 1, default: true}}}}\n");
        classes + &quotas(domain, limit)
    };
    let (a, b) = (with("one", "a", 3), with("one", "b", 3));
    let service = Service::start(&[("a.yaml", &a), ("b.yaml", &b)]).await;
    service.write_quotas("a.yaml", with("two", "a", 6));
    wait_for("the error", async || {
        let errors = config(&service).await["errors"].to_string();
        errors.contains("a.yaml: priority_classes differ from those in")
    })
    .await;
    assert_eq!((limit(&service, "a").await, limit(&service, "b").await), (Some(3), Some(3)));
    service.write_quotas("b.yaml", with("two", "b", 6));
    wait_for("both", async || limit(&service, "b").await == Some(6)).await;
    assert_eq!(limit(&service, "a").await, Some(6));
    let config = config(&service).await;
    assert_eq!(config["errors"], serde_json::json!([]));
    assert!(config["priority_classes"].to_string().contains("two"), "{config}");
    service.stop().await;
}

#[tokio::test]
async fn a_bad_file_at_the_start_holds_readiness_back() {
    let good = quotas("a", 3);
    let service = Service::start(&[("a.yaml", &good), ("b.yaml", "domain: [")]).await;
    assert!(!service.is_over("a", &[("tenant", "x")]).await, "the good file is in force");
    let (status, text) = service.admin("/readyz").await;
    assert!(status == 503 && text.contains("b.yaml"), "{text}");
    service.write_quotas("b.yaml", quotas("b", 1));
    wait_for("ready", async || service.readiness.is_ready()).await;
    service.stop().await;
}

#[tokio::test]
async fn without_quotas_the_port_is_open_and_says_so() {
    let service = Service::start(&[]).await;
    let asked = || request("a", &[&[("tenant", "x")]]);
    let error = service.ask(asked()).await.expect_err("nothing loaded");
    assert_eq!(error.code(), tonic::Code::Unknown);
    assert_eq!(error.message(), "no rate limit configuration loaded");
    assert_eq!(service.admin("/readyz").await.0, 503);
    assert_eq!(service.admin("/livez").await.0, 200);
    service.write_quotas("a.yaml", quotas("a", 1));
    wait_for("ready", async || service.readiness.is_ready()).await;
    service.ask(asked()).await.expect("loaded");
    service.stop().await;
}

#[tokio::test]
async fn a_configmap_is_read_once() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let service = Service::start(&[]).await;
    let mount = service.dir.path().join("config");
    let publish = |version: &str, text: String| {
        let data = mount.join(format!("..{version}"));
        fs::create_dir(&data).expect("created");
        fs::write(data.join("a.yaml"), text).expect("written");
        std::os::unix::fs::symlink(&data, mount.join("..new")).expect("linked");
        fs::rename(mount.join("..new"), mount.join("..data")).expect("swapped");
    };
    publish("1", quotas("a", 1));
    std::os::unix::fs::symlink("..data/a.yaml", mount.join("a.yaml")).expect("linked");
    wait_for("version 1", async || service.readiness.is_ready()).await;
    publish("2", quotas("a", 2));
    wait_for("version 2", async || limit(&service, "a").await == Some(2)).await;
    assert_eq!(config(&service).await["errors"], serde_json::json!([]));
    drop(dir);
    service.stop().await;
}
