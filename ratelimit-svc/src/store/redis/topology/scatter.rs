//! A call to the node of a cluster that has a slot, and to the one that it sends on to.

use std::future::Future;

use redis::ServerError;
use redis::aio::MultiplexedConnection;
use tokio::time::Instant;

use crate::store::error::StoreError;
use crate::store::redis::connection::address::HostPort;
use crate::store::redis::connection::asking::Way;
use crate::store::redis::connection::deadlines;
use crate::store::redis::topology::cluster::{Cluster, Node};
use crate::store::redis::topology::part::Call;

/// A call to the node that has a slot; and to the one that it sends on to.
pub(in crate::store::redis) async fn at_owner<T, F: Future<Output = Result<T, StoreError>>>(
    cluster: &Cluster,
    slot: u16,
    kind: Call,
    deadline: Instant,
    call: impl Fn(Way) -> F,
) -> Result<T, StoreError> {
    let node = cluster.node(slot).inspect_err(|_| cluster.repair_soon())?;
    let over = |is_asking| {
        let call = &call;
        move |connection| call(Way { connection, is_asking })
    };
    let answer = at_node(cluster, &node, kind, deadline, over(false)).await;
    let Some((redirect, at)) =
        answer.as_ref().err().and_then(|error| redirected(error, node.host()))
    else {
        return answer;
    };
    if redirect == Redirect::Moved {
        cluster.repair_soon();
    }
    // It was not counted there, so it can be counted where it belongs.
    let node = cluster.node_at(&at).inspect_err(|_| cluster.repair_soon())?;
    at_node(cluster, &node, kind, deadline, over(redirect == Redirect::Ask)).await
}

/// A call to one node: its failure is that node's alone, and so is its refusal, whatever it refuses.
async fn at_node<T, F: Future<Output = Result<T, StoreError>>>(
    cluster: &Cluster,
    node: &Node,
    kind: Call,
    deadline: Instant,
    call: impl FnOnce(MultiplexedConnection) -> F,
) -> Result<T, StoreError> {
    let (connection, permit) = node.connection(kind).inspect_err(|_| cluster.repair_soon())?;
    let answer = deadlines::by(deadline, call(connection)).await;
    match answer.unwrap_or(Err(StoreError::TimedOut)) {
        Ok(counts) => {
            node.answered(permit);
            Ok(counts)
        }
        Err(error) if error.is_of_a_counter() => {
            node.answered(permit);
            Err(error)
        }
        Err(error) => {
            match is_of_a_slot(&error) {
                true => node.answered(permit),
                false => cluster.failed(node, permit, &error),
            }
            Err(StoreError::Part(Box::new(error)))
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Redirect {
    Moved,
    Ask,
}

/// Whether a node that is well said so, of a slot that moves or has moved.
fn is_of_a_slot(error: &StoreError) -> bool {
    redirected(error, "").is_some()
        || server_error(error).is_some_and(|error| error.code() == "TRYAGAIN")
}

fn server_error(error: &StoreError) -> Option<ServerError> {
    match error {
        StoreError::Refused(error) | StoreError::Configuration(error) => {
            Some(error.clone().into_server_errors()?.first()?.1.clone())
        }
        StoreError::Part(error) => server_error(error),
        _ => None,
    }
}

/// Where a node sends a call that it did not execute; one that does not know its own name leaves out
/// the host, which is then the one it was asked at.
fn redirected(error: &StoreError, asked_at: &str) -> Option<(Redirect, HostPort)> {
    redirect(&server_error(error)?, asked_at)
}

fn redirect(error: &ServerError, asked_at: &str) -> Option<(Redirect, HostPort)> {
    let redirect = match error.code() {
        "MOVED" => Redirect::Moved,
        "ASK" => Redirect::Ask,
        _ => return None,
    };
    let (_slot, at) = error.details()?.split_once(' ')?;
    let (host, port) = at.trim().rsplit_once(':')?;
    let host = if host.is_empty() { asked_at } else { host };
    Some((redirect, (host.to_owned(), port.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_without_a_name_sends_on_to_its_own_host() {
        let check = |line: &str, host: &str, is: Redirect| {
            let line = format!("-{line}\r\n");
            let value = redis::parse_redis_value(line.as_bytes()).expect("an error");
            let errors = value.extract_error().expect_err("an error").into_server_errors();
            let errors = errors.expect("of a server");
            assert_eq!(redirect(&errors[0].1, "10.0.0.1"), Some((is, (host.to_owned(), 6380))));
        };
        check("MOVED 12 10.0.0.2:6380", "10.0.0.2", Redirect::Moved);
        check("MOVED 12 :6380", "10.0.0.1", Redirect::Moved);
        check("ASK 12 :6380", "10.0.0.1", Redirect::Ask);
        check("MOVED 12 ::1:6380", "::1", Redirect::Moved);
    }
}
