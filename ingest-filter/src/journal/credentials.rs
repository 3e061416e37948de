//! What the files of Kafka's security hold: read at the start, followed afterwards. New ones that
//! cannot be used change nothing.
//!
//! ```text
//! files ─ good ─► in force: clients are built anew, and the old ones end with what they have begun
//!       └ bad ──► at the start the end of the process, later a warning; what was in force stays
//! ```

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chassis::process::UsageError;
use chassis::readiness::Readiness;
use chassis::reload::{self, Snapshot};
use chassis::telemetry::error_chain;
use chassis::tls;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::watch;

use crate::journal::config::security::{Proof, Sasl, Security};
use crate::journal::token;
use crate::secret;

/// The name of the warning in `/readyz`.
const WARNING: &str = "kafka";
/// What it says before the first certificate.
const AWAITED: &str = "the Workload API has given no certificate yet";

/// The settings of Kafka's security and what their files hold. Clones share it.
#[derive(Clone, Debug)]
pub struct Credentials {
    security: Arc<Security>,
    files: Arc<OnceLock<tls::Material>>,
    in_force: watch::Sender<Arc<Material>>,
}

/// What the files hold, as text.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Material {
    /// The authorities of the brokers, PEM.
    pub authorities: Option<String>,
    /// Our certificate and its key, PEM.
    pub identity: Option<(String, String)>,
    /// The password.
    pub password: Option<String>,
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Material(..)")
    }
}

impl PartialEq for Credentials {
    fn eq(&self, other: &Self) -> bool {
        self.security == other.security
    }
}

impl Eq for Credentials {}

impl Default for Credentials {
    fn default() -> Self {
        Self::new(Security::default())
    }
}

impl Credentials {
    /// Reads nothing yet.
    pub fn new(security: Security) -> Self {
        let (security, in_force) = (Arc::new(security), watch::Sender::default());
        Self { security, files: Arc::default(), in_force }
    }

    /// The settings.
    pub fn security(&self) -> &Security {
        &self.security
    }

    /// Reads the files.
    ///
    /// # Errors
    /// When they cannot be used; the first of them is named.
    pub fn read_files(&self) -> Result<(), UsageError> {
        let files = self.files();
        let material = match files.awaits_the_first() {
            true => read(&self.security.before_the_first(), &files.read()),
            false => read(&self.security, &files.read()),
        };
        let material = material.map_err(UsageError)?;
        self.in_force.send_replace(Arc::new(material));
        match self.security.token_file() {
            Some(file) => token::read(file).map(drop).map_err(UsageError),
            None => Ok(()),
        }
    }

    /// Waits until a Workload API has sent something, where there is one, and says why nothing came in time:
    /// for commands, whose clients are made once.
    pub fn wait_for_the_first(&self, most: Duration) -> Option<String> {
        let files = self.files();
        files.wait_for_the_first(most);
        files.awaits_the_first().then(|| awaited(files))
    }

    /// What is in force, and when that changes.
    pub fn in_force(&self) -> watch::Receiver<Arc<Material>> {
        self.in_force.subscribe()
    }

    /// Follows the files. Never ends.
    pub async fn follow(&self, readiness: &Readiness, is_refused: &Gauge) {
        let files = self.files();
        if files.is_nothing() {
            return std::future::pending().await;
        }
        let apply = |snapshot| match files.awaits_the_first() {
            true => readiness.warn(WARNING, awaited(files)),
            false => self.apply(&snapshot, readiness, is_refused),
        };
        files.follow(reload::PERIOD, apply).await;
    }

    /// The files and the Workload API, which is asked from now on.
    fn files(&self) -> &tls::Material {
        self.files.get_or_init(|| self.security.material())
    }

    fn apply(&self, snapshot: &Snapshot, readiness: &Readiness, is_refused: &Gauge) {
        let read = read(&self.security, snapshot);
        is_refused.set(i64::from(read.is_err()));
        match read {
            Ok(material) => {
                readiness.all_well(WARNING);
                let is_new = **self.in_force.borrow() != material;
                if is_new {
                    self.in_force.send_replace(Arc::new(material));
                    tracing::info!("new files for Kafka are in force");
                }
            }
            Err(reason) => {
                let warning = format!("new files are refused, the old are in force: {reason}");
                readiness.warn(WARNING, warning);
                tracing::error!(reason, "files for Kafka refused");
            }
        }
    }
}

/// That nothing was sent yet, and why, where that is known.
fn awaited(files: &tls::Material) -> String {
    let away = files.away().map_or_else(String::new, |reason| format!(": {reason}"));
    format!("{AWAITED}{away}")
}

fn read(security: &Security, files: &Snapshot) -> Result<Material, String> {
    let mut material = Material::default();
    if let Some(tls) = &security.tls {
        tls.read(files).map_err(|error| error_chain(&error))?;
        let pem = |path: &Path| text(files, path);
        material.authorities = tls.authorities.as_deref().map(pem).transpose()?;
        material.identity = match &tls.identity {
            Some((certificate, key)) => Some((pem(certificate)?, pem(key)?)),
            None => None,
        };
    }
    if let Some(Sasl { proof: Proof::Password { file, .. }, .. }) = &security.sasl {
        let password = secret::of(bytes(files, file)?);
        let named = |problem| format!("'{}' {problem}", file.display());
        material.password = Some(password.map_err(named)?);
    }
    Ok(material)
}

fn text(files: &Snapshot, path: &Path) -> Result<String, String> {
    let bytes = bytes(files, path)?.to_vec();
    String::from_utf8(bytes).map_err(|_| format!("'{}' is no text", path.display()))
}

fn bytes<'a>(files: &'a Snapshot, path: &Path) -> Result<&'a [u8], String> {
    match files.get(path) {
        Some(Ok(bytes)) => Ok(bytes),
        Some(Err(error)) => Err(format!("'{}' cannot be read: {error}", path.display())),
        None => Err(format!("'{}' cannot be read", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::journal::config::security::Mechanism;

    fn by_password(file: &Path) -> Credentials {
        let proof = Proof::Password { username: "tidegate".to_owned(), file: file.to_owned() };
        let sasl = Some(Sasl { mechanism: Mechanism::ScramSha512, proof });
        Credentials::new(Security { tls: None, sasl })
    }

    #[tokio::test]
    async fn a_workload_api_may_be_away_at_the_start() {
        let dir = tempfile::tempdir().expect("a directory");
        let password = dir.path().join("password");
        fs::write(&password, "secret\n").expect("written");
        let address = format!("unix://{}/agent.sock", dir.path().display());
        let tls = chassis::tls::client::ClientSettings::by_workload_api(&address);
        let mut security = by_password(&password).security().clone();
        security.tls = Some(tls.expect("an address"));
        let credentials = Credentials::new(security);
        credentials.read_files().expect("nothing is sent yet");
        let material = credentials.in_force().borrow().clone();
        assert!(material.identity.is_none() && material.password.as_deref() == Some("secret"));
        let (readiness, is_refused) = (Readiness::new(), Gauge::default());
        let following = {
            let (readiness, is_refused) = (readiness.clone(), is_refused.clone());
            tokio::spawn(async move { credentials.follow(&readiness, &is_refused).await })
        };
        while readiness.warnings().is_empty() {
            tokio::task::yield_now().await;
        }
        let warning = readiness.warnings().remove(0);
        assert!(warning.starts_with(&format!("kafka: {AWAITED}")), "{warning}");
        assert_eq!(is_refused.get(), 0);
        following.abort();
    }

    #[test]
    fn a_command_says_that_no_certificate_came() {
        let address = "unix:///nowhere/agent.sock";
        let tls = chassis::tls::client::ClientSettings::by_workload_api(address);
        let credentials = Credentials::new(Security { tls, sasl: None });
        credentials.read_files().expect("nothing is sent yet");
        let reason = credentials.wait_for_the_first(Duration::ZERO).expect("nobody sends");
        assert!(reason.starts_with(AWAITED), "{reason}");
        assert_eq!(Credentials::default().wait_for_the_first(Duration::ZERO), None, "files alone");
    }

    #[test]
    fn bad_files_are_named_at_the_start() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("password");
        let read = || by_password(&file).read_files().map_err(|error| error.to_string());
        let named = |what: &str| Err(format!("'{}' {what}", file.display()));
        assert!(read().expect_err("absent").contains("password' cannot be read"));
        fs::write(&file, "\n").expect("written");
        assert_eq!(read(), named("holds no secret"));
        fs::write(&file, b"\xff").expect("written");
        assert_eq!(read(), named("cannot be read: it is no text"));
        fs::write(&file, "secret\r\n").expect("written");
        assert_eq!(read(), Ok(()));
        let credentials = by_password(&file);
        credentials.read_files().expect("good");
        assert_eq!(credentials.in_force().borrow().password.as_deref(), Some("secret"));
        assert!(!format!("{credentials:?}").contains("secret"), "a password is no word for a log");
    }

    #[tokio::test]
    async fn a_bad_rotation_changes_nothing_and_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("password");
        let put = |text: &str| {
            fs::write(dir.path().join("new"), text).expect("written");
            fs::rename(dir.path().join("new"), &file).expect("renamed");
        };
        put("one");
        let credentials = by_password(&file);
        credentials.read_files().expect("good");
        let (readiness, is_refused) = (Readiness::new(), Gauge::default());
        let mut in_force = credentials.in_force();
        let following = {
            let (credentials, readiness) = (credentials.clone(), readiness.clone());
            let is_refused = is_refused.clone();
            tokio::spawn(async move { credentials.follow(&readiness, &is_refused).await })
        };
        put("two\n");
        let two = in_force.wait_for(|now| now.password.as_deref() == Some("two")).await;
        drop(two.expect("followed"));
        put("");
        while readiness.warnings().is_empty() {
            tokio::task::yield_now().await;
        }
        let warning = readiness.warnings().remove(0);
        assert!(warning.contains("the old are in force: '") && warning.contains("no secret"));
        assert!(readiness.is_ready() && is_refused.get() == 1);
        assert_eq!(in_force.borrow().password.as_deref(), Some("two"));
        put("three");
        let three = in_force.wait_for(|now| now.password.as_deref() == Some("three")).await;
        drop(three.expect("followed"));
        assert!(readiness.warnings().is_empty() && is_refused.get() == 0);
        following.abort();
    }
}
