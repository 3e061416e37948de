//! The files that an edge's services read: quotas, keys, and one configuration each.

use anyhow::Result;
use ratelimit_svc::cli::check;
use ratelimit_svc::limits::class::Classes;

use super::Edge;
use crate::parts::envoy::OutageClasses;

impl Edge {
    /// Writes all of them; keys and pepper only once.
    pub(super) fn write_configuration(&self) -> Result<()> {
        let dir = &self.options.dir;
        std::fs::create_dir_all(self.quota_dir())?;
        std::fs::write(self.quota_file(), &self.options.quotas)?;
        if !self.keys_file().exists() {
            std::fs::write(self.keys_file(), "keys: []\n")?;
            // A pepper for this run only.
            let random = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?;
            std::fs::write(dir.join("pepper"), random)?;
        }
        let otlp = match self.options.otlp {
            Some(otlp) => format!("otlp_endpoint: http://{otlp}\n"),
            None => String::new(),
        };
        let common = format!("{otlp}drain_delay: {}\n", self.options.patience.drain_delay);
        std::fs::write(self.authz_config(), self.authz_yaml()? + &common)?;
        std::fs::write(dir.join("ingest-filter.yaml"), self.ingest_yaml() + &common)?;
        Ok(())
    }

    /// What Envoy is told of the classes: what the quota files say of them now.
    pub(super) fn outage_classes(&self) -> Result<OutageClasses> {
        OutageClasses::try_new(&self.classes())
    }

    /// The classes of the quota files. What is wrong with those is ratelimit-svc's to say.
    fn classes(&self) -> Classes {
        check::load(&[self.quota_dir()], false).quotas.classes().clone()
    }

    fn authz_yaml(&self) -> Result<String> {
        // Refused here too, before anything is started.
        self.outage_classes()?;
        // In quotes, as `no` and `1` are names as well.
        let classes = self.classes();
        let names: Vec<String> =
            classes.ladder().iter().map(|class| format!("{:?}", class.name)).collect();
        Ok(format!(
            "grpc_listen: {}\nadmin_listen: {}\nkeys_file: keys.yaml\npepper_files:\n  1: pepper\n\
             priority_classes: [{}]\n",
            self.at.authz_grpc,
            self.at.authz_admin,
            names.join(", ")
        ))
    }

    fn ingest_yaml(&self) -> String {
        let dir = self.options.dir.display();
        let at = &self.at;
        let journal = match &self.kafka {
            Some(kafka) => format!(
                "  kafka:\n    brokers: {}\n    topic: tidegate-points\n\
                 \x20   create_topic: {{partitions: 4, replication_factor: 1}}\n",
                kafka.address
            ),
            None => format!("  disk:\n    directory: {dir}/journal\n"),
        };
        let sink = match &self.influxdb {
            Some(influxdb) => format!(
                "  influxdb_v1:\n    url: http://{}\n    create_database: true\n",
                influxdb.address
            ),
            None => format!("  file:\n    path: {dir}/points.lp\n"),
        };
        format!(
            "journal:\n{journal}gateway:\n  listen: {}\n  admin_listen: {}\n\
             writer:\n  admin_listen: {}\n{sink}",
            at.gateway, at.gateway_admin, at.writer_admin
        )
    }
}
