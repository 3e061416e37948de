//! The console in a real browser: what is shown, in both colour schemes, on narrow screens and by keyboard,
//! within its policy, and behind a token.

use serde_json::Value as Json;

use crate::support::chromium::Browser;
use crate::support::{RedisServer, Service, wait_for};

const QUOTAS: &str = "
domain: edge
descriptors:
  - {key: tenant, rate_limit: {unit: year, requests_per_unit: 4, trial: {requests_per_unit: 2}}}
";

/// Elements with text of their own whose colour stands out too little from what is behind them, WCAG 2.2 AA.
const FAINT: &str = "(() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (c) => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const luminance = ([r, g, b]) => 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] > 0.99) return colour;
    }
    return [255, 255, 255];
  };
  const faint = [];
  for (const element of document.body.querySelectorAll('*')) {
    const text = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!text || !element.offsetParent || element.disabled) continue;
    const [a, b] = [parse(getComputedStyle(element).color), behind(element)].map(luminance);
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) faint.push(`${element.tagName} ${element.textContent.slice(0, 30)} ${contrast}`);
  }
  return faint;
})()";

/// Keeps the answer to a stream that was asked for with the wrong token until `letGo` is called.
const HOLD_BACK: &str = "(() => {
  const real = window.fetch;
  window.fetch = async (path, options) => {
    const answer = await real(path, options);
    const wrong = options.headers.authorization === 'Bearer another one';
    if (wrong && path === '/console/events') {
      await new Promise((go) => {
        // What waits for the answer has run when the promise of the caller is kept.
        window.letGo = () => { go(); return new Promise((done) => setTimeout(done, 0, answer.status)); };
      });
    }
    return answer;
  };
})()";

const REPORT: &str = r#"{"against": "old.yaml", "from": 1800000000, "to": 1800000059, "step_seconds": 60,
  "total": {"requests": 22200, "old_refused": 0, "new_refused": 8000, "newly_refused": 8000, "newly_admitted": 0},
  "classes": [{"class": "<b>ingest</b>", "requests": 22200, "old_refused": 0, "new_refused": 8000,
    "newly_refused": 8000, "newly_admitted": 0}], "rules": [], "who": [], "worst": null,
  "conditions": [{"condition": "newly_refused > 1 %", "fails": true, "figure": 36.036}], "notes": []}"#;

async fn ask(service: &Service, requests: usize) {
    for _ in 0..requests {
        service.is_over("edge", &[("tenant", "acme"), ("priority", "ingest")]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_console_shows_what_is_decided() {
    let service = Service::start(&[("a.yaml", QUOTAS)]).await;
    let mut browser = Browser::start().await;
    browser.view(1280, 1000, "light").await;
    browser.open(&format!("http://{}/console", service.addresses.debug)).await;
    browser.until("#status", "Live").await;
    ask(&service, 6).await;
    browser.until("#classes", "over_limit 2").await;
    browser.until("#descriptors", "tenant=acme, priority=ingest").await;
    browser.until("#descriptors", "100 %").await;
    browser.until("#trials", "2 per year").await;
    browser.until("#store", "in the memory of this replica").await;
    browser.until("#classes-title", "of this replica").await;
    let row = browser.text("#classes tbody tr:nth-child(3)").await;
    assert!(row.contains("ingest") && row.contains("local"), "{row}");
    let tried = browser.text("#trials tbody tr").await;
    assert!(tried.contains("edge.tenant") && tried.contains("4 per year"), "{tried}");

    let question = "document.getElementById('explain-descriptors').value = 'tenant=acme,priority=background';\
                    document.getElementById('explain-form').requestSubmit()";
    browser.value(question).await;
    browser.until("#explained", "class background").await;
    browser.until("#explained", "trial 2 per year").await;

    let open = format!(
        "(() => {{ const files = new DataTransfer();\
         files.items.add(new File([{}], 'r.json'));\
         const input = document.getElementById('report-file');\
         input.files = files.files; input.dispatchEvent(new Event('change')); }})()",
        Json::from(REPORT)
    );
    browser.value(&open).await;
    browser.until("#report", "22,200").await;
    browser.until("#report", "Failed: newly_refused > 1 %").await;
    let report = browser.text("#report").await;
    assert!(report.contains("<b>ingest</b>"), "text goes in as text: {report}");

    let lowered = QUOTAS.replace("requests_per_unit: 4", "requests_per_unit: 3");
    service.write_quotas("a.yaml", lowered);
    browser.until("#changes", "lowered edge tenant").await;
    ask(&service, 3).await;
    browser.until("#changes", "3 requests refused while in force").await;
    assert_eq!(browser.value("window.violations").await, Json::Array(vec![]));
    looks_right(&mut browser).await;
}

/// Both colour schemes, wide and narrow, and all of it by keyboard.
async fn looks_right(browser: &mut Browser) {
    for (scheme, width) in [("light", 1280), ("dark", 1280), ("light", 360), ("dark", 360)] {
        browser.view(width, 1000, scheme).await;
        let faint = browser.value(FAINT).await;
        assert_eq!(faint, Json::Array(vec![]), "{scheme} {width}");
        let needed = browser.value("document.documentElement.scrollWidth").await;
        assert!(needed.as_u64().is_some_and(|needed| needed <= width.into()), "{width}: {needed}");
        browser.picture(&format!("console-{scheme}-{width}")).await;
    }
    browser.view(1280, 1000, "light").await;
    let mut reached = Vec::new();
    for _ in 0..14 {
        reached.push(browser.tab().await);
        let outline = "getComputedStyle(document.activeElement).outlineStyle";
        let outline = browser.value(outline).await;
        assert!(outline != "none" || reached.ends_with(&[String::new()]), "{reached:?}");
    }
    for id in ["scroll", "explain-domain", "explain-descriptors", "explained", "report-file"] {
        assert!(reached.iter().any(|at| at.split(' ').any(|at| at == id)), "{id}: {reached:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_console_asks_for_its_token() {
    const TOKEN: &str = "correct horse battery";
    let settings = [("CONSOLE_TOKEN", TOKEN.to_owned())];
    let service = Service::start_with(&[("a.yaml", QUOTAS)], &settings).await;
    for path in ["/console/events", "/console/history", "/console/descriptors"] {
        assert_eq!(service.admin(path).await.0, 401, "{path}");
    }
    let mut browser = Browser::start().await;
    browser.open(&format!("http://{}/console", service.addresses.debug)).await;
    browser.until("#token-form", "The console needs its token").await;
    assert!(!browser.text("#status").await.contains("Live"));
    let give = |token: &str| {
        format!(
            "document.getElementById('token').value = '{token}';\
             document.getElementById('token-form').requestSubmit()"
        )
    };
    browser.value(HOLD_BACK).await;
    browser.value(&give("another one")).await;
    browser.until("#token-problem", "This is not the token.").await;
    wait_for("an answer held back", async || browser.value("!!window.letGo").await == true).await;
    browser.value(&give(TOKEN)).await;
    browser.until("#status", "Live").await;
    // The late refusal of the wrong token takes nothing from the right one.
    assert_eq!(browser.value("window.letGo()").await, 401);
    let hidden = "document.getElementById('token-form').hidden";
    assert_eq!(browser.value(hidden).await, true);
    let (_, shown) = service.admin("/config").await;
    assert!(!shown.contains(TOKEN));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_went_away_is_said_to_have() {
    let service = Service::start(&[("a.yaml", QUOTAS)]).await;
    let mut browser = Browser::start().await;
    browser.open(&format!("http://{}/console", service.addresses.debug)).await;
    browser.until("#status", "Live").await;
    service.stop().await;
    wait_for("the page to notice", async || {
        browser.text("#status").await.contains("No answer from the service")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_redis_is_shown_with_its_state() {
    let mut redis = RedisServer::start().await;
    let service = Service::start_with(&[("a.yaml", QUOTAS)], &redis.environment()).await;
    let mut browser = Browser::start().await;
    browser.view(1280, 1000, "light").await;
    browser.open(&format!("http://{}/console", service.addresses.debug)).await;
    let name = format!("server {}", redis.socket().display());
    browser.until("#store", &format!("{name}\nin reach")).await;
    redis.kill();
    browser.until("#store", &format!("{name}\nout of reach for ")).await;
}
