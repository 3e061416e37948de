//! Tests of `gateway`: influx.

use serde_json::json;

use super::*;

const WRITE_PATHS: [&str; 3] = ["/write", "/api/v2/write", "/api/v3/write_lp"];

#[tokio::test]
async fn a_write_is_answered_when_the_journal_has_it() {
    let gateway = start().await;
    for (index, path) in WRITE_PATHS.iter().enumerate() {
        let body = format!("cpu,host=a v=1i {index}\ncpu,host=b v=2i {index}\n");
        let answer = gateway.post(&format!("{path}?precision=ns&db=x&bucket=y"), body).await;
        assert_eq!(
            (answer.status, answer.header("x-tidegate-points")),
            (StatusCode::NO_CONTENT, "2")
        );
        assert!(answer.body.is_empty());
    }
    assert_eq!(
        gateway.journal.lines(),
        [
            "cpu,host=a v=1i 0",
            "cpu,host=a v=1i 1",
            "cpu,host=a v=1i 2",
            "cpu,host=b v=2i 0",
            "cpu,host=b v=2i 1",
            "cpu,host=b v=2i 2",
        ]
    );
    let metrics = gateway.metrics().await;
    for line in [
        r#"ingest_gateway_requests_total{protocol="influx_v1",outcome="stored"} 1"#,
        r#"ingest_gateway_points_stored_total{protocol="influx_v3"} 2"#,
        r#"ingest_gateway_wire_bytes_total{protocol="influx_v2"} 36"#,
        "ingest_gateway_append_duration_seconds_count 3",
        "ingest_gateway_in_flight_bytes 0",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

#[tokio::test]
async fn nothing_is_answered_before_the_journal_has_it() {
    let gateway = start().await;
    gateway.journal.hold();
    let mut waiting = gateway.journal.waiting.subscribe();
    let mut write = std::pin::pin!(gateway.post("/write", "m f=1 1"));
    tokio::select! {
        answer = &mut write => panic!("answered {} before the append", answer.status),
        arrived = waiting.wait_for(|waiting| *waiting == 1) => drop(arrived.expect("alive")),
    }
    assert!(gateway.journal.records().is_empty());
    gateway.journal.release();
    assert_eq!(write.await.status, StatusCode::NO_CONTENT);
    assert_eq!(gateway.journal.records().len(), 1);
}

#[tokio::test]
async fn bad_lines_are_named_and_good_ones_stored() {
    let gateway = start().await;
    let body = "a f=1i 1\nb f=one 2\nc f=3i 3\nd 4\n";
    let message = "partial write: 2 of 4 lines not stored: line 2 byte 5: field value is missing \
                   or not a number, string or boolean; line 4 byte 4: field value is missing or \
                   not a number, string or boolean";

    let v1 = gateway.post("/write", body).await;
    assert_eq!((v1.status, v1.header("x-tidegate-points")), (StatusCode::BAD_REQUEST, "2"));
    assert_eq!(v1.json(), json!({"error": message}));
    assert_eq!(v1.header("x-influxdb-error"), message);
    assert_eq!(v1.header("content-type"), "application/json");

    let v2 = gateway.post("/api/v2/write", body).await;
    assert_eq!((v2.status, v2.header("x-tidegate-points")), (StatusCode::BAD_REQUEST, "2"));
    assert_eq!(v2.json(), json!({"code": "invalid", "message": message}));

    let v3 = gateway.post("/api/v3/write_lp?precision=nanosecond", body).await;
    assert_eq!((v3.status, v3.header("x-influxdb-error")), (StatusCode::BAD_REQUEST, message));
    let fault = "field value is missing or not a number, string or boolean";
    assert_eq!(
        v3.json(),
        json!({"error": message, "data": [
            {"original_line": "b f=one 2", "line_number": 2, "error_message": fault},
            {"original_line": "d 4", "line_number": 4, "error_message": fault},
        ]})
    );
    let good = ["a f=1i 1", "c f=3i 3"];
    assert_eq!(gateway.journal.lines(), [[good[0]; 3], [good[1]; 3]].concat());

    let none = gateway.post("/api/v3/write_lp?accept_partial=false", body).await;
    assert_eq!((none.status, none.header("x-tidegate-points")), (StatusCode::BAD_REQUEST, "0"));
    let all = "unable to parse: 4 of 4 lines not stored, 2 of them bad: line 2 byte 5: ";
    assert!(none.text().contains(all), "{}", none.text());
    assert_eq!(gateway.journal.lines().len(), 6);
    let metrics = gateway.metrics().await;
    let line = r#"ingest_gateway_points_rejected_total{protocol="influx_v1",reason="field_value_invalid"} 2"#;
    assert!(metrics.contains(line), "{metrics}");
}

#[tokio::test]
async fn a_body_of_nothing_but_bad_lines() {
    let gateway = start().await;
    let body = "x\n".repeat(5000);
    let answer = gateway.post("/write", body).await;
    assert_eq!((answer.status, answer.header("x-tidegate-points")), (StatusCode::BAD_REQUEST, "0"));
    let error = answer.json()["error"].as_str().expect("a message").to_owned();
    assert!(
        error.starts_with("unable to parse: 5000 of 5000 lines not stored: line 1 byte 2: "),
        "{error}"
    );
    assert!(error.ends_with("; line 100 byte 2: field set is missing; and 4900 more"), "{error}");
    assert!(answer.body.len() < 16 << 10 && answer.header("x-influxdb-error").len() == 1024);
    assert!(gateway.journal.records().is_empty());
}

#[tokio::test]
async fn one_bad_line_of_five_thousand() {
    let gateway = start().await;
    let line = |i: usize| if i == 2500 { "bad\n".into() } else { format!("m,i={i} f=1i 1\n") };
    let body: String = (0..5000).map(line).collect();
    let answer = gateway.post("/write", body).await;
    assert_eq!(
        (answer.status, answer.header("x-tidegate-points")),
        (StatusCode::BAD_REQUEST, "4999")
    );
    assert_eq!(gateway.journal.lines().len(), 4999);
    assert!(answer.text().contains("line 2501 byte 4"), "{}", answer.text());
}

#[tokio::test]
async fn an_empty_body_stores_nothing_and_is_no_error() {
    let gateway = start().await;
    for path in WRITE_PATHS {
        let answer = gateway.post(path, "\n# nothing\n").await;
        assert_eq!(
            (answer.status, answer.header("x-tidegate-points")),
            (StatusCode::NO_CONTENT, "0")
        );
    }
    assert!(gateway.journal.records().is_empty());
}

#[tokio::test]
async fn timestamps_follow_the_precision_and_are_stamped_once() {
    let gateway = start().await;
    for (path, lines) in [
        ("/write", "a f=1i 7"),
        ("/write?precision=s", "b f=1i 7"),
        ("/write?precision=us", "c f=1i 7"),
        ("/api/v2/write?precision=ms", "d f=1i 7"),
        ("/api/v3/write_lp", "e f=1i 1700000000000"),
        ("/write?precision=h", "f f=1i"),
    ] {
        assert_eq!(gateway.post(path, lines).await.status, StatusCode::NO_CONTENT, "{path}");
    }
    let lines = gateway.journal.lines();
    assert_eq!(
        lines[..5],
        [
            "a f=1i 7",
            "b f=1i 7000000000",
            "c f=1i 7000",
            "d f=1i 7000000",
            "e f=1i 1700000000000000000",
        ]
    );
    let stamped = gateway.journal.records()[5].admitted_at_ns;
    assert!(stamped > 1_700_000_000_000_000_000);
    assert_eq!(lines[5], format!("f f=1i {stamped}"));

    let answer = gateway.post("/api/v2/write?precision=fortnight", "a f=1").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.json()["code"], "invalid");
}

#[tokio::test]
async fn who_asks_is_what_envoy_says_and_nothing_else() {
    let gateway = start().await;
    let answer = gateway.post("/write", "m,tenant=other f=1i 1").await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert_eq!(gateway.journal.lines(), ["m,tenant=other f=1i 1"]);
    for (path, tenants, body) in [
        ("/write", &[][..], json!({"error": "the request carries no tenant"})),
        ("/write?tenant=acme", &[], json!({"error": "the request carries no tenant"})),
        ("/write", &["acme", "acme"], json!({"error": "the request carries no tenant"})),
        ("/write", &["a,b"], json!({"error": "the request carries no tenant"})),
        (
            "/api/v2/write",
            &[""],
            json!({"code": "unavailable", "message": "the request carries no tenant"}),
        ),
    ] {
        let mut request = Request::post(format!("http://{}{path}", gateway.address));
        for tenant in tenants {
            request = request.header("x-tidegate-tenant", *tenant);
        }
        let answer = gateway.send(request.body("m f=1 2".into()).expect("a request")).await;
        assert_eq!(answer.json(), body, "{tenants:?}");
        // Only our own wiring can be at fault: agents drop what was answered 401.
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(gateway.journal.records().len(), 1);
}

#[tokio::test]
async fn identity_and_trace_travel_with_the_record() {
    let gateway = start().await;
    let request = gateway
        .request(Method::POST, "/write")
        .header("x-request-id", "req-1")
        .header("traceparent", TRACEPARENT)
        .body("m f=1 1\nm f=2 2".into());
    gateway.send(request.expect("a request")).await;
    let records = gateway.journal.records();
    assert_eq!(records.len(), 1);
    let record = &records[0];
    assert_eq!((record.tenant.as_str(), record.points), ("acme", 2));
    assert!(record.shard < crate::record::SHARDS);
    assert_eq!(record.request_id.as_deref(), Some("req-1"));
    assert_eq!(record.traceparent.as_deref(), Some(TRACEPARENT));
    // The second line is like the first, and is copied.
    assert_eq!(record.body, "m f=1.0 1\nm f=2 2\n");
}

#[tokio::test]
async fn content_types_of_real_clients() {
    let gateway = start().await;
    for kind in [
        "text/plain",
        "text/plain; charset=utf-8",
        "Text/Plain",
        "application/octet-stream",
        "application/x-www-form-urlencoded",
        "",
    ] {
        let request = gateway.request(Method::POST, "/write").header("content-type", kind);
        let answer = gateway.send(request.body("m f=1 1".into()).expect("a request")).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{kind}");
    }
    for kind in ["application/json", "application/x-protobuf", "text/html"] {
        let request = gateway.request(Method::POST, "/write").header("content-type", kind);
        let answer = gateway.send(request.body("m f=1 1".into()).expect("a request")).await;
        let expected = json!({"error": "the content type is not supported, use text/plain"});
        assert_eq!((answer.status, answer.json()), (StatusCode::UNSUPPORTED_MEDIA_TYPE, expected));
    }
    assert_eq!(gateway.journal.records().len(), 6);
}

#[tokio::test]
async fn compressed_bodies() {
    let gateway = start().await;
    let several = [gzip(b"a f=1i 1\n"), gzip(b"b f=1i 1\n")].concat();
    for (encoding, body) in [
        ("gzip", several),
        ("X-GZIP", gzip(b"c f=1i 1\n")),
        ("deflate", zlib(b"d f=1i 1\n")),
        ("identity", b"e f=1i 1\n".to_vec()),
        ("gzip", Vec::new()),
    ] {
        let request = gateway.request(Method::POST, "/write").header("content-encoding", encoding);
        let answer = gateway.send(request.body(body.into()).expect("a request")).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{encoding}");
    }
    let stored: Vec<String> = gateway.journal.lines().iter().map(|line| line[..1].into()).collect();
    assert_eq!(stored, ["a", "b", "c", "d", "e"]);

    let whole = gzip(&b"m f=1i 1\n".repeat(1000));
    for (encoding, body, status) in [
        ("gzip", b"m f=1 1".to_vec(), StatusCode::BAD_REQUEST),
        ("gzip", whole[..whole.len() - 4].to_vec(), StatusCode::BAD_REQUEST),
        ("gzip", whole[..20].to_vec(), StatusCode::BAD_REQUEST),
        ("deflate", whole.clone(), StatusCode::BAD_REQUEST),
        ("deflate", zlib(b"m f=1 1")[..8].to_vec(), StatusCode::BAD_REQUEST),
        ("br", b"m f=1 1".to_vec(), StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("gzip, gzip", whole.clone(), StatusCode::UNSUPPORTED_MEDIA_TYPE),
    ] {
        let request = gateway.request(Method::POST, "/write").header("content-encoding", encoding);
        let answer = gateway.send(request.body(body.into()).expect("a request")).await;
        assert_eq!(answer.status, status, "{encoding}: {}", answer.text());
    }
    assert_eq!(gateway.journal.lines().len(), 5);
}

#[tokio::test]
async fn a_journal_that_is_down_is_503_with_retry_after() {
    let gateway = start().await;
    gateway.journal.fail_for(Duration::from_millis(2500));
    let text = "the points could not be stored now, try again";
    for (path, body) in [
        ("/write", json!({"error": text})),
        ("/api/v2/write", json!({"code": "unavailable", "message": text})),
        ("/api/v3/write_lp", json!({"error": text})),
    ] {
        let answer = gateway.post(path, "m f=1 1\nbad\n").await;
        assert_eq!((answer.status, answer.json()), (StatusCode::SERVICE_UNAVAILABLE, body));
        assert_eq!(answer.header("retry-after"), "3");
        assert_eq!(answer.header("x-tidegate-points"), "0");
    }
}

#[tokio::test]
async fn pages_around_the_writes() {
    let gateway = start().await;
    for method in [Method::GET, Method::HEAD] {
        let request =
            Request::builder().method(method).uri(format!("http://{}/ping", gateway.address));
        let answer = gateway.send(request.body(Body::empty()).expect("a request")).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
        assert!(!answer.header("x-influxdb-version").is_empty());
    }
    let health = gateway.get("/health").await;
    assert_eq!((health.status, &health.json()["status"]), (StatusCode::OK, &json!("pass")));

    let created = json!({"results": [{"statement_id": 0}]});
    let query = gateway.get("/query?q=CREATE+DATABASE+%22telegraf%22").await;
    assert_eq!((query.status, query.json()), (StatusCode::OK, created.clone()));
    let form = gateway
        .request(Method::POST, "/query")
        .header("content-type", "application/x-www-form-urlencoded")
        .body("q=CREATE%20DATABASE%20%22telegraf%22".into());
    let query = gateway.send(form.expect("a request")).await;
    assert_eq!((query.status, query.json()), (StatusCode::OK, created));
    for path in ["/query?q=SELECT+1", "/query", "/query?q=CREATE+DATABASE+a;+DROP+DATABASE+a"] {
        assert_eq!(gateway.get(path).await.status, StatusCode::BAD_REQUEST, "{path}");
    }

    let nowhere = gateway.get("/nowhere").await;
    assert_eq!(nowhere.status, StatusCode::NOT_FOUND);
    assert!(nowhere.text().contains("nothing is served at this path"), "{}", nowhere.text());
    let get = gateway.get("/write").await;
    assert_eq!((get.status, get.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "POST"));
}

#[tokio::test]
async fn unsigned_integers_are_refused_unless_configured() {
    let gateway = start().await;
    let answer = gateway.post("/write", "m f=1u 1").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.text().contains("unsigned integers are not accepted"), "{}", answer.text());
    let gateway = start_with(|config| config.accept_unsigned = true).await;
    assert_eq!(gateway.post("/write", "m f=1u 1").await.status, StatusCode::NO_CONTENT);
    assert_eq!(gateway.journal.lines(), ["m f=1u 1"]);
}

#[tokio::test]
async fn a_refusal_is_not_much_longer_than_what_it_is_about() {
    let gateway = start().await;
    let body = [&b"m f=\x01"[..], &[1; 300], b"\n"].concat().repeat(200);
    let answer = gateway.post("/api/v3/write_lp", body).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.json()["data"].as_array().expect("a list").len(), 100);
    assert!(answer.body.len() < 64 << 10, "{} bytes", answer.body.len());
}

#[tokio::test]
async fn a_byte_order_mark_is_no_part_of_a_name() {
    let gateway = start().await;
    let answer = gateway.post("/write", "\u{feff}m f=1i 1\nn\u{feff} f=1i 1\n").await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert_eq!(gateway.journal.lines(), ["m f=1i 1", "n\u{feff} f=1i 1"]);
    let answer = gateway.post("/write", "\u{feff}").await;
    assert_eq!((answer.status, answer.header("x-tidegate-points")), (StatusCode::NO_CONTENT, "0"));
}

#[tokio::test]
async fn a_type_that_changes_is_converted_or_refused_by_name() {
    let gateway = start().await;
    let body = "mem used=2i 1\nmem used=3 2\nmem used=2.5 3\nmem used=true 4\ncpu used=2.5 5";
    let answer = gateway.post("/write", body).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let message = "partial write: 2 of 5 lines not stored: line 3: field type conflict: input \
                   field \"used\" on measurement \"mem\" is type float, already exists as type \
                   integer; line 4: field type conflict: input field \"used\" on measurement \
                   \"mem\" is type boolean, already exists as type integer";
    assert_eq!(answer.json(), json!({ "error": message }));
    let mut stored = gateway.journal.lines();
    stored.sort();
    assert_eq!(stored, ["cpu used=2.5 5", "mem used=2i 1", "mem used=3i 2"]);

    // Each database has types of its own, and so has each tenant.
    let other = gateway.post("/write?db=app", "mem used=2.5 1\nmem used=4i 2").await;
    assert_eq!(other.status, StatusCode::NO_CONTENT);
    let request = Request::post(format!("http://{}/write", gateway.address))
        .header("x-tidegate-tenant", "zeta")
        .body("mem used=2.5 1".into());
    assert_eq!(gateway.send(request.expect("a request")).await.status, StatusCode::NO_CONTENT);
    let v3 = gateway.post("/api/v3/write_lp?db=app", "mem used=\"x\" 1").await;
    let told = "field type conflict: input field \"used\" on measurement \"mem\" is type string, \
                already exists as type float";
    assert_eq!(v3.json()["data"][0]["error_message"], told);
    let databases: Vec<_> =
        gateway.journal.records().into_iter().map(|r| (r.tenant, r.database)).collect();
    assert!(databases.contains(&("acme".to_owned(), "app".to_owned())), "{databases:?}");
    assert!(databases.contains(&("zeta".to_owned(), String::new())), "{databases:?}");

    let metrics = gateway.metrics().await;
    for expected in [
        "ingest_gateway_points_rejected_total{protocol=\"influx_v1\",reason=\"type_conflict\"} 2\n",
        "ingest_gateway_fields_pinned 4\n",
        "ingest_gateway_fields_converted_total 2\n",
        "ingest_gateway_fields_unpinned_total 0\n",
    ] {
        assert!(metrics.contains(expected), "{expected} in {metrics}");
    }
    let uri = format!("http://{}/config", gateway.admin_address);
    let request = Request::get(uri).body(Body::empty()).expect("a request");
    let shown = gateway.send(request).await.text();
    assert!(shown.contains("\"acme__default\"") && shown.contains("is type float"), "{shown}");
}

#[tokio::test]
async fn a_request_that_is_refused_whole_pins_nothing() {
    let gateway = start().await;
    let path = "/api/v3/write_lp?accept_partial=false";
    let none = gateway.post(path, "m f=1i 1\nm g= 2").await;
    assert_eq!(none.status, StatusCode::BAD_REQUEST);
    assert_eq!(gateway.post(path, "m f=1.5 1").await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_tenant_has_so_many_databases() {
    let gateway = start_with(|config| config.destinations.databases_per_tenant_max = 1).await;
    for (path, status) in [
        ("/api/v2/write?bucket=a", 204),
        ("/api/v2/write?bucket=b", 422),
        ("/api/v2/write?bucket=default", 204),
        ("/api/v2/write", 204),
        ("/write?db=a", 204),
        ("/write?db=a&rp=autogen", 204),
        ("/write?db=a&rp=weekly", 422),
    ] {
        let answer = gateway.post(path, "m f=1i 1").await;
        assert_eq!(answer.status.as_u16(), status, "{path}: {}", answer.text());
    }
    let refused = gateway.post("/api/v2/write?bucket=b", "m f=1i 1").await;
    assert_eq!(refused.json()["code"], "unprocessable entity");
    assert!(refused.text().contains("writes to 1 databases already"), "{}", refused.text());
    for bad in ["a%0Ab".to_owned(), "a%5Cb".to_owned(), "x".repeat(129)] {
        let answer = gateway.post(&format!("/write?db={bad}"), "m f=1i 1").await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{bad}");
    }
}
