//! A real InfluxDB 1.6.7 on free ports, with everything switched off but writing and querying.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::kafka_broker::free_port;
use crate::support::wait_for;
use crate::writer_file::get;

/// Attempts to start a server.
const STARTS_MAX: usize = 50;

/// A database server that is killed when dropped.
pub struct Influxd {
    directory: TempDir,
    port: u16,
    child: Option<Child>,
}

impl Influxd {
    /// Starts a server on an empty directory and waits until it answers.
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// The same with more lines in its section `[http]`.
    pub async fn start_with(http: &str) -> Self {
        let mut server = Self::stopped_with(http);
        server.restart().await;
        server
    }

    /// A server that has its place and does not run.
    pub fn stopped() -> Self {
        Self::stopped_with("")
    }

    fn stopped_with(http: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (port, rpc) = (free_port(), free_port());
        let place = directory.path().display();
        let config = format!(
            "reporting-disabled = true\n\
             bind-address = \"127.0.0.1:{rpc}\"\n\
             [meta]\n  dir = \"{place}/meta\"\n\
             [data]\n  dir = \"{place}/data\"\n  wal-dir = \"{place}/wal\"\n\
             [monitor]\n  store-enabled = false\n\
             [http]\n  bind-address = \"127.0.0.1:{port}\"\n  log-enabled = false\n{http}\
             [subscriber]\n  enabled = false\n\
             [continuous_queries]\n  enabled = false\n"
        );
        std::fs::write(directory.path().join("influxdb.conf"), config).unwrap();
        Self { directory, port, child: None }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Starts it until it answers: its port may be in use for the moment as the near end of a
    /// connection.
    pub async fn restart(&mut self) {
        for _ in 0..STARTS_MAX {
            self.start_once().await;
            if self.is_alive() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap();
        panic!("influxd does not start: {log}");
    }

    /// Starts it, and waits until it answers or has ended.
    pub async fn start_once(&mut self) {
        let path = self.directory.path();
        let log = File::options().create(true).append(true).open(path.join("log")).unwrap();
        let child = Command::new("influxd")
            .arg("-config")
            .arg(path.join("influxdb.conf"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("influxd: apt-get install influxdb");
        let child = self.child.insert(child);
        let port = self.port;
        wait_for("influxd", || {
            let ended = child.try_wait().unwrap().is_some();
            async move {
                let answers = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok();
                (answers || ended).then_some(())
            }
        })
        .await;
    }

    /// SIGKILL, as a crash.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Whether the process is still there.
    pub fn is_alive(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// The rows of a query as JSON arrays; none when there is no such series or database.
    pub async fn rows(&self, query: &str) -> Vec<Vec<serde_json::Value>> {
        self.rows_of("acme__default", query).await
    }

    /// The same of another database.
    pub async fn rows_of(&self, database: &str, query: &str) -> Vec<Vec<serde_json::Value>> {
        let query = query.replace(' ', "%20").replace('"', "%22").replace('\'', "%27");
        let path = format!("/query?db={database}&epoch=ns&q={query}");
        let address = ([127, 0, 0, 1], self.port).into();
        let answer = get(address, &path).await;
        let json = answer.split("\r\n\r\n").nth(1).unwrap_or("");
        let json = &json[json.find('{').unwrap_or(0)..json.rfind('}').map_or(0, |end| end + 1)];
        let value: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
        let values = &value["results"][0]["series"][0]["values"];
        serde_json::from_value(values.clone()).unwrap_or_default()
    }
}

impl Drop for Influxd {
    fn drop(&mut self) {
        self.kill();
    }
}
