//! Tests of `check::extract`.

use super::*;

const KEY: &str = "K_e_y";

/// A request with these headers, and what is found in it.
fn found(profile: Profile, path: &str, headers: &[(&str, &str)]) -> Result<String, ExtractError> {
    let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    let required_scope = None;
    let request = Request {
        profile: Ok(profile),
        required_scope,
        headers,
        path,
        body_bytes: None,
        client: None,
    };
    let text = |found: Credential<'_>| String::from_utf8_lossy(found.expose()).into_owned();
    extract(&request, profile).map(text)
}

fn basic(user_and_password: &str) -> String {
    format!("Basic {}", STANDARD.encode(user_and_password))
}

#[test]
fn every_agents_own_convention_is_read() {
    use Profile::{Datadog, Default, Elastic, InfluxV1, InfluxV2, Otlp, Prometheus, Splunk};
    let (bearer, token) = (format!("Bearer {KEY}"), format!("Token {KEY}"));
    let password = basic(&format!("any user:{KEY}"));
    let encoded = format!("ApiKey {}", STANDARD.encode(format!("an id:{KEY}").replace(' ', "-")));
    let api_key = format!("/api/v1/series?api_key={KEY}");
    let user_password = format!("/write?db=telegraf&u=me&p={KEY}&precision=ns");
    for (agent, profile, path, header) in [
        ("Datadog Agent", Datadog, "/api/v2/series", ("DD-Api-Key", KEY)),
        ("Datadog Agent, validation", Datadog, "/api/v1/validate?api_key=K_e_y", ("a", "b")),
        ("Vector datadog", Datadog, "/api/v2/series", ("dd-api-key", KEY)),
        ("Vector datadog source", Datadog, "/v1/input?dd-api-key=K_e_y", ("a", "b")),
        ("Fluent Bit datadog", Datadog, "/api/v2/logs", ("DD-API-KEY", KEY)),
        ("Telegraf datadog", Datadog, &api_key, ("content-type", "application/json")),
        ("Telegraf influxdb_v2", InfluxV2, "/api/v2/write?org=o", ("authorization", &token)),
        ("Telegraf influxdb", InfluxV1, "/write?db=telegraf", ("authorization", &password)),
        ("Telegraf influxdb_v3", InfluxV2, "/api/v3/write_lp", ("authorization", &bearer)),
        ("Telegraf opentelemetry", Otlp, "/v1/metrics", ("authorization", &bearer)),
        ("Telegraf http, loki", Default, "/x", ("x-api-key", KEY)),
        ("InfluxDB 1 clients", InfluxV1, &user_password, ("a", "b")),
        ("InfluxDB 3 clients", InfluxV2, "/api/v3/write_lp?p=K_e_y&db=x", ("a", "b")),
        ("Vector influxdb_metrics", InfluxV2, "/api/v2/write", ("authorization", &token)),
        ("Fluent Bit influxdb", InfluxV1, "/write", ("authorization", &token)),
        ("Collector bearertokenauth", Otlp, "/v1/traces", ("authorization", &bearer)),
        ("Collector basicauth", Otlp, "/v1/traces", ("authorization", &password)),
        ("Collector headers", Otlp, "/v1/traces", ("x-api-key", KEY)),
        ("Prometheus authorization", Prometheus, "/api/v1/write", ("authorization", &bearer)),
        ("Prometheus basic_auth", Prometheus, "/api/v1/write", ("authorization", &password)),
        ("Prometheus http_headers", Prometheus, "/api/v1/write", ("x-api-key", KEY)),
        ("vmagent", Prometheus, "/api/v1/write", ("authorization", &bearer)),
        ("Grafana Cloud style", Prometheus, "/p", ("authorization", &basic("123456:K_e_y"))),
        ("Fluent Bit http", Default, "/x", ("authorization", &password)),
        ("Fluent Bit es", Elastic, "/_bulk", ("authorization", "ApiKey K_e_y")),
        ("Elastic Beats", Elastic, "/_bulk", ("authorization", &encoded)),
        ("InfluxDB 2 clients at 1.8", InfluxV2, "/p", ("authorization", "Token me:K_e_y")),
        ("New Relic", Default, "/metric/v1", ("Api-Key", KEY)),
        ("New Relic, logs", Default, "/log/v1", ("X-License-Key", KEY)),
        ("Honeycomb", Otlp, "/v1/traces", ("x-honeycomb-team", KEY)),
        ("Splunk HEC", Splunk, "/services/collector", ("authorization", "Splunk K_e_y")),
        ("apikey", Default, "/x", ("apikey", KEY)),
        ("lower case scheme", Default, "/x", ("authorization", "bearer K_e_y")),
        ("upper case scheme", Default, "/x", ("Authorization", "TOKEN  K_e_y")),
    ] {
        assert_eq!(found(profile, path, &[header]).as_deref(), Ok(KEY), "{agent}");
    }
}

#[test]
fn two_credentials_are_refused_even_when_equal() {
    let bearer = format!("Bearer {KEY}");
    let joined = format!("Bearer {KEY},Bearer {KEY}");
    let password = basic(&format!("me:{KEY}"));
    for headers in [
        &[("x-api-key", KEY), ("x-api-key", KEY)][..],
        &[("x-api-key", KEY), ("X-Api-Key", "other")],
        &[("x-api-key", KEY), ("dd-api-key", KEY)],
        &[("authorization", &bearer), ("x-api-key", KEY)],
        &[("authorization", &bearer), ("authorization", &password)],
        &[("authorization", "Digest x"), ("x-api-key", KEY)],
        &[("authorization", ""), ("x-api-key", KEY)],
        &[("authorization", &joined)],
        &[("x-api-key", "K_e_y,K_e_y")],
        &[("x-api-key", "K_e_y,")],
    ] {
        let found = found(Profile::Default, "/", headers);
        assert_eq!(found, Err(ExtractError::Ambiguous), "{headers:?}");
    }
    for (profile, path) in [
        (Profile::Datadog, "/?api_key=K_e_y&api_key=K_e_y"),
        (Profile::Datadog, "/?api_key=K_e_y&dd-api-key=K_e_y"),
        (Profile::InfluxV1, "/write?p=a&u=b&p=c"),
        (Profile::InfluxV1, "/write?p&p"),
    ] {
        assert_eq!(found(profile, path, &[]), Err(ExtractError::Ambiguous), "{path}");
    }
    let both = found(Profile::Datadog, "/?api_key=K_e_y", &[("dd-api-key", KEY)]);
    assert_eq!(both, Err(ExtractError::Ambiguous));
}

#[test]
fn a_query_counts_only_where_the_profile_says_so_and_only_by_its_literal_name() {
    for (profile, path) in [
        (Profile::Default, "/?api_key=K_e_y"),
        (Profile::Otlp, "/v1/metrics?p=K_e_y"),
        (Profile::Prometheus, "/?dd-api-key=K_e_y"),
        (Profile::InfluxV1, "/write?api_key=K_e_y"),
        (Profile::InfluxV1, "/write?u=K_e_y"),
        (Profile::Datadog, "/?p=K_e_y"),
        (Profile::Datadog, "/?api%5Fkey=K_e_y"),
        (Profile::Datadog, "/?API_KEY=K_e_y"),
        (Profile::Datadog, "/?x=1;api_key=K_e_y"),
        (Profile::Datadog, "/api_key=K_e_y"),
        (Profile::Datadog, "/?"),
        (Profile::Datadog, ""),
    ] {
        assert_eq!(found(profile, path, &[]), Err(ExtractError::Missing), "{path}");
    }
    let raw = found(Profile::Datadog, "/?api_key=K%5Fe_y&x=?api_key=", &[]);
    assert_eq!(raw.as_deref(), Ok("K%5Fe_y"), "never decoded, so no other spelling is the key");
}

#[test]
fn authorization_that_holds_no_key_is_refused() {
    for (value, error) in [
        ("", ExtractError::Scheme),
        (KEY, ExtractError::Scheme),
        ("Bearer", ExtractError::Scheme),
        (" Bearer K_e_y", ExtractError::Scheme),
        ("Digest username=x", ExtractError::Scheme),
        ("AWS4-HMAC-SHA256 Credential=x", ExtractError::Scheme),
        ("Basic", ExtractError::Scheme),
        ("Basic ", ExtractError::Basic),
        ("Basic !!!!", ExtractError::Basic),
        ("Basic bm8gY29sb24=", ExtractError::Basic),
        ("Basic dXNlcjprZXk", ExtractError::Basic),
        ("Basic dXNlcjprZXk==", ExtractError::Basic),
        ("Basic dXNlcjprZXl=", ExtractError::Basic),
        ("Basic dXNl cjprZXk=", ExtractError::Basic),
    ] {
        let found = found(Profile::Default, "/", &[("authorization", value)]);
        assert_eq!(found, Err(error), "{value:?}");
    }
    // What is left over is for the key's grammar to refuse.
    for (value, left) in [
        ("Bearer ".to_owned(), ""),
        ("Token a:b:c".to_owned(), "b:c"),
        ("Token :".to_owned(), ""),
        ("Bearer a:b".to_owned(), "a:b"),
        ("ApiKey a:b".to_owned(), "a:b"),
        (basic("a:b:c"), "b:c"),
        (basic(":"), ""),
    ] {
        let found = found(Profile::Default, "/", &[("authorization", &value)]);
        assert_eq!(found.as_deref(), Ok(left), "{value:?}");
    }
}

#[test]
fn what_no_key_can_hold_is_refused_wherever_it_stands() {
    let encoded = |text: &str| format!("ApiKey {}", STANDARD.encode(text));
    for (value, error) in [
        ("Bearer\tK_e_y".to_owned(), ExtractError::Characters),
        ("Bea\u{2211}er K_e_y".to_owned(), ExtractError::Characters),
        ("Bearer K_e_y\u{e9}".to_owned(), ExtractError::Characters),
        ("Bearer K_e_y\u{7f}".to_owned(), ExtractError::Characters),
        ("Bearer Bearer x".to_owned(), ExtractError::Characters),
        ("Bearer K e y".to_owned(), ExtractError::Characters),
        ("Bearer K_e_y ".to_owned(), ExtractError::Characters),
        ("Token me:K e y".to_owned(), ExtractError::Characters),
        (basic("me:K e y"), ExtractError::Characters),
        (basic("me:K\u{e9}y"), ExtractError::Characters),
        (basic("me:K_e_y,K_e_y"), ExtractError::Ambiguous),
        (encoded("id:K_e_y,"), ExtractError::Ambiguous),
    ] {
        let found = found(Profile::Default, "/", &[("authorization", &value)]);
        assert_eq!(found, Err(error), "{value:?}");
    }
    for value in ["K e y", " K_e_y", "K_e_y\t", "K_e_y\u{a0}", "\u{1}"] {
        let found = found(Profile::Default, "/", &[("x-api-key", value)]);
        assert_eq!(found, Err(ExtractError::Characters), "{value:?}");
    }
    let query = found(Profile::InfluxV1, "/write?p=K_\u{e9}_y", &[]);
    assert_eq!(query, Err(ExtractError::Characters));
    // Base64 of something else than text is the key as it is.
    let plain = found(Profile::Elastic, "/", &[("authorization", "ApiKey OgAA")]);
    assert_eq!(plain.as_deref(), Ok("OgAA"));
}

#[test]
fn an_oversize_value_is_not_looked_at() {
    for (len, fits) in [(CREDENTIAL_BYTES_MAX, true), (CREDENTIAL_BYTES_MAX + 1, false)] {
        let value = "x".repeat(len);
        let header = found(Profile::Default, "/", &[("x-api-key", &value)]);
        let query = found(Profile::Datadog, &format!("/?api_key={value}"), &[]);
        for found in [header, query] {
            assert_eq!(found.is_ok(), fits);
            assert!(fits || found == Err(ExtractError::Oversize));
        }
    }
    let huge = format!("Basic {}", "A".repeat(60_000));
    let found = found(Profile::Default, "/", &[("authorization", &huge)]);
    assert_eq!(found, Err(ExtractError::Oversize));
}
