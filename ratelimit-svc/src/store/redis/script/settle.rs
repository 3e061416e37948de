//! Counting by script: what has to be decided in the same step as it is counted. Encodes the calls
//! and reads the answers; the decisions are those of `decide::settle`, in Lua.

use std::time::Duration;

use redis::aio::ConnectionLike;
use redis::{Cmd, ErrorKind, RedisError, Script, ServerErrorKind, Value};

use crate::decide::algorithm::State;
use crate::decide::hit::{Count, Hit, Mode, Role};
use crate::decide::key::usage_key;
use crate::decide::settle::Settled;
use crate::limits::algorithm::Algorithm;
use crate::store::error::StoreError;
use crate::store::redis::Redis;
use crate::store::redis::answer::number;
use crate::store::redis::connection::asking::Way;
use crate::store::redis::connection::refusal::classify;
use crate::store::redis::script::packed;

/// Room for what a call says of one hit; of a longer one it grows.
const HIT_BYTES: usize = 128;
/// Arguments of one hit.
const HIT_ARGUMENTS: usize = 6;

/// The scripts.
pub struct Scripts {
    any: Script,
    /// The same for requests of fixed windows alone: a third cheaper, and most are.
    fixed: Script,
}

impl Default for Scripts {
    fn default() -> Self {
        Self {
            any: Script::new(include_str!("settle.lua")),
            fixed: Script::new(include_str!("settle_fixed.lua")),
        }
    }
}

impl Redis {
    pub(in crate::store::redis) async fn settle(
        &self,
        connection: &mut Way,
        hits: &[Hit],
        mode: Mode,
        now: Duration,
    ) -> Result<Vec<Count>, StoreError> {
        let fixed = |hit: &Hit| hit.algorithm == Algorithm::FixedWindow && hit.share.is_none();
        if hits.iter().all(fixed) {
            return self.settle_fixed(connection, hits, mode, now).await;
        }
        let forecasts = hits.iter().filter(|hit| hit.forecasts()).count();
        let mut call = call(&self.scripts.any, hits.len(), hits.len() + forecasts);
        for hit in hits {
            call.arg(self.key(hit));
            if hit.forecasts() {
                call.arg([self.settings.key_prefix.as_bytes(), &usage_key(hit)].concat());
            }
        }
        call.arg(u8::from(mode == Mode::AllOrNothing));
        for hit in hits {
            call.arg(packed::hit(hit, now, self.ttl(hit, now)));
        }
        let answer = run(&self.scripts.any, &call, connection).await.map_err(classify)?;
        let Value::BulkString(answer) = answer else { return Err(StoreError::Unexpected) };
        let settled = packed::answer(&answer, hits).ok_or(StoreError::Unexpected)?;
        Ok(hits.iter().zip(settled).map(|(hit, settled)| settled.count(hit, now)).collect())
    }

    async fn settle_fixed(
        &self,
        connection: &mut Way,
        hits: &[Hit],
        mode: Mode,
        now: Duration,
    ) -> Result<Vec<Count>, StoreError> {
        let mut call = call(&self.scripts.fixed, hits.len(), hits.len());
        for hit in hits {
            call.arg(self.key(hit));
        }
        call.arg(u8::from(mode == Mode::AllOrNothing));
        for hit in hits {
            let role: u8 = match hit.role {
                Role::Enforced => 0,
                Role::Quota => 1,
                Role::Observer => 2,
            };
            call.arg(hit.amount).arg(u8::from(hit.is_refund)).arg(hit.limit).arg(role);
            call.arg(self.ttl(hit, now));
        }
        let answer = run(&self.scripts.fixed, &call, connection).await.map_err(classify)?;
        let Value::Array(answer) = answer else { return Err(StoreError::Unexpected) };
        if answer.len() != hits.len() * 3 {
            return Err(StoreError::Unexpected);
        }
        let count = |(hit, part): (&Hit, &[Value])| {
            let (value, over, moved) = (number(&part[0])?, number(&part[1])?, number(&part[2])?);
            let (state, over, moved) = (State::Fixed(value), over == 1, moved == 1);
            Ok(Settled { state, over, moved, withheld: 0, usage: None }.count(hit, now))
        };
        hits.iter().zip(answer.chunks_exact(3)).map(count).collect()
    }
}

/// A call of a script, up to its keys. Written into one buffer, which the crate's own way does not.
fn call(script: &Script, hits: usize, keys: usize) -> Cmd {
    let mut call = Cmd::with_capacity(3 + keys + hits * HIT_ARGUMENTS, (hits + 1) * HIT_BYTES);
    call.arg("EVALSHA").arg(script.get_hash()).arg(keys);
    call
}

/// Runs a script, and loads it first where the server does not know it: such a call did nothing.
async fn run(script: &Script, call: &Cmd, connection: &mut Way) -> Result<Value, RedisError> {
    match connection.req_packed_command(call).await.and_then(Value::extract_error) {
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
            script.load_async(connection).await?;
            connection.req_packed_command(call).await.and_then(Value::extract_error)
        }
        answer => answer,
    }
}
