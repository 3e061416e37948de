//! Races, outages and bounds of pinning, on a log in memory.

use std::sync::Mutex;

use tokio::sync::Semaphore;

use super::*;
use crate::journal::Append;
use crate::types::{FieldType, Limits};

/// A log that several gateways share.
#[derive(Default)]
struct Log {
    lines: Mutex<Vec<Pin>>,
    appends: Mutex<usize>,
    readers: Mutex<Vec<Arc<Types>>>,
    down: Mutex<bool>,
}

/// One gateway's side of it, which may be held.
struct Side {
    log: Arc<Log>,
    gate: Arc<Semaphore>,
}

impl PinLog for Side {
    fn append(&self, pins: Vec<Pin>) -> Append<'_> {
        Box::pin(async move {
            let _permit = self.gate.acquire().await.expect("never closed");
            if *self.log.down.lock().expect("no panic") {
                return Err(AppendError::unavailable("down for a test", Duration::from_secs(7)));
            }
            *self.log.appends.lock().expect("no panic") += 1;
            for reader in &*self.log.readers.lock().expect("no panic") {
                pins.iter().for_each(|pin| _ = reader.restore(pin));
            }
            self.log.lines.lock().expect("no panic").extend(pins);
            Ok(())
        })
    }
}

fn gateway(log: &Arc<Log>) -> (Pinning, Arc<Semaphore>) {
    let limits =
        Limits { fields_max: 100, fields_per_tenant_max: 100, databases_per_tenant_max: 9 };
    let types = Types::new(limits);
    log.readers.lock().expect("no panic").push(types.clone());
    let gate = Arc::new(Semaphore::new(1));
    let side = Side { log: log.clone(), gate: gate.clone() };
    (Pinning::new(types, Arc::new(side), &Readiness::new()), gate)
}

fn pin(field: &str, field_type: FieldType) -> Pin {
    let (tenant, database) = ("acme".to_owned(), String::new());
    let (destination, measurement) = ("acme".to_owned(), "cpu".to_owned());
    Pin { tenant, database, destination, measurement, field: field.to_owned(), field_type }
}

/// A log that has a bug.
struct Broken;

impl PinLog for Broken {
    fn append(&self, _: Vec<Pin>) -> Append<'_> {
        panic!("as a bug would")
    }
}

#[tokio::test]
async fn a_panic_is_not_answered_for_ever_by_full() {
    let limits = Limits { fields_max: 9, fields_per_tenant_max: 9, databases_per_tenant_max: 9 };
    let readiness = Readiness::new();
    let pinning = Pinning::new(Types::new(limits), Arc::new(Broken), &readiness);
    assert_eq!(pinning.pin(vec![pin("usage", FieldType::Float)]).await, Pinned::Full);
    assert_eq!(readiness.broken().await, "pinning the types of fields");
    assert!(!readiness.is_ready());
}

#[tokio::test]
async fn two_gateways_decide_a_race_the_same_way() {
    let log = Arc::new(Log::default());
    let ((a, _), (b, _)) = (gateway(&log), gateway(&log));
    let (first, second) = tokio::join!(
        a.pin(vec![pin("usage", FieldType::Integer)]),
        b.pin(vec![pin("usage", FieldType::Float), pin("idle", FieldType::Float)]),
    );
    let ours = [first, second].iter().filter(|pinned| **pinned == Pinned::Ours).count();
    assert_eq!(ours, 1, "{first:?} {second:?}");
    let usage = pin("usage", FieldType::Text);
    assert!(a.types().pinned(&usage).is_some());
    assert_eq!(a.types().pinned(&usage), b.types().pinned(&usage));
}

#[tokio::test]
async fn requests_that_wait_share_one_append() {
    let log = Arc::new(Log::default());
    let (gateway, gate) = gateway(&log);
    let held = gate.acquire().await.expect("never closed");
    let pins = |type_of| vec![pin("usage", type_of), pin("idle", FieldType::Float)];
    let mut waiting: Vec<_> =
        (0..20).map(|_| Box::pin(gateway.pin(pins(FieldType::Float)))).collect();
    let mut late = Box::pin(gateway.pin(pins(FieldType::Integer)));
    for one in &mut waiting {
        assert!(futures_util::poll!(one).is_pending());
    }
    assert!(futures_util::poll!(&mut late).is_pending());
    drop(held);
    for one in waiting {
        assert_eq!(one.await, Pinned::Ours);
    }
    assert_eq!(late.await, Pinned::Others);
    assert!(*log.appends.lock().expect("no panic") <= 2);
    assert_eq!(log.lines.lock().expect("no panic").len(), 2, "no field stands there twice");
    assert_eq!(gateway.pin(Vec::new()).await, Pinned::Ours);
}

#[tokio::test]
async fn what_the_log_does_not_confirm_is_not_pinned() {
    let log = Arc::new(Log::default());
    let (gateway, _) = gateway(&log);
    *log.down.lock().expect("no panic") = true;
    let pins = vec![pin("usage", FieldType::Float)];
    let retry_after = Duration::from_secs(7);
    assert_eq!(gateway.pin(pins.clone()).await, Pinned::Unavailable { retry_after });
    assert_eq!(gateway.types().fields(), 0);
    *log.down.lock().expect("no panic") = false;
    assert_eq!(gateway.pin(pins.clone()).await, Pinned::Ours);
    *log.down.lock().expect("no panic") = true;
    assert_eq!(gateway.pin(pins).await, Pinned::Ours, "what is pinned needs no log");
}

#[tokio::test]
async fn the_queue_is_bounded() {
    let log = Arc::new(Log::default());
    let (gateway, gate) = gateway(&log);
    let _held = gate.acquire().await.expect("never closed");
    let mut waiting = Vec::new();
    let mut refused = 0;
    for _ in 0..=QUEUE_MAX {
        let mut one = Box::pin(gateway.pin(vec![pin("usage", FieldType::Float)]));
        match futures_util::poll!(&mut one) {
            std::task::Poll::Ready(Pinned::Full) => refused += 1,
            std::task::Poll::Ready(other) => panic!("{other:?}"),
            std::task::Poll::Pending => waiting.push(one),
        }
    }
    assert_eq!((waiting.len(), refused), (QUEUE_MAX, 1));
}
