//! Tests of `gateway`: life.

use super::*;

#[tokio::test]
async fn http2_without_tls_on_the_same_port() {
    let gateway = start().await;
    let request = gateway.request(Method::POST, "/write").body("m f=1i 1".into());
    let answer = gateway.send_h2(request.expect("a request")).await;
    assert_eq!((answer.status, answer.version), (StatusCode::NO_CONTENT, Version::HTTP_2));
    let answer = gateway.post("/write", "m f=1i 2").await;
    assert_eq!((answer.status, answer.version), (StatusCode::NO_CONTENT, Version::HTTP_11));
    assert_eq!(gateway.journal.lines().len(), 2);
}

#[tokio::test]
async fn a_drain_finishes_what_is_in_flight() {
    for http2 in [false, true] {
        let gateway = start().await;
        gateway.journal.hold();
        let mut waiting = gateway.journal.waiting.subscribe();
        let request = gateway.request(Method::POST, "/write").body("m f=1i 1".into());
        let request = request.expect("a request");
        let write = async {
            if http2 { gateway.send_h2(request).await } else { gateway.send(request).await }
        };
        let drain = async {
            waiting.wait_for(|waiting| *waiting == 1).await.expect("alive");
            gateway.shutdown.begin();
            // The listener closes first.
            while tokio::net::TcpStream::connect(gateway.address).await.is_ok() {
                tokio::task::yield_now().await;
            }
            assert!(!gateway.served.is_finished());
            gateway.journal.release();
        };
        let (answer, ()) = tokio::join!(write, drain);
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
        let ended = tokio::time::timeout(Duration::from_secs(10), gateway.served).await;
        ended.expect("ends when the last answer is out").expect("no panic").expect("no error");
        assert_eq!(gateway.journal.lines(), ["m f=1i 1"]);
    }
}

#[tokio::test]
async fn admin_pages_tell_readiness_and_settings() {
    let gateway = start().await;
    let page = |path: &str| {
        let uri = format!("http://{}{path}", gateway.admin_address);
        gateway.send(Request::get(uri).body(Body::empty()).expect("a request"))
    };
    assert_eq!(page("/readyz").await.status, StatusCode::OK);
    let latch = gateway.readiness.latch("journal: away");
    let answer = page("/readyz").await;
    assert_eq!(
        (answer.status, answer.text()),
        (StatusCode::SERVICE_UNAVAILABLE, "journal: away\n".into())
    );
    drop(latch);
    assert_eq!(page("/livez").await.status, StatusCode::OK);
    assert_eq!(page("/config").await.json()["chunk_bytes_max"], 512 << 10);
}

/// What the journal did not confirm is not in the books.
#[tokio::test]
async fn what_was_confirmed_is_told_by_hour_and_tenant() {
    let gateway = start().await;
    assert_eq!(gateway.post("/write", "m f=1i 1\nm f=1i 2").await.status, StatusCode::NO_CONTENT);
    gateway.journal.fail_for(Duration::from_secs(1));
    assert_eq!(gateway.post("/write", "m f=1i 3").await.status, StatusCode::SERVICE_UNAVAILABLE);
    let uri = format!("http://{}/confirmed", gateway.admin_address);
    let page = gateway.send(Request::get(uri).body(Body::empty()).expect("a request")).await.json();
    let hours = page["hours"].as_array().expect("hours");
    assert_eq!((hours.len(), &page["left_out"]), (1, &serde_json::json!(0)), "{page}");
    assert_eq!(hours[0]["points"], serde_json::json!({ "acme": 2 }));
    let hour_ms = hours[0]["hour_ms"].as_i64().expect("an hour");
    assert!(hour_ms > 0 && hour_ms % 3_600_000 == 0, "{hour_ms}");
}
