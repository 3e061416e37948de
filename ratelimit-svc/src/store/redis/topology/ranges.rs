//! What a node of a cluster says of who has which slots: asks one node, believes no absurd answer.

use redis::Value;
use redis::aio::MultiplexedConnection;

use crate::store::error::StoreError;
use crate::store::redis::connection::address::HostPort;
use crate::store::redis::connection::connector::PROBE_TIMEOUT;
use crate::store::redis::connection::refusal::classify;

/// The most nodes of one cluster.
pub const NODES_MAX: usize = 1000;

/// First slot, last slot and primary of each range.
///
/// # Errors
/// When the node does not say.
pub async fn ask_slots(
    mut connection: MultiplexedConnection,
    asked: &HostPort,
) -> Result<Vec<(u16, u16, HostPort)>, StoreError> {
    let mut question = redis::cmd("CLUSTER");
    question.arg("SLOTS");
    let answer = question.query_async::<Value>(&mut connection);
    let answer = tokio::time::timeout(PROBE_TIMEOUT, answer).await;
    let answer = answer.map_err(|_| StoreError::TimedOut)?.map_err(classify)?;
    ranges(&answer, asked).ok_or(StoreError::Unexpected)
}

/// First slot, last slot and primary of each range; none when the answer is not of that form.
fn ranges(answer: &Value, asked: &HostPort) -> Option<Vec<(u16, u16, HostPort)>> {
    let Value::Array(ranges) = answer else { return None };
    let range = |range: &Value| {
        let Value::Array(range) = range else { return None };
        let [Value::Int(first), Value::Int(last), Value::Array(primary), ..] = &range[..] else {
            return None;
        };
        let [host, Value::Int(port), ..] = &primary[..] else { return None };
        let host = match host {
            Value::BulkString(host) => std::str::from_utf8(host).ok()?.to_owned(),
            Value::SimpleString(host) => host.clone(),
            Value::Nil => String::new(),
            _ => return None,
        };
        // A node that does not know its own name says nothing: it is where it was asked.
        let host = if host.is_empty() { asked.0.clone() } else { host };
        let number = |number: &i64| u16::try_from(*number).ok();
        Some((number(first)?, number(last)?, (host, number(port)?)))
    };
    let ranges: Option<Vec<_>> = ranges.iter().map(range).collect();
    let mut primaries: Vec<&HostPort> = ranges.iter().flatten().map(|(_, _, at)| at).collect();
    primaries.sort_unstable();
    primaries.dedup();
    let fits = (1..=NODES_MAX).contains(&primaries.len());
    ranges.filter(|_| fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: i64, last: i64, host: Value, port: i64) -> Value {
        let replica = Value::Array(vec![Value::BulkString("r".into()), Value::Int(9)]);
        let primary = Value::Array(vec![host, Value::Int(port), Value::BulkString("id".into())]);
        Value::Array(vec![Value::Int(first), Value::Int(last), primary, replica])
    }

    #[test]
    fn the_answer_of_a_node_is_read() {
        let asked = ("seed".to_owned(), 1);
        let host = Value::BulkString("a".into());
        let answer = vec![range(0, 99, host.clone(), 7), range(100, 16383, Value::Nil, 8)];
        let expected = [(0, 99, ("a".to_owned(), 7)), (100, 16383, ("seed".to_owned(), 8))];
        assert_eq!(ranges(&Value::Array(answer), &asked).as_deref(), Some(&expected[..]));
        for absurd in [
            Value::Nil,
            Value::Array(vec![]),
            Value::Array(vec![Value::Nil]),
            Value::Array(vec![range(-1, 5, host.clone(), 7)]),
            Value::Array(vec![range(0, 5, host.clone(), 70_000)]),
            Value::Array(vec![range(0, 5, Value::Int(1), 7)]),
            Value::Array((0..1001).map(|n| range(n, n, host.clone(), n + 1)).collect()),
        ] {
            assert_eq!(ranges(&absurd, &asked), None, "{absurd:?}");
        }
    }
}
