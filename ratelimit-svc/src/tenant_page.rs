//! The tenant's view of its quotas: `GET /api/v1/quota`, as JSON and for a browser as a page. It is served
//! where Envoy asks, so that only Envoy says who the tenant is, in the headers that it overwrites.

use std::fmt::Write;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value as Json, json};

use crate::decide::standing::Standing;
use crate::html::escape;
use crate::limiter::Limiter;
use crate::limiter::standing::{NoStanding, View};

/// Where it is.
pub const PATH: &str = "/api/v1/quota";
/// The longest name of a tenant or class.
const NAME_BYTES_MAX: usize = 256;
/// Seconds after which a browser asks again.
const AGAIN_SECONDS: u64 = 15;

const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

const STYLE: &str = "\
:root{color-scheme:light dark;--text:#1b1f24;--quiet:#57606a;--ground:#fff;--line:#d0d7de;--bad:#b3261e}\
@media(prefers-color-scheme:dark){:root{--text:#e6edf3;--quiet:#9da7b3;--ground:#0f141a;--line:#343d47;--bad:#ff8f85}}\
body{margin:0 auto;max-width:60rem;padding:1rem;color:var(--text);background:var(--ground);font:15px/1.45 system-ui,sans-serif}\
h1{font-size:1.3rem}p{color:var(--quiet)}div{overflow-x:auto}table{border-collapse:collapse;width:100%}\
th,td{text-align:left;padding:.35rem .75rem .35rem 0;border-bottom:1px solid var(--line);white-space:nowrap}\
th{color:var(--quiet);font-size:.85rem}.n{text-align:right}.bad{color:var(--bad);font-weight:600}meter{width:8rem}\
@media(max-width:40rem){thead{position:absolute;left:-99rem}table,tbody,tr,th,td{display:block}tr{border-bottom:1px solid var(--line);padding:.5rem 0}\
th,td{border:0;padding:.1rem 0;white-space:normal}td{display:flex;justify-content:space-between;gap:1rem;text-align:right}\
td::before{content:attr(data-of);color:var(--quiet)}tbody th{font-size:1rem;color:var(--text)}}";

#[derive(Clone)]
struct Api {
    limiter: Arc<Limiter>,
    view: Arc<View>,
}

/// The page.
pub fn routes(limiter: Arc<Limiter>, view: Arc<View>) -> Router {
    Router::new().route(PATH, get(quota)).with_state(Api { limiter, view })
}

async fn quota(State(api): State<Api>, headers: HeaderMap) -> Response {
    let header = |name: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if value.len() <= NAME_BYTES_MAX { value } else { "" }
    };
    let (tenant, class) = (header("x-tidegate-tenant"), header("x-tidegate-priority"));
    if tenant.is_empty() {
        let problem = "nobody said whose quota: ask through Envoy";
        return refusal(StatusCode::BAD_REQUEST, problem);
    }
    let standings = match api.limiter.standing(&api.view, tenant, class).await {
        Ok(standings) => standings,
        Err(error @ (NoStanding::NoQuotas | NoStanding::OutOfReach)) => {
            return refusal(StatusCode::SERVICE_UNAVAILABLE, &error.to_string());
        }
    };
    let wants_page = header("accept").split(',').any(|kind| kind.trim().starts_with("text/html"));
    let (kind, text) = match wants_page {
        true => ("text/html; charset=utf-8", page(tenant, class, &standings)),
        false => ("application/json", format!("{}\n", json_of(tenant, class, &standings))),
    };
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::VARY, "accept"),
    ];
    (headers, text).into_response()
}

/// RFC 9457 problem details.
fn refusal(status: StatusCode, detail: &str) -> Response {
    let title = status.canonical_reason().unwrap_or_default();
    let body = json!({"title": title, "status": status.as_u16(), "detail": detail});
    let kind = [(header::CONTENT_TYPE, "application/problem+json")];
    let mut response = (status, kind, format!("{body}\n")).into_response();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        let wait = axum::http::HeaderValue::from_static("1");
        response.headers_mut().insert(header::RETRY_AFTER, wait);
    }
    response
}

fn json_of(tenant: &str, class: &str, standings: &[Standing]) -> Json {
    let limit = |standing: &Standing| {
        let entries: Json = standing
            .entries
            .iter()
            .map(|(key, value)| (key.clone(), Json::from(value.as_str())))
            .collect::<serde_json::Map<_, _>>()
            .into();
        json!({
            "applies_to": entries,
            "name": Some(&standing.name).filter(|name| !name.is_empty()),
            "limit": standing.limit,
            "unlimited": standing.limit.is_none(),
            "capacity": standing.capacity,
            "used": standing.used,
            "left": standing.left,
            "reserved": standing.reserved,
            "resets_in_seconds": standing.resets_in_seconds,
            "refused_last_hour": standing.refused_last_hour,
        })
    };
    let limits: Vec<Json> = standings.iter().map(limit).collect();
    json!({"tenant": tenant, "class": class, "limits": limits})
}

fn page(tenant: &str, class: &str, standings: &[Standing]) -> String {
    let mut text = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta http-equiv=\"refresh\" content=\"{AGAIN_SECONDS}\">\
         <title>Quota of {tenant}</title><style>{STYLE}</style></head><body>\n\
         <h1>Quota of {tenant}</h1>\n<p>For requests of class {class}. This page costs no quota, and is read \
         again every {AGAIN_SECONDS} seconds.</p>\n\
         <div role=\"region\" aria-label=\"Limits\" tabindex=\"0\"><table><thead><tr><th scope=\"col\">what</th>\
         <th scope=\"col\">limit</th><th scope=\"col\">used</th><th scope=\"col\" class=\"n\">left</th>\
         <th scope=\"col\" class=\"n\">reserved</th><th scope=\"col\" class=\"n\">resets in</th><th scope=\"col\" class=\"n\">refused in the last hour</th>\
         </tr></thead><tbody>\n",
        tenant = escape(tenant),
        class = escape(class),
    );
    for standing in standings {
        let own = |(at, (key, value)): (usize, &(String, String))| match at {
            0 => key.clone(),
            _ => format!("{key} {value}"),
        };
        let what: Vec<String> = standing.entries.iter().enumerate().map(own).collect();
        let what = match standing.name.is_empty() {
            true => what.join(", "),
            false => standing.name.clone(),
        };
        let what = escape(&what);
        let Some(limit) = &standing.limit else {
            let cells = "<td data-of=\"limit\">unlimited</td>";
            let _ = writeln!(text, "<tr><th scope=\"row\">{what}</th>{cells}</tr>");
            continue;
        };
        let cell = |bad: bool| if bad { "n bad" } else { "n" };
        let (used, capacity) = (standing.used, standing.capacity);
        let _ = writeln!(
            text,
            "<tr><th scope=\"row\">{what}</th><td data-of=\"limit\">{limit}</td>\
             <td data-of=\"used\"><span><meter min=\"0\" max=\"{}\" value=\"{used}\" aria-label=\"used\">{used}</meter> \
             {used} of {capacity}</span></td>\
             <td data-of=\"left\" class=\"{}\">{}</td><td data-of=\"reserved\" class=\"n\">{}</td>\
             <td data-of=\"resets in\" class=\"n\">{}</td>\
             <td data-of=\"refused in the last hour\" class=\"{}\">{}</td></tr>",
            capacity.max(1),
            cell(standing.left == 0),
            standing.left,
            standing.reserved,
            duration(standing.resets_in_seconds),
            cell(standing.refused_last_hour > 0),
            standing.refused_last_hour,
        );
    }
    if standings.is_empty() {
        text += "<tr><td colspan=\"7\">No limit applies.</td></tr>\n";
    }
    text += "</tbody></table></div>\n";
    if standings.iter().any(|standing| standing.reserved > 0) {
        let _ = writeln!(
            text,
            "<p>Reserved: left, and kept for requests of other classes than {} until they have used it or the \
             window ends.</p>",
            escape(class)
        );
    }
    text + "</body></html>\n"
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds.div_ceil(60)),
        7200..172_800 => format!("{} h", seconds.div_ceil(3600)),
        _ => format!("{} d", seconds.div_ceil(86_400)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_text() {
        let entries = vec![("tenant".to_owned(), "<b>".to_owned())];
        let standing = Standing {
            entries,
            name: "\"><script>".to_owned(),
            limit: Some("5 per minute".to_owned()),
            capacity: 5,
            used: 5,
            left: 0,
            reserved: 0,
            resets_in_seconds: 7200,
            refused_last_hour: 3,
        };
        let text = page("<b>", "a&b", std::slice::from_ref(&standing));
        assert!(!text.contains("<script") && !text.contains("<b>"), "{text}");
        assert!(text.contains("5 of 5") && text.contains(">2 h<") && text.contains("a&amp;b"));
        let shown = json_of("t", "c", std::slice::from_ref(&standing));
        assert_eq!(
            (&shown["limits"][0]["left"], &shown["limits"][0]["used"]),
            (&0.into(), &5.into())
        );
        assert!(page("t", "c", &[]).contains("No limit applies."));
        // Why nothing is left of a limit that is hardly used.
        assert!(!text.contains("Reserved: left"));
        let kept = Standing { used: 1, reserved: 4, ..standing };
        let text = page("t", "c", std::slice::from_ref(&kept));
        assert!(text.contains("1 of 5") && text.contains("Reserved: left"), "{text}");
        assert_eq!(json_of("t", "c", &[kept])["limits"][0]["reserved"], 4);
    }
}
