//! The program: its subcommands, its help and its exit codes.

use std::path::Path;
use std::process::{Command, Output};

use ratelimit_svc::config::variables::{Support, VARIABLES};

use crate::support::Service;

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
    let (code, out, err) = run(&["check", "examples/quotas/edge.yaml"], &[]);
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "ok: domain edge has 3 rules\n", ""));
}

#[test]
fn the_example_of_algorithms_is_good_and_explained() {
    let file = "examples/quotas/algorithms.yaml";
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
fn the_example_of_priorities_is_good_and_explained() {
    let file = "examples/quotas/priorities.yaml";
    let (code, out, err) = run(&["check", file], &[]);
    let expected = "ok: domain priorities has 4 rules\n";
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), expected, ""));
    for (descriptor, expected) in [
        ("tenant=a,priority=ingest", "may take what the 2 classes above it will not need"),
        ("tenant=a,priority=platform-core", "may take what the 1 class above it will not need"),
        (
            "tenant=shared",
            ", 6000 per minute, reserve=forecast floor={background: 0.02} reserve_min=",
        ),
        ("tenant=shared,priority=system-node-critical", "ranks highest and reserves what it needs"),
        ("pool=a,priority=background", "the class is admitted up to 12000 of 20000"),
        ("pool=a", ", 20000 per second, mode exact, admit_up_to={background: 0.6, "),
        ("login=a,priority=background", ", 5 per minute, reserve=none\n"),
    ] {
        let arguments = ["explain", file, "--domain", "priorities", "--descriptor", descriptor];
        let (code, out, err) = run(&arguments, &[]);
        assert_eq!((code, err.as_str()), (Some(0), ""));
        assert!(out.contains(expected), "{expected}\n{out}");
    }
    let arguments = ["explain", file, "--domain", "priorities", "--descriptor", "tenant=a"];
    let (_, out, _) = run(&arguments, &[]);
    assert!(!out.contains("the class may take"), "counted plainly\n{out}");
}

#[test]
fn check_knows_the_classes_of_all_files() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    let rule =
        "domain: d\ndescriptors:\n  - key: k\n    rate_limit: {unit: day, floor: {gold: 0.1}}\n";
    std::fs::write(path("rule.yaml"), rule).expect("written");
    let classes = "domain: c\npriority_classes: {gold: {rank: 1, default: true}}\n";
    std::fs::write(path("classes.yaml"), classes).expect("written");
    let (code, _, err) = run(&["check", &path("rule.yaml"), &path("classes.yaml")], &[]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    std::fs::write(path(".rule.yaml.swp"), "left: behind").expect("written");
    let (code, out, err) = run(&["check", &path("")], &[]);
    let expected = "ok: domain c has 0 rules\nok: domain d has 1 rules\n";
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), expected, ""));
    let (code, _, err) = run(&["check", &path("rule.yaml")], &[]);
    let place = path("rule.yaml");
    let expected = format!("error: {place}:4:37: priority class 'gold' is not configured\n");
    assert!(code == Some(64) && err.starts_with(&expected), "{err}");
}

#[test]
fn check_names_the_place() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = dir.path().join("bad.yaml");
    std::fs::write(&file, "domain: d\ndescriptors:\n  - key: k\n    rate_limit: {unit: eon}\n")
        .expect("written");
    let path = file.to_str().expect("UTF-8");
    let (code, out, err) = run(&["check", path, "examples/quotas/edge.yaml"], &[]);
    assert_eq!((code, out.as_str()), (Some(64), ""));
    let quoted = "  4 |     rate_limit: {unit: eon}\n    |                        ^\n";
    assert_eq!(err, format!("error: {path}:4:24: invalid rate limit unit 'eon'\n{quoted}"));
    let (code, _, err) = run(&["check", "nowhere.yaml"], &[]);
    assert_eq!(code, Some(64));
    assert!(err.starts_with("error: nowhere.yaml: cannot be read: "), "{err}");
}

#[test]
fn check_names_every_fault_of_every_file() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    let one = "domain: one\ndescriptors:\n  - key: a\n    rate_limt: {}\n  - key: b\n    rate_limit: {unit: minuet}\n";
    let two = "domain: two\ndescriptors:\n  - key: c\n    rate_limit: {unit: day, floor: {ingets: 0.1}}\n";
    std::fs::write(path("one.yaml"), one).expect("written");
    std::fs::write(path("two.yaml"), two).expect("written");
    let (code, out, err) = run(&["check", &path("")], &[]);
    assert_eq!((code, out.as_str()), (Some(64), ""));
    for expected in [
        "one.yaml:4:5: config error, unknown key 'rate_limt'\n  4 |     rate_limt: {}\n    |     ^\n  did you mean 'rate_limit'?\n",
        "one.yaml:6:24: invalid rate limit unit 'minuet'\n",
        "  did you mean 'minute'?\n",
        "two.yaml:4:37: priority class 'ingets' is not configured\n",
        "  did you mean 'ingest'?\n",
    ] {
        assert!(err.contains(expected), "{expected}\n{err}");
    }
    assert_eq!(err.matches("error: ").count(), 3, "{err}");
    let (code, out, err) = run(&["check", &path(""), "--format", "github"], &[]);
    assert_eq!((code, err.as_str()), (Some(64), ""));
    assert!(
        out.contains(
            "two.yaml,line=4,col=37::priority class 'ingets' is not configured; did you mean"
        ),
        "{out}"
    );
    let (_, out, _) = run(&["check", &path(""), "--format", "gitlab"], &[]);
    let report: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(report.as_array().map(Vec::len), Some(3));
    let (code, out, _) = run(&["check", "examples/quotas/edge.yaml", "--format", "gitlab"], &[]);
    assert_eq!((code, out.as_str()), (Some(0), "[]\n"));
}

#[test]
fn a_domain_that_two_files_have_is_shown_where_it_stands() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    for name in ["a.yaml", "b.yaml"] {
        std::fs::write(path(name), "# quotas\ndomain: d\ndescriptors: []\n").expect("written");
    }
    let (code, _, err) = run(&["check", &path("")], &[]);
    let place = path("b.yaml");
    let expected =
        format!("error: {place}:2:1: duplicate domain 'd' in config file\n  2 | domain: d\n");
    assert!(code == Some(64) && err.starts_with(&expected), "{err}");
}

#[test]
fn explain_guesses_what_a_slip_was_meant_to_be() {
    let file = "examples/quotas/edge.yaml";
    for (descriptor, expected) in [
        ("tenant=a,priority=ingset", "one that does not exist; did you mean 'ingest'?\n"),
        ("tenat=a", "  no rule begins with the key 'tenat'; did you mean 'tenant'?\n"),
    ] {
        let arguments = ["explain", file, "--domain", "edge", "--descriptor", descriptor];
        let (code, out, _) = run(&arguments, &[]);
        assert!(code == Some(0) && out.contains(expected), "{out}");
    }
    let arguments = ["explain", file, "--domain", "edge", "--descriptor", "tenant=a,other=b"];
    let (_, out, _) = run(&arguments, &[]);
    assert!(!out.contains("did you mean"), "{out}");
}

#[test]
fn shells_complete_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, err) = run(&["completions", shell], &[]);
        assert_eq!((code, err.as_str()), (Some(0), ""));
        for word in ["explain", "simulate", "descriptor"] {
            assert!(out.contains(word), "{shell} {word}");
        }
    }
}

#[test]
fn explain_takes_the_only_domain_and_json() {
    let file = "examples/quotas/edge.yaml";
    let (code, out, err) = run(&["explain", file, "--descriptor", "tenant=demo"], &[]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.contains("rule tenant_demo at edge.yaml:9"), "{out}");
    let two = "examples/quotas/algorithms.yaml";
    let (code, _, err) = run(&["explain", file, two, "--descriptor", "tenant=demo"], &[]);
    let expected = "error: give --domain, one of algorithms, edge\n";
    assert_eq!((code, err.as_str()), (Some(64), expected));
    let request = tempfile::NamedTempFile::new().expect("a file");
    let text =
        r#"{"domain": "edge", "descriptors": [{"entries": [{"key": "tenant", "value": "demo"}]}]}"#;
    std::fs::write(request.path(), text).expect("written");
    let path = request.path().to_str().expect("UTF-8");
    let (code, again, err) = run(&["explain", file, "--json", path], &[]);
    // But for the second in which it was asked.
    let timeless = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with("  window ends in "));
        lines.map(str::to_owned).collect()
    };
    assert_eq!((code, err.as_str(), timeless(&again)), (Some(0), "", timeless(&out)));
    std::fs::write(request.path(), r#"{"domains": 1}"#).expect("written");
    let (code, _, err) = run(&["explain", file, "--json", path], &[]);
    assert!(code == Some(64) && err.contains("not a rate limit request: unknown field"), "{err}");
}

#[test]
fn explain_says_which_rule_and_why() {
    let file = "examples/quotas/edge.yaml";
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
fn explain_decides_as_the_service_with_this_environment_would() {
    let explain = |environment: &[(&str, &str)]| {
        let demo = "tenant=demo,priority=background";
        let file = "examples/quotas/edge.yaml";
        let arguments = ["explain", file, "--domain", "edge", "--descriptor", demo];
        run(&arguments, environment)
    };
    let (_, ours, _) = explain(&[]);
    assert!(ours.contains("  counter {4:edge6:tenant4:demo}|m"), "{ours}");
    assert!(
        ours.contains("the class may take what the 3 classes above it will not need"),
        "{ours}"
    );
    assert!(!ours.contains("quota mode") && !ours.contains("SHADOW_MODE"), "{ours}");

    let reference = [("REDIS_KEY_FORMAT", "reference"), ("CACHE_KEY_PREFIX", "pre:")];
    let (_, theirs, _) = explain(&reference);
    assert!(theirs.contains("  counter pre:edge_tenant_demo_"), "{theirs}");
    assert!(!theirs.contains("the class may take"), "{theirs}");

    let (_, modes, _) = explain(&[("QUOTA_MODE", "true"), ("SHADOW_MODE", "true")]);
    assert!(modes.contains(", quota mode: refuses only when all quota limits are over"), "{modes}");
    assert!(modes.contains("SHADOW_MODE: nothing is refused\n"), "{modes}");

    let (code, out, err) = explain(&[("REDIS_KEY_FORMAT", "mine")]);
    let expected = "error: REDIS_KEY_FORMAT='mine': must be tidegate or reference\n";
    assert_eq!((code, out.as_str(), err.as_str()), (Some(64), "", expected));
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

#[test]
fn diff_tells_changes_by_its_exit_code() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    let write = |name: &str, text: &str| std::fs::write(path(name), text).expect("written");
    let example = std::fs::read_to_string("examples/quotas/edge.yaml").expect("the example");
    std::fs::create_dir(path("new")).expect("created");
    write("new/edge.yaml", &example);
    write("new/.edge.yaml.swp", "not: [yaml");
    let (code, out, err) = run(&["diff", "examples/quotas/edge.yaml", &path("new")], &[]);
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "", ""));

    write("new/edge.yaml", &example.replace("requests_per_unit: 3", "requests_per_unit: 2"));
    let (code, out, err) = run(&["diff", "examples/quotas/edge.yaml", &path("new")], &[]);
    let line =
        "lowered edge tenant=demo: 3 per minute -> 2 per minute (edge.yaml:9 -> edge.yaml:9)\n";
    assert_eq!((code, out.as_str(), err.as_str()), (Some(1), line, ""));
    let github = ["diff", "examples/quotas/edge.yaml", &path("new"), "--format", "github"];
    let (code, out, _) = run(&github, &[]);
    let start = format!(
        "::warning file={},line=9,col=1::lowered edge tenant=demo: ",
        path("new/edge.yaml")
    );
    assert!(code == Some(1) && out.starts_with(&start), "{out}");

    // Every fault of every file, as `check` names them.
    write("bad.yaml", "domain: d\nnope: 1\ndescriptors: [{key: k, rate_limit: {unit: minut}}]\n");
    write("worse.yaml", "domain: d\ndescriptors: [{value: v}]\n");
    let (bad, worse) = (path("bad.yaml"), path("worse.yaml"));
    let traffic = path("none");
    let simulate = ["simulate", "--quotas", &bad, "--against", &worse, "--traffic", &traffic];
    for arguments in [&["diff", bad.as_str(), worse.as_str()][..], &simulate] {
        let (code, out, err) = run(arguments, &[]);
        assert_eq!((code, out.as_str()), (Some(64), ""), "{arguments:?}");
        for fault in [
            format!("error: {bad}:2:1: config error, unknown key 'nope'\n  2 | nope: 1\n"),
            format!("error: {bad}:3:43: invalid rate limit unit 'minut'"),
            "did you mean 'minute'?".to_owned(),
            format!("error: {worse}:2:15: descriptor has empty key"),
        ] {
            assert!(err.contains(&fault), "{fault}\n{err}");
        }
    }
    std::fs::create_dir(path("empty")).expect("created");
    let (code, _, err) = run(&["diff", &path("empty"), "examples/quotas/edge.yaml"], &[]);
    let expected = format!("error: {}: holds no quota files\n", path("empty"));
    assert_eq!((code, err), (Some(64), expected));
}

const CALLED: &str = "
domain: edge
descriptors:
  - key: tenant
    rate_limit: {unit: year, requests_per_unit: 3, name: per-tenant}
";

#[tokio::test(flavor = "multi_thread")]
async fn call_shows_the_answer_of_a_running_service() {
    let more = [
        ("LIMIT_RESPONSE_HEADERS_ENABLED", "true".to_owned()),
        ("RESPONSE_DYNAMIC_METADATA", "true".to_owned()),
    ];
    let service = Service::start_with(&[("a.yaml", CALLED)], &more).await;
    let addr = service.addresses.grpc.to_string();
    let call = async |more: &[&str]| {
        let mut arguments = vec!["call", "--addr", &addr, "--domain", "edge"];
        arguments.extend(more);
        let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
        let run = move || run(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
        tokio::task::spawn_blocking(run).await.expect("ran")
    };
    let two = ["--descriptor", "tenant=a,priority=ingest", "--descriptor", "none=b"];
    let (code, out, err) = call(&two).await;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    for expected in [
        "OK\ndescriptor tenant=a,priority=ingest: OK, limit 3 per year 'per-tenant', remaining 2, reset in ",
        "\ndescriptor none=b: OK, no limit\n",
        "\nresponse header RateLimit-Limit: 3\n",
        "\ndynamic metadata {",
        "\"domain\":\"edge\"",
    ] {
        assert!(out.contains(expected), "{expected}\n{out}");
    }
    let admin = service.addresses.debug.to_string();
    let arguments = ["call", "--addr", &addr, "--admin", &admin, "--descriptor", "none=b"];
    let arguments = arguments.map(str::to_owned);
    let only = move || run(&arguments.each_ref().map(String::as_str), &[]);
    let (code, out, err) = tokio::task::spawn_blocking(only).await.expect("ran");
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    let more = ["--descriptor", "tenant=a", "--hits", "3", "--output", "json"];
    let (code, out, _) = call(&more).await;
    assert_eq!(code, Some(2));
    let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(json["overall_code"], "OVER_LIMIT");
    assert_eq!(json["statuses"][0]["code"], "OVER_LIMIT");
    assert_eq!(json["statuses"][0]["limit"]["requests_per_unit"], 3);
    assert_eq!(json["statuses"][0]["limit"]["unit"], "YEAR");
    let (code, _, err) = call(&["--descriptor", "tenant"]).await;
    assert_eq!((code, err.as_str()), (Some(1), "error: 'tenant' is not of the form key=value\n"));
    service.stop().await;
    let nowhere = "unix:/nowhere/grpc.sock";
    let (code, _, err) =
        run(&["call", "--addr", nowhere, "--domain", "edge", "--descriptor", "tenant=a"], &[]);
    assert_eq!(code, Some(1));
    assert!(err.starts_with("error: cannot connect: "), "{err}");
}

const LINTED: &str = "\
admin: {address: {socket_address: {address: 0.0.0.0, port_value: 9901}}}
static_resources:
  listeners:
    - filter_chains:
        - filters:
            - name: http
              typed_config:
                \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                access_log:
                  - name: stdout
                    typed_config:
                      \"@type\": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog
";

#[test]
fn lint_envoy_names_the_place_and_can_be_silenced() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = dir.path().join("envoy.yaml");
    std::fs::write(&file, LINTED).expect("written");
    let path = file.to_str().expect("UTF-8");
    let (code, out, err) = run(&["lint-envoy", path], &[]);
    assert_eq!((code, err.as_str()), (Some(1), ""));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 2, "{out}");
    let admin = format!("error: {path}:1:45: admin-not-on-loopback: 0.0.0.0: whoever reaches ");
    assert!(lines[0].starts_with(&admin) && lines[0].contains("; bind it to 127.0.0.1"), "{out}");
    let log = format!("error: {path}:12:23: query-in-access-log: the default format: ");
    assert!(lines[1].starts_with(&log), "{out}");

    let (code, out, _) = run(&["lint-envoy", path, "--format", "json"], &[]);
    let found: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, found.as_array().map(Vec::len)), (Some(1), Some(2)));
    let first = &found[0];
    assert_eq!((first["line"].as_u64(), first["column"].as_u64()), (Some(1), Some(45)));
    assert_eq!(first["rule"], "admin-not-on-loopback");
    assert_eq!((&first["severity"], &first["file"]), (&"error".into(), &path.into()));

    let allowed = ["--allow", "query-in-access-log", "--allow", "admin-not-on-loopback"];
    let (code, out, err) = run(&[&["lint-envoy", path][..], &allowed].concat(), &[]);
    let ok = format!("ok: {path} has 1 HTTP connection managers, 0 warnings\n");
    assert_eq!((code, out, err.as_str()), (Some(0), ok, ""));
}

#[test]
fn lint_envoy_exits_64_on_what_it_cannot_read() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = dir.path().join("envoy.yaml");
    let path = file.to_str().expect("UTF-8");
    let error = |text: &str| {
        std::fs::write(&file, text).expect("written");
        let (code, out, err) = run(&["lint-envoy", path], &[]);
        assert_eq!((code, out.as_str()), (Some(64), ""), "{text}");
        err
    };
    let none = format!("error: {path}: has no listener with an HTTP connection manager\n");
    assert_eq!(error("a: 1\n"), none);
    assert!(error("static_resources: {\n").starts_with(&format!("error: {path}:")));
    let (code, _, err) = run(&["lint-envoy", "nowhere.yaml"], &[]);
    assert!(code == Some(64) && err.starts_with("error: nowhere.yaml: cannot be read: "), "{err}");
    let (code, _, err) = run(&["lint-envoy", path, "--allow", "no-such-rule"], &[]);
    assert!(code == Some(64) && err.contains("no-such-rule"), "{err}");
    let (code, _, _) = run(&["lint-envoy"], &[]);
    assert_eq!(code, Some(64));
}
