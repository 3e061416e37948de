//! Who may speak to Kafka: by certificate, by a token that is renewed in a file, and with files that
//! change while gateway and writer run.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use tests::child::Child;
use tests::http::Http;
use tests::parts::kafka::{PASSWORD, USER};
use tests::pki::{Pki, replace};
use tests::ports::free_address;
use tests::wait::{DEADLINE, wait_for};

use crate::stage::Stage;

/// A gateway or a writer of the test's own, beside the edge.
struct Process {
    child: Child,
    listen: String,
    admin: String,
    points: PathBuf,
}

/// Kafka's place, and where files are.
struct Place {
    stage: Stage,
    http: Http,
}

impl Place {
    async fn new() -> Result<Self> {
        Ok(Self { stage: Stage::real().await?, http: Http::new() })
    }

    fn pki(&self) -> &Pki {
        self.stage.edge.pki.as_ref().expect("the edge is encrypted")
    }

    fn dir(&self) -> &Path {
        &self.stage.edge.options.dir
    }

    /// Starts `role` against one of Kafka's listeners with these settings, in topics of its own kind.
    async fn start(
        &self,
        role: &str,
        name: &str,
        brokers: &str,
        security: &str,
    ) -> Result<Process> {
        let (listen, admin) = (free_address()?.to_string(), free_address()?.to_string());
        let points = self.dir().join(format!("{name}.lp"));
        let yaml = format!(
            "journal:\n  kafka:\n    brokers: {brokers}\n    group: {name}\n{security}\
             gateway: {{listen: '{listen}', admin_listen: '{admin}'}}\n\
             writer: {{admin_listen: '{admin}', file: {{path: '{}'}}}}\ndrain_delay: 0s\n",
            points.display()
        );
        let file = self.dir().join(format!("{name}.yaml"));
        std::fs::write(&file, yaml)?;
        let mut command = std::process::Command::new(tests::edge::service("ingest-filter")?);
        command.args([role, "--config"]).arg(file);
        let child = Child::start(name, self.dir(), command)?;
        Ok(Process { child, listen, admin, points })
    }

    async fn status(&self, process: &Process) -> Option<u16> {
        let url = format!("http://{}/readyz", process.admin);
        Some(self.http.get(&url).await.ok()?.status.as_u16())
    }

    /// Whether a process that has just begun says that it is not ready, as soon as it says anything.
    async fn is_unready(&self, process: &Process) -> Result<bool> {
        let status = wait_for("an answer", DEADLINE, async || self.status(process).await).await;
        Ok(status.with_context(|| process.child.output())? == 503)
    }

    async fn ready(&self, process: &mut Process) -> Result<()> {
        let ready = wait_for("it to be ready", DEADLINE, async || {
            self.status(process).await.filter(|status| *status == 200).map(drop)
        });
        ready
            .await
            .or_else(|error| process.child.check_alive().and(Err(error)))
            .with_context(|| process.child.output())
    }

    /// Writes a point as Envoy hands it on.
    async fn write(&self, gateway: &Process, line: &str) -> Result<()> {
        let url = format!("http://{}/write?db=demo", gateway.listen);
        let identity = [("x-tidegate-tenant", "acme"), ("x-tidegate-key-id", "k")];
        let reply = self.http.post(&url, &identity, line.to_owned()).await?;
        ensure!(
            reply.status == 204,
            "{} {} {}",
            reply.status,
            reply.text(),
            gateway.child.output()
        );
        Ok(())
    }

    /// Waits until a writer has a point in its file.
    async fn arrived(&self, writer: &Process, point: &str) -> Result<()> {
        wait_for(&format!("{point} in the file"), DEADLINE, async || {
            let text = std::fs::read_to_string(&writer.points).unwrap_or_default();
            text.contains(point).then_some(())
        })
        .await
        .with_context(|| writer.child.output())
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A token that is not signed, which a broker for trials believes.
fn token(subject: Option<&str>, lifetime: u64) -> String {
    let subject = subject.map_or(String::new(), |subject| format!("\"sub\":\"{subject}\","));
    let claims = format!("{{{subject}\"iat\":{},\"exp\":{}}}", now() - 1, now() + lifetime);
    let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.\n", part("{\"alg\":\"none\"}"), part(&claims))
}

/// A sidecar that puts a good token into the file every two seconds.
async fn sign(file: PathBuf, renewals: Arc<AtomicU32>) -> Result<Infallible> {
    let mut pace = tokio::time::interval(Duration::from_secs(2));
    loop {
        pace.tick().await;
        replace(&file, &token(Some(USER), 8))?;
        renewals.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gateway_and_writer_log_in_to_kafka_by_certificate_or_token() -> Result<()> {
    let place = Place::new().await?;
    let kafka = place.stage.edge.kafka.as_ref().context("Kafka runs")?;
    let (login, mutual) = (kafka.address.to_string(), kafka.mutual.to_string());
    let pki = place.pki();
    let ca = pki.authority().display().to_string();

    // By certificate: none is refused, the gateway's own is enough.
    let nobody = format!("    tls: {{ca_file: {ca}}}\n");
    let stranger = place.start("gateway", "nobody", &mutual, &nobody).await?;
    wait_for("the refusal to be said", DEADLINE, async || {
        let output = stranger.child.output().to_lowercase();
        (output.contains("alert") || output.contains("handshake failed")).then_some(())
    })
    .await
    .with_context(|| stranger.child.output())?;
    ensure!(place.is_unready(&stranger).await?, "it is ready");
    let certificate = format!(
        "    tls: {{ca_file: {ca}, certificate_file: {}, key_file: {}}}\n",
        pki.certificate("gateway").display(),
        pki.key("gateway").display()
    );
    let mut gateway = place.start("gateway", "by-certificate", &mutual, &certificate).await?;
    let mut writer = place.start("writer", "reads-by-certificate", &mutual, &certificate).await?;
    place.ready(&mut gateway).await?;
    place.ready(&mut writer).await?;
    place.write(&gateway, "by_certificate f=1").await?;
    place.arrived(&writer, "by_certificate").await?;

    // By token: one that the broker refuses first, then good ones that live for eight seconds on a
    // broker that asks for the login again every four.
    let file = place.dir().join("token");
    replace(&file, &token(None, 10))?;
    let bearer = format!(
        "    tls: {{ca_file: {ca}}}\n    sasl: {{mechanism: OAUTHBEARER, token_file: {}}}\n",
        file.display()
    );
    let mut gateway = place.start("gateway", "by-token", &login, &bearer).await?;
    wait_for("the refusal to be said", DEADLINE, async || {
        gateway.child.output().to_lowercase().contains("authentication").then_some(())
    })
    .await
    .with_context(|| gateway.child.output())?;
    ensure!(place.is_unready(&gateway).await?, "it is ready");
    let (signed, renewals) = (file.clone(), Arc::new(AtomicU32::new(0)));
    let signer = tokio::spawn(sign(signed, renewals.clone()));
    place.ready(&mut gateway).await?;
    let mut writer = place.start("writer", "reads-by-token", &login, &bearer).await?;
    place.ready(&mut writer).await?;
    let (before, mut count) = (renewals.load(Ordering::Relaxed), 0);
    while renewals.load(Ordering::Relaxed) < before + 8 {
        place.write(&gateway, &format!("by_token,n=t{count} f=1")).await?;
        count += 1;
    }
    place.arrived(&writer, &format!("n=t{} ", count - 1)).await?;
    signer.abort();
    eprintln!("{count} writes through two tokens and more, none refused");

    // A token that has expired is no token to begin with.
    replace(&file, &token(Some(USER), 0))?;
    let mut late = place.start("gateway", "too-late", &login, &bearer).await?;
    let status = late.child.wait(DEADLINE).await?;
    ensure!(status.code() == Some(64), "{status} {}", late.child.output());
    ensure!(late.child.output().contains("token' has expired"), "{}", late.child.output());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn new_files_for_kafka_need_no_restart_and_lose_nothing() -> Result<()> {
    let place = Place::new().await?;
    let kafka = place.stage.edge.kafka.as_ref().context("Kafka runs")?.address.to_string();
    let pki = place.pki();
    pki.issue("client")?;
    let password = place.dir().join("followed-password");
    replace(&password, "not it\n")?;
    let security = format!(
        "    tls: {{ca_file: {}, certificate_file: {}, key_file: {}}}\n    \
         sasl: {{mechanism: SCRAM-SHA-512, username: {USER}, password_file: {}}}\n",
        pki.authority().display(),
        pki.certificate("client").display(),
        pki.key("client").display(),
        password.display()
    );
    let mut gateway = place.start("gateway", "followed", &kafka, &security).await?;
    let mut writer = place.start("writer", "follows", &kafka, &security).await?;
    wait_for("the refusal to be said", DEADLINE, async || {
        gateway.child.output().to_lowercase().contains("authentication").then_some(())
    })
    .await
    .with_context(|| gateway.child.output())?;
    ensure!(place.is_unready(&gateway).await?, "it is ready");
    // The right password, without a restart.
    replace(&password, &format!("{PASSWORD}\n"))?;
    place.ready(&mut gateway).await?;
    place.ready(&mut writer).await?;
    place.write(&gateway, "renewed,n=first f=1").await?;
    place.arrived(&writer, "renewed").await?;
    // New certificates again and again while records pass: none is refused, all arrive.
    let taken = |process: &Process| process.child.output().matches("new files for Kafka").count();
    let mut count = 0;
    for round in 1..=3 {
        let before = (taken(&gateway), taken(&writer));
        pki.issue("client")?;
        let deadline = tokio::time::Instant::now() + DEADLINE;
        while taken(&gateway) == before.0 || taken(&writer) == before.1 {
            ensure!(tokio::time::Instant::now() < deadline, "round {round}: not taken");
            place.write(&gateway, &format!("renewed,n={count} f=1")).await?;
            count += 1;
        }
        for _ in 0..20 {
            place.write(&gateway, &format!("renewed,n={count} f=1")).await?;
            count += 1;
        }
    }
    wait_for("every record in the file", DEADLINE, async || {
        let text = std::fs::read_to_string(&writer.points).unwrap_or_default();
        (0..count).all(|n| text.contains(&format!("n={n} "))).then_some(())
    })
    .await
    .with_context(|| writer.child.output())?;
    // A key that is not the certificate's: said, and nothing changes.
    replace(&pki.key("client"), &pki.sign("client")?.key)?;
    let url = format!("http://{}/readyz", gateway.admin);
    wait_for("the warning", DEADLINE, async || {
        let reply = place.http.get(&url).await.ok()?;
        (reply.status == 200 && reply.text().contains("kafka: new files are refused")).then_some(())
    })
    .await
    .with_context(|| gateway.child.output())?;
    place.write(&gateway, "renewed,n=last f=1").await?;
    eprintln!("{count} writes through three rotations, none refused");
    Ok(())
}
