//! `ingest-filter topics`: makes the journal's topics, and says whether they keep what they are
//! given. It is what the chart's job runs before gateways and writers need them.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;
use tokio::time::Instant;

use crate::command::{Common, print};
use crate::journal::config::JournalConfig;
use crate::journal::kafka::provision::{Provisioned, provision};

/// Shown by `--help`.
pub const EXAMPLES: &str = "Examples:
  ingest-filter topics --config i.yaml
  ingest-filter topics --config i.yaml --within 300    # brokers may come up later

Makes the topics that are missing, where journal.kafka.create_topic is given.";

/// Pause between two tries.
const PAUSE: Duration = Duration::from_secs(1);

/// `topics`.
#[derive(Args, Debug)]
pub struct Topics {
    #[command(flatten)]
    common: Common,
    /// Seconds within which every topic must be as it should be.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    within: u64,
}

impl Topics {
    /// Runs the command to its end.
    ///
    /// # Errors
    /// When a topic is still not as it should be, or the journal has none.
    pub fn run(&self) -> anyhow::Result<()> {
        let (_, journal) = self.common.load()?;
        if matches!(journal, JournalConfig::Disk(_)) {
            bail!("the journal is on a disk, which has no topics");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let found = runtime.block_on(self.until_usable(&journal))?;
        for topic in &found {
            self.report(topic).context("the topics cannot be printed")?;
        }
        match found.iter().filter(|topic| topic.partitions.is_err()).count() {
            0 => Ok(()),
            count => bail!("{count} of {} topics cannot be used", found.len()),
        }
    }

    async fn until_usable(&self, journal: &JournalConfig) -> anyhow::Result<Vec<Provisioned>> {
        let end = Instant::now() + Duration::from_secs(self.within);
        loop {
            let found = provision(journal).await?;
            if found.iter().all(|topic| topic.partitions.is_ok()) || Instant::now() + PAUSE > end {
                return Ok(found);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn report(&self, found: &Provisioned) -> std::io::Result<()> {
        let Provisioned { topic, partitions } = found;
        if self.common.json {
            let error = partitions.as_ref().err();
            let partitions = partitions.as_ref().ok();
            let object = json!({ "topic": topic, "partitions": partitions, "error": error });
            return print(&object.to_string());
        }
        match partitions {
            Ok(partitions) => print(&format!("ok: {topic}, partitions: {partitions}")),
            Err(why) => print(&format!("not usable: {why}")),
        }
    }
}
