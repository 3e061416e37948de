//! A real VictoriaMetrics on a free port: a second database that serves the write APIs of InfluxDB.

use std::fs::File;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::kafka_broker::free_port;
use crate::support::wait_for;
use crate::writer_file::get_as;

/// The label that holds the name of the database, as README of the writer tells people to set it.
pub const LABEL: &str = "tidegate_db";
/// writer:right, for a server that has a login.
const LOGIN: &str = "authorization: Basic d3JpdGVyOnJpZ2h0\r\n";
/// Attempts to start a server.
const STARTS_MAX: usize = 50;

/// A server that is killed when dropped.
pub struct Victoria {
    _directory: TempDir,
    address: std::net::SocketAddr,
    child: Child,
}

impl Victoria {
    /// Starts a server on an empty directory, with these flags more, and waits until it answers.
    pub async fn start(flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for _ in 0..STARTS_MAX {
            let address = ([127, 0, 0, 1], free_port()).into();
            let mut child = spawn(&directory, address, flags);
            let answers = wait_for("VictoriaMetrics", || {
                let ended = child.try_wait().unwrap().is_some();
                async move {
                    let answers = tokio::net::TcpStream::connect(address).await.is_ok();
                    (answers || ended).then_some(!ended)
                }
            })
            .await;
            if answers {
                return Self { _directory: directory, address, child };
            }
        }
        let log = std::fs::read_to_string(directory.path().join("log")).unwrap();
        panic!("VictoriaMetrics does not start: {log}");
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every series, with its values and their times in milliseconds.
    pub async fn series(&self) -> Vec<serde_json::Value> {
        get_as(self.address, "/internal/force_flush", LOGIN).await;
        let all = "/api/v1/export?match[]=%7B__name__!=%22%22%7D";
        let answer = get_as(self.address, all, LOGIN).await;
        let lines = answer.lines().filter(|line| line.starts_with('{'));
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Victoria {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn spawn(directory: &TempDir, address: std::net::SocketAddr, flags: &[&str]) -> Child {
    let path = directory.path();
    let log = File::options().create(true).append(true).open(path.join("log")).unwrap();
    Command::new("victoria-metrics")
        .arg(format!("-storageDataPath={}", path.join("data").display()))
        .arg(format!("-httpListenAddr={address}"))
        .arg(format!("-influxDBLabel={LABEL}"))
        // What is as old as the points of the tests is kept, and a point that is written twice
        // counts once.
        .args(["-retentionPeriod=100y", "-dedup.minScrapeInterval=1ms"])
        .args(flags)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .expect("victoria-metrics: apt-get install victoria-metrics")
}
