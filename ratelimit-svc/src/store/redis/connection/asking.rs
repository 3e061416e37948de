//! The way to a node of a cluster. To one that takes over a slot each command asks for leave first,
//! as a node that sent `ASK` wants it.

use futures_util::FutureExt;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Cmd, Pipeline, RedisFuture, Value};

/// A connection to a node.
pub struct Way {
    /// Shared with all other calls.
    pub connection: MultiplexedConnection,
    /// Sends `ASKING` in front of each command.
    pub is_asking: bool,
}

impl ConnectionLike for Way {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        if !self.is_asking {
            return self.connection.req_packed_command(cmd);
        }
        async move {
            let mut pipe = redis::pipe();
            pipe.cmd("ASKING").add_command(cmd.clone());
            let mut values = self.connection.req_packed_commands(&pipe, 0, 2).await?;
            values.pop().unwrap_or(Value::Nil).extract_error()
        }
        .boxed()
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        if !self.is_asking {
            return self.connection.req_packed_commands(pipeline, offset, count);
        }
        async move {
            let mut pipe = redis::pipe();
            for cmd in pipeline.cmd_iter() {
                pipe.cmd("ASKING").add_command(cmd.clone());
            }
            let values = self.connection.req_packed_commands(&pipe, offset * 2, count * 2).await?;
            Ok(values.into_iter().skip(1).step_by(2).collect())
        }
        .boxed()
    }

    fn get_db(&self) -> i64 {
        self.connection.get_db()
    }
}
