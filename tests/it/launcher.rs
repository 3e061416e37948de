//! `make run` as a person uses it: the lines it prints are copied into a shell.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tests::child::Child;
use tests::edge::service;
use tests::http::Http;
use tests::wait::{DEADLINE, wait_for};

struct Launched {
    child: Child,
    env: BTreeMap<String, String>,
}

async fn launch(dir: &Path, args: &[&str]) -> Result<Launched> {
    let mut command = Command::new(service("tidegate-edge")?);
    command.args(args).arg("--dir").arg(dir.join("run"));
    launch_as(dir, command).await
}

async fn launch_as(dir: &Path, command: Command) -> Result<Launched> {
    let mut child = Child::start("tidegate-edge", dir, command)?;
    let file = dir.join("run/env");
    let text = wait_for("the env file", DEADLINE * 2, async || match child.check_alive() {
        Ok(()) => std::fs::read_to_string(&file).ok().map(Ok),
        Err(error) => Some(Err(error)),
    })
    .await??;
    let assign = |line: &str| line.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
    Ok(Launched { child, env: text.lines().filter_map(assign).collect() })
}

/// Stops it as Ctrl-C does, and checks that nothing of it is left.
async fn stop(mut launched: Launched, dir: &Path, signal: Signal) -> Result<()> {
    launched.child.signal(signal)?;
    let status = launched.child.wait(DEADLINE).await?;
    ensure!(status.success(), "ended with {status}:\n{}", launched.child.output());
    ensure!(!dir.join("run/env").exists(), "the env file is removed at the end");
    let marker = dir.to_string_lossy().into_owned();
    for process in std::fs::read_dir("/proc")?.flatten() {
        let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        ensure!(!command.contains(&marker), "still running: {command}");
    }
    Ok(())
}

/// The copy-paste commands among what was printed: the indented lines, continuations joined.
fn commands(printed: &str) -> Vec<String> {
    let text = printed.replace("\\\n", " ");
    let lines = text.lines().map(str::trim_start);
    lines
        .filter(|line| ["curl ", "for ", "cat "].iter().any(|word| line.starts_with(word)))
        .map(str::to_owned)
        .collect()
}

fn shell(command: &str) -> Result<String> {
    let output = Command::new("bash").arg("-c").arg(command).output()?;
    ensure!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command until it prints what it should: a desk's edge is given half a second for what a busy
/// machine needs longer for, and its quota is counted by the minute of the clock.
async fn answers(command: &str, expected: impl Fn(&str) -> bool) -> Result<String> {
    let mut last = String::new();
    let answer = wait_for("an answer as it should be", DEADLINE, async || {
        last = shell(command).unwrap_or_else(|error| error.to_string());
        expected(&last).then(|| last.clone())
    });
    let answer = answer.await;
    answer.with_context(|| format!("{command}: {last}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_printed_lines_work_and_a_second_start_does_too() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let launched = launch(dir.path(), &[]).await?;
    let printed = launched.child.output();
    let commands = commands(&printed);
    assert_eq!(commands.len(), 5, "{printed}");
    answers(&commands[0], |write| write.starts_with("HTTP/1.1 204")).await?;
    let quota = answers(&commands[1], |quota| {
        let quota = quota.to_lowercase();
        quota.starts_with("http/1.1 204") && quota.contains("http/1.1 429")
    });
    let quota = quota.await?.to_lowercase();
    assert!(quota.contains("retry-after: ") && quota.contains("x-ratelimit-limit: 3"), "{quota}");
    answers(&commands[2], |refused| refused.starts_with("HTTP/1.1 401")).await?;
    let arrived = answers(&commands[3], |text| text.contains("city=Oslo")).await?;
    assert!(arrived.contains("# CONTEXT-DATABASE: demo__demo\n"), "{arrived}");
    answers(&commands[4], |standing| {
        let standing = serde_json::from_str::<serde_json::Value>(standing).unwrap_or_default();
        standing["tenant"] == "demo"
    })
    .await?;

    for name in [
        "TIDEGATE_EDGE",
        "TIDEGATE_KEY",
        "TIDEGATE_TENANT",
        "TIDEGATE_COUNTERS",
        "RLS_GRPC",
        "RLS_HTTP",
        "AUTHZ_GRPC",
        "GATEWAY_HTTP",
        "ENVOY_ADMIN",
        "RLS_ADMIN",
        "AUTHZ_ADMIN",
        "GATEWAY_ADMIN",
        "WRITER_ADMIN",
        "TIDEGATE_POINTS",
    ] {
        assert!(launched.env.contains_key(name), "{name} is missing: {:?}", launched.env);
    }
    for admin in ["RLS_ADMIN", "AUTHZ_ADMIN", "GATEWAY_ADMIN", "WRITER_ADMIN"] {
        let reply = Http::new().get(&format!("{}/readyz", launched.env[admin])).await?;
        assert_eq!(reply.status, 200, "{admin}");
    }
    // Two edges of one directory would share their files.
    let mut second = Command::new(service("tidegate-edge")?);
    let output = second.arg("--dir").arg(dir.path().join("run")).output()?;
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("is running"), "{message}");
    stop(launched, dir.path(), Signal::INT).await?;

    let again = launch(dir.path(), &[]).await?;
    stop(again, dir.path(), Signal::TERM).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_full_edge_prints_how_to_ask_influxdb() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let launched = launch(dir.path(), &["--full"]).await?;
    let commands = commands(&launched.child.output());
    answers(&commands[0], |write| write.starts_with("HTTP/1.1 204")).await?;
    let arrived = answers(&commands[3], |text| text.contains("Oslo"))
        .await
        .with_context(|| launched.child.output())?;
    assert!(arrived.contains("4.5"), "{arrived}");
    assert!(launched.env.contains_key("TIDEGATE_INFLUXDB"));
    assert_eq!(launched.env["TIDEGATE_DATABASE"], "demo__demo");
    // Every hop is encrypted, and the second listener is for clients that are.
    assert!(launched.env["TIDEGATE_INFLUXDB"].starts_with("https://"), "{:?}", launched.env);
    let (ca, edge) = (&launched.env["TIDEGATE_CA"], &launched.env["TIDEGATE_EDGE_TLS"]);
    let write = format!(
        "curl -si --cacert {ca} '{edge}/api/v2/write?bucket=demo' \
         -H 'Authorization: Token {}' --data-binary 'weather,city=Bergen temperature=7'",
        launched.env["TIDEGATE_KEY"]
    );
    answers(&write, |answer| answer.lines().next().is_some_and(|line| line.contains(" 204")))
        .await?;
    stop(launched, dir.path(), Signal::TERM).await
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_off_is_the_full_edge_in_clear_text_and_says_so() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut command = Command::new(service("tidegate-edge")?);
    command.arg("--full").arg("--dir").arg(dir.path().join("run")).env("TLS", "off");
    let launched = launch_as(dir.path(), command).await?;
    let printed = launched.child.output();
    ensure!(printed.contains("in clear text, on loopback"), "{printed}");
    for name in ["TIDEGATE_CA", "TIDEGATE_EDGE_TLS", "TIDEGATE_CERT"] {
        ensure!(!launched.env.contains_key(name), "{name}: {:?}", launched.env);
    }
    for name in ["GATEWAY_HTTP", "TIDEGATE_INFLUXDB"] {
        ensure!(launched.env[name].starts_with("http://"), "{name}: {:?}", launched.env);
    }
    let commands = commands(&printed);
    answers(&commands[0], |write| write.starts_with("HTTP/1.1 204")).await?;
    answers(&commands[3], |text| text.contains("Oslo"))
        .await
        .with_context(|| launched.child.output())?;
    stop(launched, dir.path(), Signal::INT).await?;
    // A word that is neither ends it before anything is started.
    let mut command = Command::new(service("tidegate-edge")?);
    let output =
        command.arg("--dir").arg(dir.path().join("other")).env("TLS", "perhaps").output()?;
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1), "{message}");
    ensure!(message.contains("TLS=perhaps is neither on nor off"), "{message}");
    Ok(())
}
