//! The program: its subcommands, its help and its exit codes.

use std::path::Path;
use std::process::{Command, Output};

use ratelimit_svc::config::variables::{Support, VARIABLES};

fn run(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_ratelimit-svc"))
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .output()
        .expect("runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn the_example_is_good() {
    let (code, out, err) = run(&["check", "examples/edge.yaml"], &[]);
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "ok: domain edge has 2 rules\n", ""));
}

#[test]
fn the_example_of_algorithms_is_good_and_explained() {
    let file = "examples/algorithms.yaml";
    let (code, out, err) = run(&["check", file], &[]);
    let expected = "ok: domain algorithms has 5 rules\n";
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), expected, ""));
    for (descriptor, limit, counter, ends) in [
        ("tenant=a", "600 per minute\n", "|m", true),
        ("tenant=smooth", "600 per minute, sliding window\n", "|sliding60\n", false),
        ("tenant=bursty", "10 per second, token bucket with burst 50\n", "|bucket1\n", false),
        ("login_30s=a", "2 per 30s\n", "|30s", true),
        ("login_5m=a", "20 per 300s, sliding window\n", "|sliding300\n", false),
    ] {
        let arguments = ["explain", file, "--domain", "algorithms", "--descriptor", descriptor];
        let (code, out, err) = run(&arguments, &[]);
        assert_eq!((code, err.as_str()), (Some(0), ""));
        assert!(out.contains(limit) && out.contains(counter), "{out}");
        assert_eq!(out.contains("window ends in"), ends, "{out}");
    }
}

#[test]
fn check_names_the_place() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = dir.path().join("bad.yaml");
    std::fs::write(&file, "domain: d\ndescriptors:\n  - key: k\n    rate_limit: {unit: eon}\n")
        .expect("written");
    let path = file.to_str().expect("UTF-8");
    let (code, out, err) = run(&["check", path, "examples/edge.yaml"], &[]);
    assert_eq!((code, out.as_str()), (Some(64), ""));
    assert_eq!(err, format!("error: {path}:4:24: invalid rate limit unit 'eon'\n"));
    let (code, _, err) = run(&["check", "nowhere.yaml"], &[]);
    assert_eq!(code, Some(64));
    assert!(err.starts_with("error: nowhere.yaml: cannot be read: "), "{err}");
}

#[test]
fn explain_says_which_rule_and_why() {
    let file = "examples/edge.yaml";
    let demo = "tenant=demo,priority=background";
    let arguments =
        ["explain", file, "--domain", "edge", "--descriptor", demo, "--descriptor", "tenant=acme"];
    let (code, out, err) = run(&arguments, &[]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    for expected in [
        "class background (rank 1000, outage deny): named by the request",
        "rule tenant_demo at edge.yaml:9 (tenant by value demo), 3 per minute",
        "the priority entry names the class and takes no part in matching",
        "rule tenant at edge.yaml:5 (tenant by key alone), 600 per minute",
    ] {
        assert!(out.contains(expected), "{expected}\n{out}");
    }
    let arguments = ["explain", file, "--domain", "other", "--descriptor", "a=b"];
    assert!(run(&arguments, &[]).1.contains("domain other: no file has it, so everything passes"));
    let arguments = ["explain", file, "--domain", "edge", "--descriptor", "a"];
    let (code, _, err) = run(&arguments, &[]);
    assert_eq!((code, err.as_str()), (Some(64), "error: 'a' is not of the form key=value\n"));
}

#[test]
fn bad_settings_exit_64_with_one_line() {
    let (code, out, err) = run(&[], &[("BACKEND_TYPE", "memcache")]);
    assert_eq!((code, out.as_str()), (Some(64), ""));
    assert_eq!(
        err,
        "ratelimit-svc: BACKEND_TYPE='memcache': memcache is not supported, use redis\n"
    );
    assert_eq!(run(&["--nope"], &[]).0, Some(64));
    let (code, _, err) = run(&[], &[("BACKEND_TYPE", "memory"), ("LOG_LEVEL", "loud")]);
    let expected = "ratelimit-svc: LOG_LEVEL='loud': 'loud' is not a log level\n";
    assert_eq!((code, err.as_str()), (Some(64), expected));
}

#[test]
fn help_names_every_variable() {
    let (code, out, _) = run(&["--help"], &[]);
    assert_eq!(code, Some(0));
    for variable in VARIABLES.iter().filter(|variable| variable.support == Support::Full) {
        assert!(out.contains(variable.name), "{}", variable.name);
    }
    assert!(run(&["--version"], &[]).1.starts_with("ratelimit-svc "));
}
