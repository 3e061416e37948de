//! Redis, Kafka and InfluxDB of an edge on real parts, encrypted where its hops are.

use anyhow::{Context, Result};

use super::Edge;
use crate::parts::influxdb::InfluxDb;
use crate::parts::kafka::Kafka;
use crate::parts::redis::Redis;
use crate::ports::free_address;

impl Edge {
    /// Starts Redis again where it was and as it was, after it was killed.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn restart_redis(&mut self) -> Result<()> {
        let address = self.redis.as_ref().context("this edge has no Redis")?.address;
        let dir = &self.options.dir;
        self.redis = Some(match &self.pki {
            Some(pki) => Redis::start_encrypted(dir, address, pki).await?,
            None => Redis::start(dir, address).await?,
        });
        Ok(())
    }

    /// The same of InfluxDB.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn restart_influxdb(&mut self) -> Result<()> {
        let address = self.influxdb.as_ref().context("this edge has no InfluxDB")?.address;
        let dir = self.options.dir.join("influxdb");
        self.influxdb = Some(match &self.pki {
            Some(pki) => InfluxDb::start_encrypted(&dir, address, pki).await?,
            None => InfluxDb::start(&dir, address).await?,
        });
        Ok(())
    }

    /// Starts them and tells the services where they are.
    pub(super) async fn start_real_parts(&mut self, progress: &mut impl FnMut(&str)) -> Result<()> {
        let dir = self.options.dir.clone();
        let (redis_at, influxdb_at, kafka_at) = (free_address()?, free_address()?, free_address()?);
        let (influxdb_dir, kafka_dir) = (dir.join("influxdb"), dir.join("kafka"));
        let (redis, influxdb, kafka) = match &self.pki {
            Some(pki) => (
                Redis::start_encrypted(&dir, redis_at, pki).await?,
                InfluxDb::start_encrypted(&influxdb_dir, influxdb_at, pki).await?,
                Kafka::start_encrypted(&kafka_dir, kafka_at, pki).await?,
            ),
            None => (
                Redis::start(&dir, redis_at).await?,
                InfluxDb::start(&influxdb_dir, influxdb_at).await?,
                Kafka::start(&kafka_dir, kafka_at).await?,
            ),
        };
        let how = |encrypted| if self.pki.is_some() { encrypted } else { "in clear text" };
        progress(&format!("redis            ready on {}, {}", redis.address, how("TLS")));
        progress(&format!("influxdb         ready on {}, {}", influxdb.address, how("https")));
        progress(&format!("kafka            ready on {}, {}", kafka.address, how("SASL_SSL")));
        (self.redis, self.influxdb, self.kafka) = (Some(redis), Some(influxdb), Some(kafka));
        self.write_configuration()
    }
}
