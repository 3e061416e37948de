//! The references name every metric that a running gateway and a running writer show.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use ingest_filter::journal::config::{DiskConfig, JournalConfig};
use ingest_filter::writer::config::TargetConfig;

use crate::process::{config, gateway_that_serves};
use crate::writer_file::{Running, writer_config};

const REFERENCES: [&str; 2] =
    [include_str!("../../REFERENCE.md"), include_str!("../../REFERENCE-writer.md")];

/// The names of the metrics that a listener shows, those without a value among them.
fn metrics(admin: SocketAddr) -> Vec<String> {
    let mut stream = TcpStream::connect(admin).expect("listening");
    let request = format!("GET /metrics HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    let names = answer.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    names.map(str::to_owned).collect()
}

fn undocumented(names: &[String]) -> Vec<&String> {
    let is_named = |name: &&String| {
        let quoted = format!("`{name}");
        REFERENCES.iter().any(|reference| reference.contains(&quoted))
    };
    names.iter().filter(|name| !is_named(name)).collect()
}

#[test]
fn every_metric_of_a_gateway_is_documented() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let text = format!(
        "journal: {{disk: {{directory: '{}/j'}}}}\n\
         gateway: {{listen: '127.0.0.1:0', admin_listen: '127.0.0.1:0'}}\n",
        directory.path().display()
    );
    let (_running, serving) = gateway_that_serves(&config(directory.path(), &text));
    let names = metrics(serving["admin"].as_str().expect("an address").parse().expect("one"));
    assert!(names.len() > 10, "{names:?}");
    assert_eq!(undocumented(&names), Vec::<&String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_of_a_writer_is_documented() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let journal = JournalConfig::Disk(DiskConfig::new(directory.path().join("journal")));
    let target = TargetConfig::File(directory.path().join("points.lp"));
    let running = Running::start(&journal, writer_config(target)).await;
    let admin = running.admin;
    let names = tokio::task::spawn_blocking(move || metrics(admin)).await.expect("no panic");
    assert!(names.len() > 10, "{names:?}");
    assert_eq!(undocumented(&names), Vec::<&String>::new());
    running.stop().await;
}
