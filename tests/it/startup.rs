//! Bad settings, bad files and taken ports, at the start of each program.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result};
use proto::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use proto::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use proto::pb::envoy::service::ratelimit::v3::RateLimitRequest;
use proto::pb::envoy::service::ratelimit::v3::rate_limit_service_client::RateLimitServiceClient;
use tests::child::Child;
use tests::edge::service;
use tests::http::Http;
use tests::ports::free_port;
use tests::wait::{DEADLINE, wait_for};
use tonic::transport::Endpoint;

fn output(program: &str, args: &[&str], env: &[(&str, &str)]) -> Result<Output> {
    let mut command = Command::new(service(program)?);
    Ok(command.args(args).envs(env.iter().copied()).output()?)
}

/// Runs a program that must refuse with exit code 64 and one line that contains all `parts`.
fn assert_refused(
    program: &str,
    args: &[&str],
    env: &[(&str, &str)],
    parts: &[&str],
) -> Result<()> {
    let output = output(program, args, env)?;
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(64), "{program} {args:?}: {message}");
    for part in parts {
        assert!(message.contains(part), "{program} {args:?} does not say '{part}': {message}");
    }
    Ok(())
}

#[test]
fn bad_settings_exit_64_and_name_the_culprit() -> Result<()> {
    for program in ["ratelimit-svc", "ext-authz", "ingest-filter", "tidegate-edge"] {
        assert_refused(program, &["--no-such-flag"], &[], &["--no-such-flag"])?;
        let help = output(program, &["--help"], &[])?;
        assert!(help.status.success() && !help.stdout.is_empty(), "{program} --help");
    }
    assert_refused("ratelimit-svc", &[], &[("GRPC_PORT", "many")], &["GRPC_PORT", "many"])?;
    assert_refused("ratelimit-svc", &[], &[("BACKEND_TYPE", "memcache")], &["memcache"])?;

    let dir = tempfile::tempdir()?;
    let file = dir.path().join("settings.yaml");
    let path = file.to_str().context("a path in UTF-8")?;
    std::fs::write(&file, "keys_file: keys.yaml\nfoo: 1\n")?;
    assert_refused("ext-authz", &["serve", "--config", path], &[], &["settings.yaml:2:1", "foo"])?;
    std::fs::write(&file, "journal:\n  disk: {directory: /tmp/x, bar: 1}\n")?;
    for role in ["gateway", "writer"] {
        assert_refused(
            "ingest-filter",
            &[role, "--config", path],
            &[],
            &["settings.yaml:2:", "bar"],
        )?;
        let missing = "/nonexistent/ingest.yaml";
        assert_refused("ingest-filter", &[role, "--config", missing], &[], &[missing])?;
    }
    Ok(())
}

#[test]
fn a_port_in_use_is_one_clear_line() -> Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port().to_string();
    let dir = tempfile::tempdir()?;
    let env = ratelimit_env(dir.path(), &port)?;
    let env: Vec<(&str, &str)> = env.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let ratelimit = output("ratelimit-svc", &[], &env)?;
    let edge = output("tidegate-edge", &["--port", &port], &[])?;
    let taken_address = format!("127.0.0.1:{port}");
    let pepper = dir.path().join("pepper");
    std::fs::write(&pepper, "a pepper of some length")?;
    let authz_file = dir.path().join("ext-authz.yaml");
    std::fs::write(
        &authz_file,
        format!(
            "grpc_listen: {taken_address}\nkeys_file: keys.yaml\npepper_files: {{1: pepper}}\n"
        ),
    )?;
    let ingest_file = dir.path().join("ingest-filter.yaml");
    std::fs::write(
        &ingest_file,
        format!(
            "journal: {{disk: {{directory: {dir}/journal}}}}\n\
             gateway: {{listen: '{taken_address}', admin_listen: '127.0.0.1:0'}}\n\
             writer: {{admin_listen: '{taken_address}', file: {{path: {dir}/points}}}}\n",
            dir = dir.path().display()
        ),
    )?;
    let at = |file: &Path| file.to_string_lossy().into_owned();
    let authz = output("ext-authz", &["serve", "--config", &at(&authz_file)], &[])?;
    let gateway = output("ingest-filter", &["gateway", "--config", &at(&ingest_file)], &[])?;
    let writer = output("ingest-filter", &["writer", "--config", &at(&ingest_file)], &[])?;
    for output in [ratelimit, edge, authz, gateway, writer] {
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains(&port) && message.trim().lines().count() == 1, "{message}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_quota_file_at_the_start_leaves_the_service_up_but_not_ready() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let quotas = dir.path().join("edge.yaml");
    std::fs::write(
        &quotas,
        "domain: edge\ndescriptors:\n  - key: tenant\n    rate_limit: {unit: eon}\n",
    )?;
    let grpc = free_port()?.to_string();
    let env = ratelimit_env(dir.path(), &grpc)?;
    let mut command = Command::new(service("ratelimit-svc")?);
    command.envs(env.iter().map(|(key, value)| (*key, value)));
    let log = tempfile::tempdir()?;
    let child = Child::start("ratelimit-svc", log.path(), command)?;

    let admin = env.iter().find(|(key, _)| *key == "DEBUG_PORT").context("set above")?.1.clone();
    let http = Http::new();
    let readyz = wait_for("the admin listener", DEADLINE, async || {
        http.get(&format!("http://127.0.0.1:{admin}/readyz")).await.ok()
    })
    .await?;
    assert_eq!(readyz.status, 503, "{}", readyz.text());
    assert_eq!(http.get(&format!("http://127.0.0.1:{admin}/livez")).await?.status, 200);
    wait_for("the reason in the log", DEADLINE, async || {
        let output = child.output();
        (output.contains("edge.yaml:4:") && output.contains("eon")).then_some(())
    })
    .await?;

    let channel = Endpoint::try_from(format!("http://127.0.0.1:{grpc}"))?.connect().await?;
    let mut client = RateLimitServiceClient::new(channel);
    let request = || RateLimitRequest {
        domain: "edge".to_owned(),
        descriptors: vec![RateLimitDescriptor {
            entries: vec![Entry { key: "tenant".to_owned(), value: "acme".to_owned() }],
            ..RateLimitDescriptor::default()
        }],
        ..RateLimitRequest::default()
    };
    let status = client.should_rate_limit(request()).await.expect_err("nothing is loaded");
    assert!(status.message().contains("no rate limit configuration loaded"), "{status:?}");

    std::fs::write(&quotas, crate::stage::QUOTAS)?;
    wait_for("readiness after the file was mended", DEADLINE, async || {
        let reply = http.get(&format!("http://127.0.0.1:{admin}/readyz")).await.ok()?;
        reply.status.is_success().then_some(())
    })
    .await?;
    let answer = client.should_rate_limit(request()).await?.into_inner();
    assert_eq!(answer.overall_code, 1, "OK");
    Ok(())
}

fn ratelimit_env(quotas: &Path, grpc_port: &str) -> Result<Vec<(&'static str, String)>> {
    let quotas = quotas.to_str().context("a path in UTF-8")?.to_owned();
    Ok(vec![
        ("BACKEND_TYPE", "memory".to_owned()),
        ("RUNTIME_ROOT", quotas),
        ("RUNTIME_APPDIRECTORY", String::new()),
        ("RUNTIME_WATCH_ROOT", "false".to_owned()),
        ("HOST", "127.0.0.1".to_owned()),
        ("GRPC_HOST", "127.0.0.1".to_owned()),
        ("DEBUG_HOST", "127.0.0.1".to_owned()),
        ("PORT", free_port()?.to_string()),
        ("DEBUG_PORT", free_port()?.to_string()),
        ("GRPC_PORT", grpc_port.to_owned()),
    ])
}
