//! The files of a client that connects seldom: followed all the time, so that bad ones are reported when
//! they come and not at the next connection. Connections read them by themselves.

use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::client::ClientSettings;
use crate::causes::error_chain;
use crate::readiness::Readiness;

/// Reports whether the files of a client can be used.
pub struct FollowedFiles {
    settings: Option<ClientSettings>,
    /// What the client is called in the log and in `/readyz`.
    name: &'static str,
    readiness: Readiness,
    is_refused: Gauge,
}

impl FollowedFiles {
    /// Reads nothing yet. The metric is the name and `_files_refused`, and is there without settings, too.
    pub fn new(
        settings: Option<ClientSettings>,
        name: &'static str,
        readiness: &Readiness,
        registry: &mut Registry,
    ) -> Self {
        let is_refused = Gauge::default();
        let help = "1 while the newest TLS files of the client are refused and older ones are used";
        registry.register(format!("{name}_files_refused"), help, is_refused.clone());
        Self { settings, name, readiness: readiness.clone(), is_refused }
    }

    /// Follows the files. Never ends.
    pub async fn follow(&self, period: Duration) {
        let Some(settings) = &self.settings else { return std::future::pending().await };
        let material = settings.material();
        let mut was_good = false;
        let apply = |files| {
            let read = settings.read(&files).map(drop).map_err(|error| error_chain(&error));
            was_good |= read.is_ok();
            self.report(read, was_good, material.away());
        };
        material.follow(period, apply).await;
    }

    fn report(&self, read: Result<(), String>, was_good: bool, away: Option<String>) {
        self.is_refused.set(i64::from(read.is_err() && was_good));
        let warning = match (read, away) {
            (Ok(()), None) => return self.readiness.all_well(self.name),
            (Ok(()), Some(reason)) => {
                format!("the last certificate is used until it expires, no new one comes: {reason}")
            }
            // Before the first certificate of a Workload API there is nothing older.
            (Err(reason), away) if !was_good => {
                let away = away.map_or_else(String::new, |away| format!("; {away}"));
                format!("nothing can be used yet: {reason}{away}")
            }
            (Err(reason), _) => {
                tracing::error!(reason, client = self.name, "TLS files refused");
                format!("new files are refused, the old are in use: {reason}")
            }
        };
        self.readiness.warn(self.name, warning);
    }
}
