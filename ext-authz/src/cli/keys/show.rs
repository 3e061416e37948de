//! `keys show`: one key, without any secret, and who has it in force.

use anyhow::bail;
use chassis::process::UsageError;
use serde_json::{Value, json};

use super::{Output, Shared, describe, key_id, print};
use crate::admin::Objection;
use crate::store::Store;
use crate::store::redis::Replica;
use crate::timestamp::Timestamp;

/// Shows one record.
pub fn run(id: &str, shared: &Shared) -> anyhow::Result<()> {
    let config = shared.load_config()?;
    let id = key_id(id)?;
    let mut store = shared.store(&config)?;
    let Some((record, comment)) = store.find(id)? else {
        bail!(UsageError(Objection::NoSuchKey(id).to_string()));
    };
    let mut shown = describe(&record, comment.as_deref(), Timestamp::now());
    if let Store::Redis(redis) = &mut store {
        shown["replicas"] = redis.replicas()?.iter().map(replica).collect();
    }
    if shared.output == Output::Json {
        return print(&format!("{shown}\n"));
    }
    let lines = shown.as_object().into_iter().flatten();
    print(&lines.map(|(name, value)| format!("{name}: {value}\n")).collect::<String>())
}

/// What a replica says, for JSON.
pub fn replica(replica: &Replica) -> Value {
    json!({
        "name": replica.name,
        "generation": replica.position.generation,
        "silent_seconds": replica.silence.as_secs(),
    })
}
