//! Types of fields that outlive a gateway and are the same for all of them, on a real broker.

use std::sync::Arc;

use chassis::readiness::Readiness;
use ingest_filter::gateway::pinning::{Pinned, Pinning};
use ingest_filter::journal::config::{JournalConfig, KafkaConfig};
use ingest_filter::journal::open_pins;
use ingest_filter::types::{FieldType, Limits, Pin, Types};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;

use crate::kafka::topic;
use crate::kafka_broker::Broker;
use crate::support::wait_for;

/// One gateway's types, once it is ready.
async fn gateway(config: &KafkaConfig) -> Pinning {
    let limits =
        Limits { fields_max: 1000, fields_per_tenant_max: 1000, databases_per_tenant_max: 9 };
    let (types, readiness) = (Types::new(limits), Readiness::new());
    let log = open_pins(&JournalConfig::Kafka(config.clone()), types.clone(), &readiness).unwrap();
    wait_for("the types", || async { readiness.is_ready().then_some(()) }).await;
    Pinning::new(types, log, &readiness)
}

fn pin(field: &str, field_type: FieldType) -> Pin {
    let (tenant, database) = ("acme".to_owned(), "app".to_owned());
    let (destination, measurement) = ("acme__app".to_owned(), "cpu".to_owned());
    Pin { tenant, database, destination, measurement, field: field.to_owned(), field_type }
}

/// Asks again, as a client does, while the log has not confirmed.
async fn decided(gateway: &Pinning, pins: Vec<Pin>) -> Pinned {
    wait_for("a confirmation", || async {
        let pinned = gateway.pin(pins.clone()).await;
        (!matches!(pinned, Pinned::Unavailable { .. })).then_some(pinned)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_agree_on_types_and_a_new_one_finds_them() {
    let mut broker = Broker::start().await;
    let config = topic(&broker, "typed");
    let (a, b) = tokio::join!(gateway(&config), gateway(&config));
    let mut lost = 0;
    for field in 0..50 {
        let field = format!("f{field}");
        let (first, second) = tokio::join!(
            decided(&a, vec![pin(&field, FieldType::Integer)]),
            decided(&b, vec![pin(&field, FieldType::Float)]),
        );
        assert!(
            matches!(
                (first, second),
                (Pinned::Ours, Pinned::Others) | (Pinned::Others, Pinned::Ours)
            ),
            "one of both is told to look again: {first:?} {second:?}"
        );
        lost += usize::from(first == Pinned::Others);
    }
    let many: Vec<Pin> = (0..900).map(|n| pin(&format!("many{n}"), FieldType::Text)).collect();
    assert_eq!(decided(&a, many).await, Pinned::Ours, "more than fits one message");
    let crashed_at = a.types().fields();
    assert_eq!(crashed_at, 950);
    broker.kill();
    broker.restart().await;
    let c = gateway(&config).await;
    assert_eq!(c.types().fields(), crashed_at);
    for field in 0..50 {
        let found = |of: &Pinning| of.types().pinned(&pin(&format!("f{field}"), FieldType::Text));
        assert_eq!(found(&a), found(&c));
    }
    wait_for("the slower reader", || async { (b.types().fields() == 950).then_some(()) }).await;
    println!("of 50 races the first gateway lost {lost}");

    a_topic_that_forgets_is_not_used(&broker).await;
}

/// The topic of types is removed under a gateway that runs, and made again: meanwhile it is not ready and
/// pins nothing, and afterwards all of it goes on without a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_of_types_that_goes_is_missed_and_found_again() {
    let broker = Broker::start().await;
    let config = KafkaConfig { create_topic: None, ..topic(&broker, "gone") };
    let (name, admin) = (config.types_topic.as_str(), admin(&broker));
    let create = async || {
        let new = NewTopic::new(name, 1, TopicReplication::Fixed(1));
        let settings = [("retention.ms", "-1"), ("max.message.bytes", "10485760")];
        let new = settings.iter().fold(new, |new, (key, value)| new.set(key, value));
        admin.create_topics([&new], &AdminOptions::new()).await.unwrap();
    };
    create().await;
    let limits = Limits { fields_max: 99, fields_per_tenant_max: 99, databases_per_tenant_max: 9 };
    let (types, readiness) = (Types::new(limits), Readiness::new());
    let log = open_pins(&JournalConfig::Kafka(config.clone()), types.clone(), &readiness).unwrap();
    wait_for("the types", || async { readiness.is_ready().then_some(()) }).await;
    let running = Pinning::new(types, log, &readiness);
    for field in ["a", "b", "c"] {
        assert_eq!(decided(&running, vec![pin(field, FieldType::Integer)]).await, Pinned::Ours);
    }
    admin.delete_topics(&[name], &AdminOptions::new()).await.unwrap();
    wait_for("the reason", || async {
        let reason = format!("field types: topic '{name}' does not exist");
        readiness.blockers().iter().any(|one| one.starts_with(&reason)).then_some(())
    })
    .await;
    let refused = running.pin(vec![pin("d", FieldType::Integer)]).await;
    assert!(matches!(refused, Pinned::Unavailable { .. }), "{refused:?}");
    create().await;
    wait_for("the topic", || async { readiness.is_ready().then_some(()) }).await;
    assert_eq!(decided(&running, vec![pin("d", FieldType::Integer)]).await, Pinned::Ours);
    let found = |of: &Pinning, field: &str| of.types().pinned(&pin(field, FieldType::Text));
    assert_eq!(found(&running, "a"), Some(FieldType::Integer), "what was pinned stays");
    // Others decide with it as before.
    let other = gateway(&config).await;
    assert_eq!(found(&other, "d"), Some(FieldType::Integer));
    assert_eq!(decided(&other, vec![pin("e", FieldType::Float)]).await, Pinned::Ours);
    wait_for("the other's", || async { found(&running, "e") }).await;
    assert_eq!(decided(&running, vec![pin("e", FieldType::Integer)]).await, Pinned::Others);
}

fn admin(broker: &Broker) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", broker.address()).create().unwrap()
}

async fn a_topic_that_forgets_is_not_used(broker: &Broker) {
    let admin = admin(broker);
    let new = NewTopic::new("week-types", 1, TopicReplication::Fixed(1));
    let new = new.set("retention.ms", "604800000").set("max.message.bytes", "1048588");
    admin.create_topics([&new], &AdminOptions::new()).await.unwrap();
    let limits = Limits { fields_max: 9, fields_per_tenant_max: 9, databases_per_tenant_max: 9 };
    let readiness = Readiness::new();
    let config = JournalConfig::Kafka(topic(broker, "week"));
    let _log: Arc<_> = open_pins(&config, Types::new(limits), &readiness).unwrap();
    wait_for("the reason", || async {
        readiness.blockers().join(" ").contains("it may forget nothing").then_some(())
    })
    .await;
}
