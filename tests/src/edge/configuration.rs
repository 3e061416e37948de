//! The files that an edge's services read: quotas, keys, and one configuration each.

use std::path::PathBuf;

use anyhow::Result;
use ratelimit_svc::cli::check;
use ratelimit_svc::limits::class::Classes;

use super::replica::numbered;
use super::{Edge, Replica, Service};
use crate::parts::envoy::{Charged, OutageClasses};

/// Partitions of the topic, unless there are more writers.
const PARTITIONS_MIN: usize = 4;

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
        let drain = format!("drain_delay: {}\n", self.options.patience.drain_delay);
        for number in 0..self.options.replicas {
            let authz = self.authz_yaml(&self.authz[number])? + &drain;
            let authz = authz + &self.collector(Service::Authz.name());
            std::fs::write(self.config(Service::Authz, number), authz)?;
            let ingest = self.ingest_yaml(number) + &drain;
            let ingest = ingest + &self.collector(Service::Gateway.name());
            std::fs::write(self.config(Service::Gateway, number), ingest)?;
        }
        Ok(())
    }

    /// The configuration file of a replica. Gateway and writer of one number share one.
    pub(super) fn config(&self, service: Service, number: usize) -> PathBuf {
        let name = match service {
            Service::Authz => "ext-authz",
            Service::Gateway | Service::Writer => "ingest-filter",
            // By environment variables alone.
            Service::Ratelimit => "ratelimit-svc",
        };
        self.options.dir.join(format!("{}.yaml", numbered(name, number)))
    }

    /// What Envoy is told of the classes: what the quota files say of them now.
    pub(super) fn outage_classes(&self) -> Result<OutageClasses> {
        OutageClasses::try_new(&self.classes())
    }

    /// What Envoy reports beside requests: what the quota files limit now.
    pub(super) fn charged(&self) -> Charged {
        Charged::new(&check::load(&[self.quota_dir()], false).quotas)
    }

    /// The classes of the quota files. What is wrong with those is ratelimit-svc's to say.
    fn classes(&self) -> Classes {
        check::load(&[self.quota_dir()], false).quotas.classes().clone()
    }

    fn authz_yaml(&self, replica: &Replica) -> Result<String> {
        // Refused here too, before anything is started.
        self.outage_classes()?;
        // In quotes, as `no` and `1` are names as well.
        let classes = self.classes();
        let names: Vec<String> =
            classes.ladder().iter().map(|class| format!("{:?}", class.name)).collect();
        Ok(format!(
            "grpc_listen: {}\nadmin_listen: {}\n{}pepper_files:\n  1: pepper\n\
             priority_classes: [{}]\n{}",
            replica.listen,
            replica.admin,
            self.source_of_keys(),
            names.join(", "),
            self.listener_tls("grpc_tls", Service::Authz)
        ))
    }

    fn source_of_keys(&self) -> String {
        match &self.redis {
            Some(redis) if self.options.keys_in_redis => {
                format!("redis:\n  address: {}\n{}", redis.address, self.keys_tls())
            }
            _ => "keys_file: keys.yaml\n".to_owned(),
        }
    }

    /// A journal on disk belongs to one gateway and one writer, so each number has one of its own.
    fn ingest_yaml(&self, number: usize) -> String {
        let dir = self.options.dir.display();
        let (gateway, writer) = (&self.gateway[number], &self.writer[number]);
        let journal = match &self.kafka {
            Some(kafka) => format!(
                "  kafka:\n    brokers: {}\n    topic: tidegate-points\n\
                 \x20   create_topic: {{partitions: {}, replication_factor: 1}}\n{}",
                kafka.address,
                PARTITIONS_MIN.max(self.options.replicas),
                self.kafka_security()
            ),
            None => format!("  disk:\n    directory: {dir}/{}\n", numbered("journal", number)),
        };
        let sink = match &self.influxdb {
            Some(influxdb) => format!(
                "  influxdb_v1:\n    url: {}\n    create_database: true\n{}",
                influxdb.url(),
                self.influxdb_tls()
            ),
            None => format!("  file:\n    path: {dir}/points.lp\n"),
        };
        format!(
            "journal:\n{journal}gateway:\n  listen: {}\n  admin_listen: {}\n  cors_origins: {:?}\n{}\
             writer:\n  admin_listen: {}\n{sink}",
            gateway.listen,
            gateway.admin,
            self.options.proxy.cors_origins,
            self.listener_tls("  tls", Service::Gateway),
            writer.admin
        )
    }
}
