//! Every target that the one suite is run on, and how to look into each.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chassis::readiness::Readiness;
use ingest_filter::target::Target;
use ingest_filter::writer::config::{
    InfluxdbV1Config, InfluxdbV2Config, InfluxdbV3Config, TargetConfig,
};
use ingest_filter::writer::open_target;
use prometheus_client::registry::Registry;
use tempfile::TempDir;

use crate::fake_influxdb::{Databases, FakeInfluxdb, Reply, Write};
use crate::influxd::Influxd;
use crate::victoria::{LABEL, Victoria};

/// The password or token that servers with a login take.
pub const SECRET: &str = "right";
/// Bodies from here on are too large for the servers of the suite.
pub const BODY_BYTES_MAX: usize = 100_000;

/// How a target is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    V1,
    V2,
    V3,
}

/// All of them.
pub const APIS: [Api; 3] = [Api::V1, Api::V2, Api::V3];

/// What stands behind a target.
pub enum Server {
    Influxd(Influxd),
    Victoria(Victoria),
    /// Answers as 2.x and 3 are documented to.
    Fake(FakeInfluxdb),
    File(PathBuf),
}

/// One target of the suite.
pub struct Subject {
    pub name: String,
    pub target: Arc<dyn Target>,
    pub server: Server,
    /// The file that its password or token is read from.
    pub secret: PathBuf,
    _directory: TempDir,
}

/// The settings of a target of one API.
pub fn config(api: Api, url: String, secret: &Path) -> TargetConfig {
    let (tls, request_timeout) = (None, Duration::from_secs(10));
    match api {
        Api::V1 => TargetConfig::InfluxdbV1(InfluxdbV1Config {
            url,
            retention_policy: None,
            login: Some(("writer".to_owned(), secret.to_owned())),
            create_database: true,
            tls,
            request_timeout,
        }),
        Api::V2 => TargetConfig::InfluxdbV2(InfluxdbV2Config {
            url,
            org: "our org".to_owned(),
            create_bucket: true,
            token_file: secret.to_owned(),
            tls,
            request_timeout,
        }),
        Api::V3 => TargetConfig::InfluxdbV3(InfluxdbV3Config {
            url,
            token_file: Some(secret.to_owned()),
            tls,
            request_timeout,
        }),
    }
}

pub fn open(config: &TargetConfig) -> Arc<dyn Target> {
    open_target(config, &Readiness::new(), &mut Registry::default()).expect("a target")
}

/// A file for a secret, which is right.
pub fn secret() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    std::fs::write(&secret, format!("{SECRET}\n")).unwrap();
    (directory, secret)
}

impl Subject {
    fn new(name: &str, api: Api, url: String, server: Server) -> Self {
        let (directory, secret) = secret();
        let target = open(&config(api, url, &secret));
        Self { name: name.to_owned(), target, server, secret, _directory: directory }
    }

    /// InfluxDB 1.6.7, with logins.
    pub async fn influxd() -> Self {
        let bounds = format!("  auth-enabled = true\n  max-body-size = {BODY_BYTES_MAX}\n");
        let server = Influxd::start_with(&bounds).await;
        server
            .rows(&format!("create user writer with password '{SECRET}' with all privileges"))
            .await;
        Self::new("InfluxDB 1.6.7", Api::V1, server.url(), Server::Influxd(server))
    }

    /// VictoriaMetrics by one of the two APIs that it serves. It has a login for the first one
    /// only.
    pub async fn victoria(api: Api) -> Self {
        let password = format!("-httpAuth.password={SECRET}");
        let login = ["-httpAuth.username=writer", &password];
        let server = Victoria::start(if api == Api::V1 { &login } else { &[] }).await;
        let name = format!("VictoriaMetrics by {api:?}");
        Self::new(&name, api, server.url(), Server::Victoria(server))
    }

    /// A server that answers as the documents of 2.x or 3 say.
    pub async fn documented(api: Api) -> Self {
        let databases = Databases::default();
        let there = databases.clone();
        let decide = move |write: &Write| documented(api, write, &there);
        let fake = FakeInfluxdb::start_with(databases, decide).await;
        let name = format!("{api:?} as documented");
        Self::new(&name, api, fake.url(), Server::Fake(fake))
    }

    /// A file of line protocol.
    pub fn file() -> Self {
        let (directory, secret) = secret();
        let path = directory.path().join("points").join("points.lp");
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        let target = open(&TargetConfig::File(path.clone()));
        let (name, server) = ("a file".to_owned(), Server::File(path));
        Self { name, target, server, secret, _directory: directory }
    }

    /// The points of `m,a=b v=…` in a database: time in milliseconds, and value.
    pub async fn points(&self, database: &str) -> BTreeSet<(i64, i64)> {
        match &self.server {
            Server::Influxd(server) => {
                let login = format!("{database}&u=writer&p={SECRET}");
                let rows = server.rows_of(&login, "select v from m").await;
                let number = |value: &serde_json::Value| value.as_i64().unwrap();
                rows.iter().map(|row| (number(&row[0]) / 1_000_000, number(&row[1]))).collect()
            }
            Server::Victoria(server) => {
                let all = server.series().await;
                let of_it = all.iter().filter(|series| series["metric"][LABEL] == *database);
                of_it.flat_map(points_of_series).collect()
            }
            Server::Fake(fake) => {
                let stored = fake.stored.lock().unwrap();
                let of_it = stored.iter().filter(|write| name_of(&write.target) == database);
                of_it.flat_map(|write| write.body.lines().map(point).collect::<Vec<_>>()).collect()
            }
            Server::File(path) => {
                let text = std::fs::read_to_string(path).unwrap_or_default();
                let writes = text.split("# DML\n# CONTEXT-DATABASE: ");
                let writes = writes.filter_map(|write| write.split_once('\n'));
                let of_it = writes.filter(|(name, _)| *name == database);
                of_it.flat_map(|(_, lines)| lines.lines().map(point).collect::<Vec<_>>()).collect()
            }
        }
    }
}

fn points_of_series(series: &serde_json::Value) -> Vec<(i64, i64)> {
    let numbers = |key: &str| series[key].as_array().unwrap().clone();
    let pairs = numbers("timestamps").into_iter().zip(numbers("values"));
    pairs.map(|(time, value)| (time.as_i64().unwrap(), value.as_f64().unwrap() as i64)).collect()
}

/// Time and value of a line `m,a=b v=1i 1700000000000000000`.
fn point(line: &str) -> (i64, i64) {
    let (rest, time) = line.rsplit_once(' ').unwrap();
    let (_, value) = rest.rsplit_once('=').unwrap();
    (time.parse::<i64>().unwrap() / 1_000_000, value.trim_end_matches('i').parse().unwrap())
}

/// The database or bucket in path and query of a write.
fn name_of(target: &str) -> &str {
    target.rsplit_once('=').unwrap().1
}

/// What 2.x and 3 are documented to answer.
fn documented(api: Api, write: &Write, databases: &Databases) -> Reply {
    let (scheme, refused) = match api {
        Api::V2 => (
            "Token",
            (
                422,
                "{\"code\":\"unprocessable entity\",\"message\":\"failure writing points to \
                 database: partial write: field type conflict: input field \\\"v\\\" on measurement \
                 \\\"m\\\" is type string, already exists as type integer dropped=1\"}",
            ),
        ),
        _ => (
            "Bearer",
            (
                400,
                "{\"error\":\"partial write of line protocol occurred\",\"data\":[{\
                 \"original_line\":\"m,a=b v=\\\"x\\\" 1\",\"line_number\":2,\"error_message\":\
                 \"invalid column type for column 'v'\"}]}",
            ),
        ),
    };
    let mut databases = databases.lock().unwrap();
    let name = name_of(&write.target);
    if write.authorization.as_deref() != Some(&format!("{scheme} {SECRET}")) {
        return Reply::Status(401, None, "{\"code\":\"unauthorized\"}");
    }
    if api == Api::V2 && !databases.contains(name) {
        let missing = "{\"code\":\"not found\",\"message\":\"bucket not found\"}";
        return Reply::Status(404, None, missing);
    }
    databases.insert(name.to_owned());
    if write.body.len() > BODY_BYTES_MAX {
        return Reply::Status(413, None, "{\"code\":\"request too large\"}");
    }
    match write.body.contains('"') {
        true => Reply::Status(refused.0, None, refused.1),
        false => Reply::Status(204, None, ""),
    }
}
