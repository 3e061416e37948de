//! Tests of `gateway`: the rules of tenants.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::*;

/// A gateway that follows a directory with these files.
async fn with_rules(files: &[(&str, &str)]) -> (Running, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    files.iter().for_each(|(name, text)| write(directory.path(), name, text));
    let path = directory.path().to_owned();
    (start_with(|config| config.rules_directory = Some(path)).await, directory)
}

fn write(directory: &Path, name: &str, text: &str) {
    fs::write(directory.join(name), text).expect("written");
}

impl Running {
    async fn shown_rules(&self) -> serde_json::Value {
        let uri = format!("http://{}/config", self.admin_address);
        let request = Request::get(uri).body(Body::empty()).expect("a request");
        self.send(request).await.json()["tenant_rules"].take()
    }

    async fn write_as(&self, tenant: &str, path: &str, body: &'static str) -> Answer {
        let request = Request::post(format!("http://{}{path}", self.address))
            .header("x-tidegate-tenant", tenant)
            .body(body.into());
        self.send(request.expect("a request")).await
    }
}

/// Waits until a write of acme is answered like this.
async fn until(gateway: &Running, path: &str, body: &'static str, status: StatusCode) {
    for _ in 0..400 {
        if gateway.write_as("acme", path, body).await.status == status {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{body} is never answered {status}");
}

#[tokio::test]
async fn a_rule_refuses_points_by_name_and_their_neighbours_are_stored() {
    let rules = "tenants: {acme: {labels_max: 1, series_max: 2, past_max: 1h}}";
    let (gateway, _directory) = with_rules(&[("a.yaml", rules)]).await;
    // The lines are alike, so that none may be taken for known and go past the rules.
    let body = "m,a=1 v=1\nm,a=2 v=1\nm,a=1,b=1 v=1\nm,a=1 v=1 5\nm,a=3 v=1\nm,a=2 v=2\n";
    let answer = gateway.write_as("acme", "/write", body).await;
    assert_eq!((answer.status, answer.header("x-tidegate-points")), (StatusCode::BAD_REQUEST, "3"));
    let error = answer.json()["error"].as_str().expect("text").to_owned();
    for part in [
        "3 of 6 lines not stored",
        "line 3: more tags than the rules of the tenant allow: measurement \"m\" has 2, at most 1",
        "line 4: point is older than the rules of the tenant allow: measurement \"m\" is ",
        "line 5: new series beyond the limit of the tenant: measurement \"m\", at most 2",
    ] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(gateway.journal.lines().len(), 3);
    let other = gateway.write_as("bolt", "/write", body).await;
    assert_eq!(other.status, StatusCode::NO_CONTENT, "another tenant has no rules");
    let shown = gateway.shown_rules().await;
    let acme = &shown["tenants"]["acme"];
    assert_eq!((&acme["series"], &acme["rules"]["series_max"]), (&json!(2), &json!(2)));
    let refused = json!({"labels_too_many": 1, "series_too_many": 1, "too_old": 1});
    assert_eq!(acme["refused"], refused);
    let metrics = gateway.metrics().await;
    let line = "ingest_gateway_rules_points_refused_total{tenant=\"acme\",reason=\"too_old\"} 1";
    assert!(metrics.contains(line), "{metrics}");
}

#[tokio::test]
async fn files_are_followed_and_a_bad_one_changes_nothing_and_is_named() {
    let (gateway, directory) = with_rules(&[("a.yaml", "default: {labels_max: 1}")]).await;
    assert!(gateway.readiness.is_ready());
    let body = "m,a=1,b=2 v=1\n";
    until(&gateway, "/write", body, StatusCode::BAD_REQUEST).await;
    write(directory.path(), "a.yaml", "default: {labels_max: 2}");
    until(&gateway, "/write", body, StatusCode::NO_CONTENT).await;
    write(directory.path(), "a.yaml", "default: {labels_max: 0}");
    write(directory.path(), "b.yaml", "tenants: {acme: {labels_max: 1}}");
    until(&gateway, "/write", body, StatusCode::BAD_REQUEST).await;
    assert_eq!(gateway.write_as("bolt", "/write", body).await.status, StatusCode::NO_CONTENT);
    let shown = gateway.shown_rules().await;
    let error = shown["errors"][0].as_str().expect("an error");
    assert!(error.ends_with("labels_max is 0, not between 1 and 98"), "{error}");
    assert!(gateway.readiness.is_ready());
    let warnings = gateway.readiness.warnings();
    assert!(warnings[0].starts_with("tenant rules: ") && warnings[0].contains("a.yaml:1:"));
    assert!(gateway.metrics().await.contains("ingest_gateway_rules_files_refused 1"));
    fs::remove_file(directory.path().join("a.yaml")).expect("removed");
    fs::remove_file(directory.path().join("b.yaml")).expect("removed");
    let is_told = || gateway.readiness.warnings().iter().any(|told| told.contains("no files of"));
    for _ in 0..400 {
        if is_told() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert!(is_told());
    until(&gateway, "/write", body, StatusCode::BAD_REQUEST).await;
}

#[tokio::test]
async fn a_gateway_whose_rules_were_never_good_is_not_ready() {
    let (gateway, directory) = with_rules(&[("a.yaml", "default: {label_max: 1}")]).await;
    assert!(gateway.readiness.blockers()[0].contains("a.yaml:1:"));
    write(directory.path(), "a.yaml", "{}");
    let mut ready = gateway.readiness.subscribe();
    ready.wait_for(|ready| *ready).await.expect("followed");
}

#[tokio::test]
async fn a_database_and_an_organization_become_what_the_rules_say() {
    let rules = "tenants:\n  acme: {database: '{organization}', database_tag: db, organization_tag: org}\n\
                 \x20 bolt: {database: ''}\n";
    let (gateway, _directory) = with_rules(&[("a.yaml", rules)]).await;
    let path = "/api/v2/write?bucket=app&org=ops";
    let answer = gateway.write_as("acme", path, "m v=1 1\nm,x=y v=1 1\n").await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text());
    gateway.write_as("bolt", path, "m v=1 2").await;
    gateway.write_as("other", path, "m v=1 3").await;
    let databases = gateway.journal.records();
    let databases = |tenant: &str| {
        let mut found: Vec<&str> = databases
            .iter()
            .filter(|record| record.tenant == tenant)
            .map(|record| &*record.database)
            .collect();
        found.dedup();
        found
    };
    assert_eq!(databases("acme"), ["ops"]);
    assert_eq!(databases("bolt"), [""]);
    assert_eq!(databases("other"), ["app"]);
    let expected =
        ["m v=1.0 2", "m v=1.0 3", "m,db=app,org=ops v=1.0 1", "m,db=app,org=ops,x=y v=1.0 1"];
    assert_eq!(gateway.journal.lines(), expected);

    let request = gateway.request(Method::POST, "/write").header("x-scope-orgid", "teams");
    gateway.send(request.body("n v=1 4".into()).expect("a request")).await;
    assert_eq!(gateway.journal.records().last().map(|record| &*record.database), Some("teams"));
    let request = gateway.request(Method::POST, "/write").header("x-scope-orgid", "x".repeat(129));
    let answer = gateway.send(request.body("n v=1 5".into()).expect("a request")).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let twice = gateway.write_as("acme", path, "m,db=own v=1 1").await;
    assert!(twice.text().contains("tag key appears twice"), "a label of the client is not lost");
}

#[tokio::test]
async fn types_are_converted_refused_or_left_to_the_database() {
    let rules = "tenants: {acme: {field_types: refuse}, bolt: {field_types: off}}";
    let (gateway, _directory) = with_rules(&[("a.yaml", rules)]).await;
    for (tenant, status) in [
        ("acme", StatusCode::BAD_REQUEST),
        ("bolt", StatusCode::NO_CONTENT),
        ("other", StatusCode::NO_CONTENT),
    ] {
        gateway.write_as(tenant, "/write", "m v=1 1").await;
        assert_eq!(gateway.write_as(tenant, "/write", "m v=2i 2").await.status, status, "{tenant}");
    }
    let expected = ["m v=1.0 1", "m v=1.0 1", "m v=1.0 1", "m v=2.0 2", "m v=2i 2"];
    assert_eq!(gateway.journal.lines(), expected);
}

#[tokio::test]
async fn sizes_units_and_temporalities_of_a_tenant() {
    let rules =
        "default: {request_bytes_max: 2KiB, otlp_unit: suffix, otlp_temporality: cumulative}";
    let (gateway, _directory) = with_rules(&[("a.yaml", rules)]).await;
    let sum = |temporality: u8, time: u8| {
        let metric = format!(
            r#"{{"name":"io","unit":"By","sum":{{"aggregationTemporality":{temporality},"dataPoints":[{{"asInt":1,"timeUnixNano":{time}}}]}}}}"#
        );
        format!(r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{metric}]}}]}}]}}"#)
    };
    for (temporality, points) in [(2, "1"), (1, "0")] {
        let request = gateway.request(Method::POST, "/v1/metrics");
        let request = request.header("content-type", "application/json");
        let body = sum(temporality, temporality);
        let answer = gateway.send(request.body(body.into()).expect("a request")).await;
        assert_eq!((answer.status, answer.header("x-tidegate-points")), (StatusCode::OK, points));
        let refused = "aggregation temporality is not the one that the rules of the tenant take";
        assert_eq!(answer.text().contains(refused), points == "0", "{}", answer.text());
    }
    assert_eq!(gateway.journal.lines(), ["io_bytes gauge=1.0 2"]);
    let answer = gateway.post("/write", "x".repeat(3000)).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(answer.text().contains("2048 bytes after decompression"), "{}", answer.text());
}

/// A gauge `m` with a point for each of these values of its attribute `k`, all at one time.
fn gauge_by(values: &[&str]) -> String {
    let point = |value: &&str| {
        format!(r#"{{"asInt":1,"timeUnixNano":1,"attributes":[{{"key":"k","value":{value}}}]}}"#)
    };
    let points: Vec<String> = values.iter().map(point).collect();
    let gauge = format!(r#"{{"name":"m","gauge":{{"dataPoints":[{}]}}}}"#, points.join(","));
    format!(r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{gauge}]}}]}}]}}"#)
}

async fn send_gauge(gateway: &Running, tenant: &str, values: &[&str]) {
    let request = Request::post(format!("http://{}/v1/metrics", gateway.address))
        .header("x-tidegate-tenant", tenant)
        .header("content-type", "application/json")
        .body(gauge_by(values).into());
    let answer = gateway.send(request.expect("a request")).await;
    assert_eq!(answer.header("x-tidegate-points"), values.len().to_string(), "{}", answer.text());
}

const VALUES: [&str; 8] = [
    r#"{"stringValue":"1"}"#,
    r#"{"intValue":1}"#,
    r#"{"doubleValue":1}"#,
    r#"{"stringValue":"int:1"}"#,
    r#"{"boolValue":true}"#,
    r#"{"bytesValue":"AQ=="}"#,
    r#"{"arrayValue":{"values":[{"intValue":1}]}}"#,
    r#"{"stringValue":"GET"}"#,
];

fn gauges(values: &[&str]) -> Vec<String> {
    let mut lines: Vec<String> =
        values.iter().map(|value| format!("m,k={value} gauge=1.0 1")).collect();
    lines.sort();
    lines
}

#[tokio::test]
async fn attributes_say_their_type_where_the_rules_say_so() {
    let rules = "tenants: {acme: {otlp_attributes: typed}, bolt: {otlp_attributes: plain}}";
    let (gateway, _directory) = with_rules(&[("a.yaml", rules)]).await;
    send_gauge(&gateway, "acme", &VALUES).await;
    let typed =
        ["1", "bool:true", "bytes:01", "double:1", "int:1", "json:[1]", "string:int:1", "GET"];
    assert_eq!(gateway.journal.lines(), gauges(&typed));
    gateway.journal.records.lock().expect("no panic").clear();
    send_gauge(&gateway, "bolt", &VALUES).await;
    let plain = ["1", "1", "1", "int:1", "true", "01", "[1]", "GET"];
    assert_eq!(gateway.journal.lines(), gauges(&plain), "as they are, and three are one series");
}

#[tokio::test]
async fn attributes_that_differ_in_their_type_alone_stay_two_series() {
    let gateway = start().await;
    // The first kind of value keeps its plain form, whichever it is, in one request and in several.
    send_gauge(&gateway, "acme", &VALUES).await;
    for value in VALUES.iter().rev() {
        send_gauge(&gateway, "bolt", &[value]).await;
    }
    let stored = |tenant: &str| {
        let records = gateway.journal.records();
        let of = records.into_iter().filter(|record| record.tenant == tenant);
        lines_of(&of.collect::<Vec<_>>())
    };
    let text_first =
        ["1", "int:1", "double:1", "string:int:1", "bool:true", "bytes:01", "json:[1]", "GET"];
    assert_eq!(stored("acme"), gauges(&text_first));
    let list_first =
        ["string:1", "int:1", "double:1", "string:int:1", "bool:true", "01", "[1]", "GET"];
    assert_eq!(stored("bolt"), gauges(&list_first));
    // And again, the other way about: the same series.
    send_gauge(&gateway, "acme", &[VALUES[1], VALUES[0]]).await;
    let mut distinct = stored("acme");
    assert_eq!(distinct.len(), 10);
    distinct.dedup();
    assert_eq!(distinct, gauges(&text_first));
}

#[tokio::test]
async fn a_unit_is_a_tag_and_takes_the_place_of_no_attribute() {
    let (gateway, _directory) = with_rules(&[("a.yaml", "default: {otlp_unit: tag}")]).await;
    let points = r#"{"asInt":1,"timeUnixNano":1},
        {"asInt":2,"timeUnixNano":1,"attributes":[{"key":"unit","value":{"stringValue":"x"}}]}"#;
    let gauge = format!(r#"{{"name":"m","unit":"By","gauge":{{"dataPoints":[{points}]}}}}"#);
    let body = format!(r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{gauge}]}}]}}]}}"#);
    let request = gateway.request(Method::POST, "/v1/metrics");
    let request = request.header("content-type", "application/json");
    let answer = gateway.send(request.body(body.into()).expect("a request")).await;
    assert!(answer.text().contains("data point 2: tag key appears twice"), "{}", answer.text());
    assert_eq!(gateway.journal.lines(), ["m,unit=By gauge=1.0 1"]);
}

#[tokio::test]
async fn what_a_rule_refuses_is_named_and_counted_whatever_it_is() {
    let rules =
        "tenants: {acme: {database_tag: db, otlp_temporality: delta, request_bytes_max: 200B}}";
    let (gateway, _directory) = with_rules(&[("a.yaml", rules)]).await;
    let answer = gateway.write_as("acme", "/api/v3/write_lp?db=app", "m,db=x f=1 1\n").await.json();
    assert_eq!(answer["data"][0]["original_line"], "m,db=x f=1 1");
    let why = "tag key appears twice: tag \"db\" on measurement \"m\" is one that the rules of the \
               tenant add";
    assert_eq!(answer["data"][0]["error_message"], why);
    let sum = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"m","sum":
        {"aggregationTemporality":2,"dataPoints":[{"asInt":1}]}}]}]}]}"#;
    let post = |body: String| {
        let request = Request::post(format!("http://{}/v1/metrics", gateway.address))
            .header("x-tidegate-tenant", "acme")
            .header("content-type", "application/json");
        gateway.send(request.body(body.into()).expect("a request"))
    };
    let answer = post(sum.to_owned()).await.json();
    let message = answer["partialSuccess"]["errorMessage"].as_str().expect("text").to_owned();
    assert!(message.ends_with("tenant take: measurement \"m\""), "{message}");
    let answer = post(" ".repeat(201)).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    gateway.write_as("acme", "/write", "t f=1i\nt f=2.5\n").await;
    let shown = gateway.shown_rules().await["tenants"]["acme"].take();
    assert_eq!(shown["refused"], json!({"temporality_refused": 1, "type_conflict": 1}));
    assert_eq!(shown["requests_too_large"], 1);
}
