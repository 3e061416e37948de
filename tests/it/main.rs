//! End-to-end tests: the real Envoy with our services as processes, on embedded parts or on the
//! real Redis, Kafka and InfluxDB. One binary, so that it links once.

mod agents;
mod authentication;
mod bad_input;
mod break_glass;
mod classes;
mod documents;
mod drain;
mod encryption;
mod end_to_end;
mod faults;
mod health;
mod impaired;
mod kafka_security;
mod launcher;
mod lint_envoy;
mod load;
mod lost_right;
mod outage;
mod outage_table;
mod own_answers;
mod peer;
mod points;
mod pools;
mod quota;
mod reload;
mod replicas;
mod spoofing;
mod stage;
mod stand_in;
mod startup;
mod surface;
mod tenant_view;
mod throttled;
mod tls_client;
mod trace;
