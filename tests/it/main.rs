//! End-to-end tests: the real Envoy with our services as processes, on embedded parts or on the
//! real Redis, Kafka and InfluxDB. One binary, so that it links once.

mod agents;
mod authentication;
mod bad_input;
mod break_glass;
mod classes;
mod drain;
mod encryption;
mod end_to_end;
mod health;
mod impaired;
mod launcher;
mod lint_envoy;
mod load;
mod outage;
mod outage_table;
mod own_answers;
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
