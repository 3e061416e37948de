//! Tests of `gateway`: limits.

use http_body_util::channel::Channel;
use serde_json::json;

use super::*;

/// A body of line protocol that is one string of blanks.
fn blanks(bytes: usize) -> Vec<u8> {
    vec![b' '; bytes]
}

fn compressed(gateway: &Running, body: Vec<u8>) -> Request<Body> {
    let request = gateway.request(Method::POST, "/write").header("content-encoding", "gzip");
    request.body(body.into()).expect("a request")
}

#[tokio::test]
async fn a_bomb_is_refused_and_never_held() {
    let gateway = start().await;
    let bomb = gzip(&blanks(10 << 20)).repeat(20);
    assert!(bomb.len() < 256 << 10, "{}", bomb.len());
    let answer = gateway.send(compressed(&gateway, bomb)).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(
        answer.json(),
        json!({"error": "the body is larger than 200 times its compressed size"})
    );
    // The ratio stops it long before the cap on decoded bytes would.
    assert!(gateway.budget.peak() < 48 << 20, "{}", gateway.budget.peak());
    assert_eq!(gateway.budget.in_flight(), 0);
}

#[tokio::test]
async fn the_decoded_size_is_capped_in_any_encoding() {
    let gateway = start_with(|config| {
        config.decoded_bytes_max = 1 << 20;
        config.ratio_max = 10_000;
    })
    .await;
    for several in [gzip(&blanks((1 << 20) + 1)), gzip(&blanks(600 << 10)).repeat(2)] {
        let answer = gateway.send(compressed(&gateway, several)).await;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert!(answer.text().contains("1048576 bytes after decompression"), "{}", answer.text());
    }
    // While a buffer grows to what it may be there are two, the old one half as large.
    let bound = (3 << 19) + body::REQUEST_BYTES as i64;
    assert!(gateway.budget.peak() <= bound, "{}", gateway.budget.peak());
    let answer = gateway.send(compressed(&gateway, gzip(&blanks(1 << 20)))).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn the_wire_size_is_capped_with_and_without_a_length() {
    let gateway = start_with(|config| config.body_bytes_max = 4096).await;
    assert_eq!(gateway.post("/write", blanks(4096)).await.status, StatusCode::NO_CONTENT);
    let answer = gateway.post("/api/v2/write", blanks(4097)).await;
    let expected = json!({
        "code": "request too large",
        "message": "the body is larger than 4096 bytes on the wire",
    });
    assert_eq!((answer.status, answer.json()), (StatusCode::PAYLOAD_TOO_LARGE, expected));

    let (mut sender, streamed) = Channel::<Bytes>::new(1);
    let request = gateway.request(Method::POST, "/write").body(Body::new(streamed));
    let sending = async move {
        // The gateway may hang up before it has seen everything.
        while sender.send_data(Bytes::from(blanks(1000))).await.is_ok() {}
    };
    let (answer, ()) = tokio::join!(gateway.send_h2(request.expect("a request")), sending);
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn memory_is_reserved_or_the_request_is_refused() {
    let gateway = start_with(|config| {
        config.memory_bytes_max = 2 << 20;
    })
    .await;
    // Requests that wait for the journal hold the budget; those that find none left do not wait.
    gateway.journal.hold();
    let gateway = Arc::new(gateway);
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let gateway = gateway.clone();
        let body = format!("m s=\"{}\" 1\n", "x".repeat(100 << 10));
        requests.spawn(async move { gateway.post("/api/v2/write", body).await });
    }
    let mut waiting = gateway.journal.waiting.subscribe();
    let mut refused = Vec::new();
    while refused.len() + *waiting.borrow_and_update() < 8 {
        tokio::select! {
            answer = requests.join_next() => refused.push(answer.expect("one of 8").expect("no panic")),
            arrived = waiting.changed() => arrived.expect("alive"),
        }
    }
    assert!((4..8).contains(&refused.len()), "{}", refused.len());
    for answer in refused {
        let message = "the service is out of memory for requests, try again";
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(["1", "2", "3"].contains(&answer.header("retry-after")));
        assert_eq!(answer.header("x-tidegate-try-another"), "replica");
        assert_eq!(answer.json(), json!({"code": "unavailable", "message": message}));
    }
    assert!(gateway.budget.in_flight() > 300 << 10);
    gateway.journal.release();
    while let Some(answer) = requests.join_next().await {
        assert_eq!(answer.expect("no panic").status, StatusCode::NO_CONTENT);
    }
    assert!(gateway.budget.peak() <= 2 << 20);
    assert_eq!(gateway.budget.in_flight(), 0);
    assert_eq!(gateway.post("/write", "m f=1i 2\n").await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn the_canonical_form_counts_too() {
    // Short lines become several times longer; what that takes is reserved like anything else.
    let gateway = start_with(|config| {
        config.memory_bytes_max = 2 << 20;
    })
    .await;
    let answer = gateway.post("/write", "m f=1\n".repeat(100_000)).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(answer.text().contains("1048576 bytes of memory"), "{}", answer.text());
    assert!(gateway.budget.peak() <= 1 << 20);
    assert!(gateway.journal.records().is_empty());
}

#[tokio::test]
async fn chunks_and_points_are_bounded() {
    let gateway = start_with(|config| config.chunk_bytes_max = 4096).await;
    let text = "x".repeat(900);
    let body: String = (0..40).map(|i| format!("m s=\"{text}\" {i}\n")).collect();
    let answer = gateway.post("/write", body).await;
    assert_eq!((answer.status, answer.header("x-tidegate-points")), (StatusCode::NO_CONTENT, "40"));
    let records = gateway.journal.records();
    assert_eq!(records.len(), 10);
    assert!(records.iter().all(|record| record.body.len() <= 4096 && record.points == 4));
    assert!(records.iter().all(|record| record.shard == records[0].shard));
    let order: Vec<usize> = gateway
        .journal
        .records()
        .iter()
        .flat_map(|record| {
            String::from_utf8(record.body.to_vec())
                .expect("UTF-8")
                .lines()
                .map(|line| {
                    line.rsplit(' ').next().expect("a timestamp").parse().expect("a number")
                })
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(order, (0..40).collect::<Vec<_>>());

    let answer =
        gateway.post("/write", format!("m s=\"{}\" 1\nn f=1i 1\n", "x".repeat(5000))).await;
    assert_eq!((answer.status, answer.header("x-tidegate-points")), (StatusCode::BAD_REQUEST, "1"));
    assert!(answer.text().contains("line 1: point is larger than a chunk"), "{}", answer.text());
}

#[tokio::test]
async fn a_body_that_does_not_come_is_503() {
    let gateway = start_with(|config| config.request_timeout = Duration::from_millis(100)).await;
    let mut waits = Vec::new();
    for path in ["/api/v2/write", "/write", "/v1/metrics", "/api/v1/write"] {
        let (_sender, never) = Channel::<Bytes>::new(1);
        let mut request = gateway.request(Method::POST, path);
        if path.ends_with("metrics") || path == "/api/v1/write" {
            request = request.header("content-type", "application/x-protobuf");
        }
        if path == "/api/v1/write" {
            request = request.header("content-encoding", "snappy");
        }
        let answer = gateway.send(request.body(Body::new(never)).expect("a request")).await;
        // Agents drop what was answered 408.
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        waits.push(answer.header("retry-after").to_owned());
    }
    // Over two seconds and more, so that not all come back at once.
    waits.sort();
    waits.dedup();
    assert!(waits.iter().all(|wait| matches!(&**wait, "1" | "2" | "3")), "{waits:?}");
    assert!(waits.len() > 1, "{waits:?}");
    assert_eq!(gateway.budget.in_flight(), 0);
}

#[tokio::test]
async fn a_tenant_that_trickles_takes_its_own_share() {
    for (path, content_type, body, status) in [
        ("/write", "text/plain", "m f=1i 1\n", StatusCode::NO_CONTENT),
        ("/query", "application/x-www-form-urlencoded", "q=CREATE+DATABASE+a", StatusCode::OK),
    ] {
        let gateway = start_with(|config| {
            config.memory_bytes_max = 16 * body::REQUEST_BYTES;
            config.request_timeout = Duration::from_secs(60);
        })
        .await;
        let gateway = Arc::new(gateway);
        let mut trickles = tokio::task::JoinSet::new();
        let mut senders = Vec::new();
        for _ in 0..16 {
            let (sender, streamed) = Channel::<Bytes>::new(1);
            senders.push(sender);
            let gateway = gateway.clone();
            trickles.spawn(async move {
                let request = gateway.request(Method::POST, path);
                let request = request.header("content-type", content_type);
                gateway.send_h2(request.body(Body::new(streamed)).expect("a request")).await
            });
        }
        // More than half of them are refused, and the others hold the share of the tenant.
        for _ in 0..8 {
            let refused = trickles.join_next().await.expect("one of 16").expect("no panic");
            assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
            assert_ne!(refused.header("retry-after"), "", "{path}");
            assert_eq!(refused.header("x-tidegate-try-another"), "replica", "{path}");
        }
        let request = Request::post(format!("http://{}{path}", gateway.address))
            .header("x-tidegate-tenant", "other")
            .header("content-type", content_type)
            .body(body.into());
        let answer = gateway.send(request.expect("a request")).await;
        assert_eq!(answer.status, status, "{path}");
        drop(senders);
        while trickles.join_next().await.is_some() {}
    }
}

/// More long bodies at once than fit: who is not refused before it has sent anything is stored. If
/// all of them began and grew, each would be refused when it is half read, and none be stored.
#[tokio::test]
async fn of_a_flood_of_long_bodies_those_that_fit_are_stored() {
    const BODIES: usize = 60;
    let change = |config: &mut GatewayConfig| {
        config.memory_bytes_max = 32 << 20;
        config.request_timeout = Duration::from_secs(120);
    };
    let change_edge = |edge: &mut Edge| edge.conversions = conversions::Conversions::new(2);
    let gateway = Arc::new(start_changed(change, change_edge).await);
    let line = |number| format!("m s=\"{}\" {number}\n", "x".repeat(1000));
    let body = Bytes::from((0..512).map(line).collect::<String>());
    let (mut senders, mut writes) = (Vec::new(), tokio::task::JoinSet::new());
    let mut refused = 0;
    for _ in 0..BODIES {
        let (sender, streamed) = Channel::<Bytes>::new(1);
        let before = gateway.budget.in_flight();
        let request = gateway.request(Method::POST, "/write").header("content-length", body.len());
        let request = request.body(Body::new(streamed)).expect("a request");
        let writer = gateway.clone();
        writes.spawn(async move { writer.send_h2(request).await.status });
        // It has memory, or its answer.
        let place = answers::PLACE_BYTES as i64;
        let answered = loop {
            match writes.try_join_next() {
                Some(status) => break Some(status.expect("no panic")),
                None if gateway.budget.in_flight() > before + place => break None,
                None => tokio::task::yield_now().await,
            }
        };
        match answered {
            Some(status) => {
                assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
                refused += 1;
            }
            None => senders.push(sender),
        }
    }
    for piece in 0..8 {
        for sender in &mut senders {
            let from = piece * body.len() / 8;
            let piece = body.slice(from..(piece + 1) * body.len() / 8);
            // One that is refused now is not read.
            let _ = sender.send_data(piece).await;
        }
    }
    drop(senders);
    let mut stored = 0;
    while let Some(status) = writes.join_next().await {
        match status.expect("no panic") {
            StatusCode::NO_CONTENT => stored += 1,
            status => assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE),
        }
    }
    assert_eq!(stored + refused, BODIES, "who begins is stored");
    assert!(stored >= 20, "{stored}");
}

#[tokio::test]
async fn a_journal_that_does_not_answer_is_503() {
    let gateway = start_with(|config| config.request_timeout = Duration::from_millis(100)).await;
    gateway.journal.hold();
    let answer = gateway.post("/write", "m f=1 1").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    // By how long requests hold their memory.
    assert!(matches!(answer.header("retry-after"), "1" | "2" | "3"), "{:?}", answer.headers);
    let metrics = gateway.metrics().await;
    let line =
        r#"ingest_gateway_requests_total{protocol="influx_v1",outcome="journal_unavailable"} 1"#;
    assert!(metrics.contains(line), "{metrics}");
}

#[tokio::test]
async fn silent_connections_take_nothing_from_others() {
    let gateway = start_with(|config| config.connections_max = 8).await;
    let mut silent = Vec::new();
    for first in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n", b"POST /write HTTP/1.1\r\n"] {
        for _ in 0..20 {
            let mut stream = tokio::net::TcpStream::connect(gateway.address).await.expect("open");
            tokio::io::AsyncWriteExt::write_all(&mut stream, first).await.expect("written");
            silent.push(stream);
        }
        let request = gateway.request(Method::POST, "/write").header("connection", "close");
        let request = request.body("m f=1i 1\n".into()).expect("a request");
        assert_eq!(gateway.send(request).await.status, StatusCode::NO_CONTENT, "{first:?}");
    }
}

#[tokio::test]
async fn an_idle_connection_makes_room_and_a_busy_one_does_not() {
    let gateway = Arc::new(start_with(|config| config.connections_max = 1).await);
    assert_eq!(gateway.get("/ping").await.status, StatusCode::NO_CONTENT);
    // The first connection is kept alive by the client; a second takes its place.
    gateway.journal.hold();
    let mut waiting = gateway.journal.waiting.subscribe();
    let busy = tokio::spawn({
        let gateway = gateway.clone();
        async move {
            let request = gateway.request(Method::POST, "/write").body("m f=1i 1\n".into());
            gateway.send_h2(request.expect("a request")).await
        }
    });
    waiting.wait_for(|waiting| *waiting == 1).await.expect("alive");
    let mut third = tokio::net::TcpStream::connect(gateway.address).await.expect("open");
    let closed = tokio::io::AsyncReadExt::read(&mut third, &mut [0; 1]).await;
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    gateway.journal.release();
    assert_eq!(busy.await.expect("no panic").status, StatusCode::NO_CONTENT);
    assert!(gateway.metrics().await.contains("ingest_gateway_connections_total 2\n"));
}

#[tokio::test]
async fn zstandard_has_the_same_caps() {
    let gateway = start_with(|config| {
        config.decoded_bytes_max = 1 << 20;
        config.ratio_max = 10_000;
    })
    .await;
    let send = async |body: Vec<u8>| {
        let request = gateway.request(Method::POST, "/write").header("content-encoding", "zstd");
        gateway.send(request.body(body.into()).expect("a request")).await
    };
    let line = b"m f=1i 1\n";
    let two = [zstd(line), zstd(b"m f=2i 2\n")].concat();
    let answer = send(two).await;
    assert_eq!((answer.status, answer.header("x-tidegate-points")), (StatusCode::NO_CONTENT, "2"));
    // Larger than one step of the decoder, to the last byte.
    let long: String = (0..20_000).map(|at| format!("m f={at}i {at}\n")).collect();
    let answer = send(zstd(long.as_bytes())).await;
    assert_eq!(answer.header("x-tidegate-points"), "20000");
    let cut = zstd(long.as_bytes());
    for bad in [cut[..cut.len() - 3].to_vec(), b"noise".to_vec(), zstd(line)[..5].to_vec()] {
        assert_eq!(send(bad).await.status, StatusCode::BAD_REQUEST);
    }
    let answer = send(zstd(&blanks((1 << 20) + 1))).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    // A frame that asks for a window of 128 MiB.
    let huge = [&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x88][..], &zstd(line)[6..]].concat();
    assert_eq!(send(huge).await.status, StatusCode::BAD_REQUEST);
    assert!(gateway.budget.peak() < 12 << 20, "{}", gateway.budget.peak());
    assert_eq!(gateway.budget.in_flight(), 0);
}
