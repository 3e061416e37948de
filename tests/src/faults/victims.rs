//! Who dies in a fault run.

use crate::edge::{Part, Service};

/// Who dies, in this order, and under which name it is counted.
pub const VICTIMS: [(&str, Part); 8] = [
    ("gateway", Part::Replica(Service::Gateway, 0)),
    ("writer", Part::Replica(Service::Writer, 0)),
    ("ratelimit-svc", Part::Replica(Service::Ratelimit, 0)),
    ("ext-authz", Part::Replica(Service::Authz, 0)),
    ("redis", Part::Redis),
    ("kafka", Part::Kafka),
    ("influxdb", Part::InfluxDb),
    ("envoy", Part::Envoy),
];
