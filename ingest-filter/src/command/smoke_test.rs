//! `ingest-filter smoke-test`: tries a running edge from outside, as a client would.
//!
//! A bad key must be refused, a good one admitted, a quota must answer 429 in the end, and the
//! point must be found in the database. It is what `helm test` runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use chassis::tls::Protocols;
use chassis::tls::client::{ClientSettings, Connector};
use chassis::tls::https::HttpsConnector;
use clap::Args;
use http::header::{AUTHORIZATION, RETRY_AFTER};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::time::Instant;

use super::{now_ms, print};

/// How long one answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// How much of an answer is read.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Pause between two looks for the point.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// The database that points are written to, within the tenant.
const BUCKET: &str = "smoke";
/// A key that was never issued.
const BAD_KEY: &str = "tdg_live_smoketest";

/// Try a running edge: a bad key, a good one, a quota, and the point in the database.
#[derive(Args, Debug)]
pub struct SmokeTest {
    /// Where clients connect.
    #[arg(long, value_name = "URL")]
    edge: String,
    /// File with the key that is admitted; its first line counts.
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
    /// File with a key whose quota is small; without it no quota is tried.
    #[arg(long, value_name = "FILE")]
    limited_key_file: Option<PathBuf>,
    /// Requests after which the small quota must have refused one.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    requests_max: u32,
    /// InfluxDB 1.x in which the point is looked for; without it that is not tried.
    #[arg(long, value_name = "URL", requires = "database")]
    influxdb: Option<String>,
    /// Authorities of an https InfluxDB, PEM; those of the system without it.
    #[arg(long, value_name = "FILE", requires = "influxdb")]
    influxdb_ca: Option<PathBuf>,
    /// The tenant of the key, in whose database `smoke` the point must be.
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// Seconds within which the point must be there.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    wait: u64,
}

impl SmokeTest {
    /// Runs all that was asked for, one line for each.
    ///
    /// # Errors
    /// At the first thing that is not as it should be.
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let key = first_line(&self.key_file)?;
        let limited = self.limited_key_file.as_deref().map(first_line).transpose()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.steps(&key, limited.as_deref()))
    }

    async fn steps(&self, key: &str, limited: Option<&str>) -> anyhow::Result<()> {
        chassis::tls::install_provider();
        let files = ClientSettings { authorities: self.influxdb_ca.clone(), ..Default::default() };
        files.check()?;
        let tls = HttpsConnector::new(Some(Connector::new(files, Protocols::Http, "smoke test")));
        let http = Client::builder(TokioExecutor::new()).build(tls);
        let run = format!("{:x}{:x}", now_ms(), std::process::id());
        let line = format!("tidegate_smoke_test,run={run} value=1i");

        let refused = self.write(&http, BAD_KEY, &line).await?.status;
        ensure!(refused == StatusCode::UNAUTHORIZED, "a bad key was answered {refused}, not 401");
        print("ok: a bad key is refused")?;

        let admitted = self.write(&http, key, &line).await?.status;
        ensure!(admitted == StatusCode::NO_CONTENT, "a good key was answered {admitted}, not 204");
        print("ok: a good key is admitted")?;

        if let Some(limited) = limited {
            let used = self.exhaust(&http, limited, &line).await?;
            print(&format!("ok: a quota refuses after {used} requests"))?;
        }
        if let (Some(url), Some(database)) = (&self.influxdb, &self.database) {
            self.read_back(&http, url, database, &run).await?;
            print("ok: the point is in the database")?;
        }
        Ok(())
    }

    /// Writes until the quota refuses: after how many requests it did.
    async fn exhaust(&self, http: &Http, key: &str, line: &str) -> anyhow::Result<u32> {
        for sent in 1..=self.requests_max {
            let answer = self.write(http, key, line).await?;
            match answer.status {
                StatusCode::NO_CONTENT => {}
                StatusCode::TOO_MANY_REQUESTS => {
                    ensure!(
                        answer.retry_after,
                        "a refusal by quota does not say when to come back"
                    );
                    return Ok(sent);
                }
                other => bail!("the key with a small quota was answered {other}"),
            }
        }
        bail!("{} requests were admitted, and no quota refused one", self.requests_max)
    }

    async fn read_back(
        &self,
        http: &Http,
        url: &str,
        database: &str,
        run: &str,
    ) -> anyhow::Result<()> {
        let query = format!("SELECT value FROM tidegate_smoke_test WHERE run = '{run}'");
        let pairs = [("db", format!("{database}__{BUCKET}")), ("q", query)];
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        let uri = format!("{}/query?{query}", url.trim_end_matches('/'));
        let deadline = Instant::now() + Duration::from_secs(self.wait);
        loop {
            let request = Request::get(&uri).body(Full::default())?;
            let answer = send(http, request).await.context("InfluxDB")?;
            if answer.status == StatusCode::OK && answer.text.contains(r#""columns""#) {
                return Ok(());
            }
            let waited = self.wait;
            let status = answer.status;
            ensure!(
                Instant::now() < deadline,
                "the point was not in the database after {waited} s; it answered {status}"
            );
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    async fn write(&self, http: &Http, key: &str, line: &str) -> anyhow::Result<Answer> {
        let edge = self.edge.trim_end_matches('/');
        let request = Request::post(format!("{edge}/api/v2/write?bucket={BUCKET}"))
            .header(AUTHORIZATION, format!("Token {key}"))
            .body(Full::from(line.to_owned()))?;
        send(http, request).await.context("the edge")
    }
}

type Http = Client<HttpsConnector, Full<Bytes>>;

/// What is looked at of an answer.
struct Answer {
    status: StatusCode,
    retry_after: bool,
    text: String,
}

async fn send(http: &Http, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
    let exchange = async {
        let response = http.request(request).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|_| anyhow::anyhow!("the answer broke off or is too long"))?;
        let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        let retry_after = head.headers.contains_key(RETRY_AFTER);
        anyhow::Ok(Answer { status: head.status, retry_after, text })
    };
    match tokio::time::timeout(ANSWER_TIMEOUT, exchange).await {
        Ok(answer) => answer,
        Err(_) => bail!("no answer within {} s", ANSWER_TIMEOUT.as_secs()),
    }
}

/// A key as a file holds it. The file may be a Secret's, without a line break at its end.
fn first_line(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("the key in {} cannot be read", path.display()))?;
    let line = text.lines().next().unwrap_or_default().trim();
    ensure!(!line.is_empty(), "{} holds no key", path.display());
    Ok(line.to_owned())
}
