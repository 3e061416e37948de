//! Requests that are sent again: their points without a time are the same points.

use super::*;

async fn write(gateway: &Running, name: Option<(&str, &str)>, body: &str) -> StatusCode {
    let mut request = gateway.request(Method::POST, "/write");
    if let Some((header, value)) = name {
        request = request.header(header, value);
    }
    gateway.send(request.body(body.to_owned().into()).expect("a request")).await.status
}

#[tokio::test]
async fn what_was_not_confirmed_keeps_its_time_when_it_is_sent_again() {
    let gateway = start().await;
    gateway.journal.fail_for(Duration::from_secs(1));
    let body = "m f=1i\nm f=2i\nm f=3i 5";
    assert_eq!(write(&gateway, None, body).await, StatusCode::SERVICE_UNAVAILABLE);
    let refused = gateway.journal.refused_lines();
    gateway.journal.recover();
    assert_eq!(write(&gateway, None, body).await, StatusCode::NO_CONTENT);
    assert_eq!(gateway.journal.lines(), refused);
    // Acknowledged now, so the same bytes again are new points, but for the one with a time.
    assert_eq!(write(&gateway, None, body).await, StatusCode::NO_CONTENT);
    let mut lines = gateway.journal.lines();
    assert_eq!(lines.len(), 6);
    lines.dedup();
    assert_eq!(lines.len(), 5, "{lines:?}");
}

#[tokio::test]
async fn a_request_with_a_key_is_the_same_points_also_after_success() {
    for header in ["idempotency-key", "x-request-id"] {
        let gateway = start().await;
        let named = Some((header, "a-1"));
        for _ in 0..3 {
            assert_eq!(write(&gateway, named, "m f=1i").await, StatusCode::NO_CONTENT);
        }
        let mut lines = gateway.journal.lines();
        assert_eq!(lines.len(), 3);
        lines.dedup();
        assert_eq!(lines.len(), 1, "{header}: {lines:?}");
        assert_eq!(write(&gateway, Some((header, "a-2")), "m f=1i").await, StatusCode::NO_CONTENT);
        let mut lines = gateway.journal.lines();
        lines.dedup();
        assert_eq!(lines.len(), 2, "{header}: {lines:?}");
    }
}
