//! Counting the hits of one request in a cluster: each slot's in its own step, all at once.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use redis::ServerError;
use redis::aio::MultiplexedConnection;
use tokio::time::Instant;

use super::asking::Asking;
use super::cluster::{Cluster, Node};
use super::expiry::Expiry;
use super::link::HostPort;
use super::slots::slot_of;
use super::{Redis, deadlines, is_plain};
use crate::store::split::count_apart;
use crate::store::{Count, Hit, Mode, StoreError};

impl Redis {
    /// Counts in the nodes that have the keys. What a script decides is decided together as far
    /// as it is in one slot; plain increments are sent for each counter by itself, since a node
    /// may have some of them and send on for others while a slot moves.
    pub(super) async fn count_in(
        &self,
        cluster: &Arc<Cluster>,
        hits: &[Hit],
        mode: Mode,
        now: Duration,
        deadline: Instant,
    ) -> Result<Vec<Count>, StoreError> {
        let plain = is_plain(hits, mode);
        let place = |hit: &Hit| {
            let alone = plain.then(|| hit.key.clone());
            (slot_of(&self.key(hit)), alone)
        };
        let count = |(slot, _), hits: Vec<Hit>, mode| async move {
            let node = cluster.node(slot).inspect_err(|_| cluster.repair_soon())?;
            let step = |mut connection: MultiplexedConnection, hits: Arc<[Hit]>| async move {
                self.step(&mut connection, &hits, mode, now).await
            };
            let hits: Arc<[Hit]> = hits.into();
            let answer = at_node(cluster, &node, deadline, |to| step(to, hits.clone())).await;
            let Some((redirect, at)) = answer.as_ref().err().and_then(redirected) else {
                return answer;
            };
            // It was not counted there, so it can be counted where it belongs.
            let node = cluster.node_at(&at).inspect_err(|_| cluster.repair_soon())?;
            match redirect {
                Redirect::Moved => {
                    cluster.repair_soon();
                    at_node(cluster, &node, deadline, |to| step(to, hits.clone())).await
                }
                Redirect::Ask => {
                    let asking = |to| async { self.step(&mut Asking(to), &hits, mode, now).await };
                    at_node(cluster, &node, deadline, asking).await
                }
            }
        };
        let give_back = async |hits| self.back.by(deadline, hits, now).await;
        count_apart(hits, mode, place, count, give_back).await
    }

    /// Gives back in a cluster, each request's hits with a budget of their own. Never ends.
    pub(super) async fn give_back_in(&self, cluster: &Arc<Cluster>) {
        loop {
            for back in self.back.next().await {
                let deadline = Instant::now() + self.settings.call_budget;
                // What is not given back is lost until its window ends.
                let (hits, mode) = (&back.hits, Mode::CountAll);
                let _ = self.count_in(cluster, hits, mode, back.now, deadline).await;
                back.done();
            }
        }
    }

    /// Expiries by the connection they go over; those that no connection takes stay behind.
    pub(super) fn spread(
        &self,
        cluster: &Arc<Cluster>,
        expiries: Vec<Expiry>,
    ) -> Vec<(MultiplexedConnection, Vec<Expiry>)> {
        let mut spread: Vec<(Arc<Node>, Vec<Expiry>)> = Vec::new();
        for expiry in expiries {
            let Ok(node) = cluster.node(slot_of(&expiry.0)) else {
                self.unsure.remember([expiry]);
                continue;
            };
            match spread.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &node)) {
                Some((_, of_node)) => of_node.push(expiry),
                None => spread.push((node, vec![expiry])),
            }
        }
        let connected = |(node, expiries): (Arc<Node>, Vec<Expiry>)| match node.connection() {
            Ok((connection, _)) => Some((connection, expiries)),
            Err(_) => {
                self.unsure.remember(expiries);
                None
            }
        };
        spread.into_iter().filter_map(connected).collect()
    }
}

/// A call to one node: its failure is that node's alone.
async fn at_node<F: Future<Output = Result<Vec<Count>, StoreError>>>(
    cluster: &Arc<Cluster>,
    node: &Arc<Node>,
    deadline: Instant,
    call: impl FnOnce(MultiplexedConnection) -> F,
) -> Result<Vec<Count>, StoreError> {
    let (connection, permit) = node.connection().inspect_err(|_| cluster.repair_soon())?;
    let answer = deadlines::by(deadline, call(connection)).await;
    match answer.unwrap_or(Err(StoreError::TimedOut)) {
        Err(error) if is_answer(&error) => {
            node.answered(permit);
            Err(error)
        }
        Err(error) => {
            if node.failed(permit, &error) {
                cluster.repair_soon();
            }
            Err(StoreError::Part(Box::new(error)))
        }
        Ok(counts) => {
            node.answered(permit);
            Ok(counts)
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Redirect {
    Moved,
    Ask,
}

/// Whether a living node said so, of these counters alone.
fn is_answer(error: &StoreError) -> bool {
    use StoreError::{Counter, Refused, Unexpected};
    matches!(error, Refused(_) | Counter(_) | Unexpected) || redirected(error).is_some()
}

/// Where a node sends a call that it did not execute.
fn redirected(error: &StoreError) -> Option<(Redirect, HostPort)> {
    let (StoreError::Refused(error) | StoreError::Configuration(error)) = error else {
        return None;
    };
    let errors = error.clone().into_server_errors()?;
    redirect(&errors.first()?.1)
}

fn redirect(error: &ServerError) -> Option<(Redirect, HostPort)> {
    let redirect = match error.code() {
        "MOVED" => Redirect::Moved,
        "ASK" => Redirect::Ask,
        _ => return None,
    };
    let (_slot, at) = error.details()?.split_once(' ')?;
    let (host, port) = at.trim().rsplit_once(':')?;
    Some((redirect, (host.to_owned(), port.parse().ok()?)))
}
