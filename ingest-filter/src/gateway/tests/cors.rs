//! Tests of `gateway`: pages of other origins.

use super::*;

const APP: &str = "https://app.example.com";

async fn with_origins(origins: &[&str]) -> Running {
    start_with(|config| {
        origins.iter().for_each(|origin| config.cors_origins.add(origin).expect("an origin"));
    })
    .await
}

impl Running {
    /// What a browser asks before it posts JSON with a key.
    async fn preflight(&self, path: &str, origin: &str) -> Answer {
        // No key, so no tenant either.
        let request = Request::builder()
            .method(Method::OPTIONS)
            .uri(format!("http://{}{path}", self.address))
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,content-type");
        self.send(request.body(Body::empty()).expect("a request")).await
    }

    async fn post_from(&self, origin: &str, body: &'static str) -> Answer {
        let request = self.request(Method::POST, "/write").header("origin", origin);
        self.send(request.body(body.into()).expect("a request")).await
    }
}

#[tokio::test]
async fn a_preflight_of_a_configured_origin_is_answered_without_a_key() {
    let gateway = with_origins(&[APP]).await;
    for path in ["/v1/metrics", "/v1/logs", "/v1/traces", "/write", "/api/v2/write"] {
        let answer = gateway.preflight(path, APP).await;
        assert_eq!((answer.status, answer.text()), (StatusCode::NO_CONTENT, String::new()));
        assert_eq!(answer.header("access-control-allow-origin"), APP, "{path}");
        assert_eq!(answer.header("access-control-allow-methods"), "GET, POST");
        let allowed = answer.header("access-control-allow-headers");
        assert_eq!(allowed, "authorization,content-type");
        assert_eq!(answer.header("access-control-max-age"), "7200");
        assert!(answer.header("vary").contains("origin"));
    }
    let other = gateway.preflight("/v1/metrics", "https://evil.example.net").await;
    assert_eq!(other.status, StatusCode::FORBIDDEN);
    assert_eq!(other.header("access-control-allow-origin"), "");
    assert!(gateway.journal.records().is_empty());
}

#[tokio::test]
async fn a_page_may_read_its_answers_and_others_are_served_as_before() {
    let gateway = with_origins(&["https://*.example.com"]).await;
    for (body, status) in [("m v=1 1", StatusCode::NO_CONTENT), ("m v=", StatusCode::BAD_REQUEST)] {
        let answer = gateway.post_from(APP, body).await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (status, APP));
        let exposed = answer.header("access-control-expose-headers");
        assert!(exposed.contains("x-tidegate-points") && exposed.contains("retry-after"));
    }
    let other = gateway.post_from("https://evil.example.net", "m v=2 2").await;
    assert_eq!(other.status, StatusCode::NO_CONTENT, "the key decides, not the origin");
    assert_eq!(other.header("access-control-allow-origin"), "");
    assert!(other.header("vary").contains("origin"));
    let agent = gateway.post("/write", "m v=3 3").await;
    assert_eq!((agent.status, agent.header("vary")), (StatusCode::NO_CONTENT, ""));
}

#[tokio::test]
async fn without_origins_a_preflight_is_one_of_the_methods_that_are_not_allowed() {
    let gateway = start().await;
    let answer = gateway.preflight("/write", APP).await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(answer.header("access-control-allow-origin"), "");
}
