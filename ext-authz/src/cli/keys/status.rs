//! `keys revoke`, `keys suspend` and `keys resume`: another status of one key or tenant.

use std::time::Duration;

use anyhow::bail;
use chassis::config::DurationText;
use chassis::process::UsageError;
use clap::Args;
use serde_json::{Value, json};

use super::{Output, Shared, audit, key_id, print, show};
use crate::check::feed::Position;
use crate::check::key::KeyId;
use crate::check::record::Status;
use crate::names::tenant_problem;
use crate::store::Store;
use crate::store::redis::{RedisStore, Replica};

/// How long it is waited for replicas, unless it is said.
const WAIT_DEFAULT: Duration = Duration::from_secs(30);

/// Which key, and whether to wait.
#[derive(Args)]
pub struct Change {
    /// The key id: the part of a key between its second and third '_'.
    #[arg(required_unless_present = "tenant")]
    id: Option<String>,
    /// All keys of this tenant, in Redis; for `suspend` and `resume`.
    #[arg(long, conflicts_with = "id")]
    tenant: Option<String>,
    /// Return once every replica has it in force, or exit 1 and say which has not. In Redis.
    #[arg(long)]
    wait: bool,
    /// How long to wait for that at most.
    #[arg(long, value_name = "DURATION", requires = "wait")]
    wait_timeout: Option<DurationText>,
    /// Where, and how to print.
    #[command(flatten)]
    shared: Shared,
}

impl Change {
    /// Writes the status into the record.
    pub fn run(self, what: &'static str, status: Status) -> anyhow::Result<()> {
        let config = self.shared.load_config()?;
        let mut store = self.shared.store(&config)?;
        if self.wait && matches!(store, Store::File(_)) {
            let problem = "nothing was changed: nobody acknowledges a keys file, so leave --wait out; the \
                           change is then in force within a second";
            bail!(UsageError(problem.to_owned()));
        }
        let (subject, mut shown, position) = match (&self.id, &self.tenant) {
            (_, Some(tenant)) => {
                let position = match self.as_it_is(None, tenant, status, &mut store)? {
                    Some(position) => position,
                    None => self.change_tenant(tenant, what, status, &mut store)?,
                };
                (format!("tenant '{tenant}'"), json!({"tenant": tenant}), Some(position))
            }
            (id, None) => {
                let id = key_id(id.as_deref().unwrap_or_default())?;
                let position = match self.as_it_is(Some(id), "", status, &mut store)? {
                    None => self.change_key(id, what, status, &mut store)?,
                    position => position,
                };
                (format!("key '{id}'"), json!({"key_id": id.as_str()}), position)
            }
        };
        let state = status.as_str();
        shown["state"] = json!(state);
        shown["generation"] = json!(position.as_ref().map(|position| position.generation));
        let mut text = format!("{subject} is {state}");
        let mut behind = None;
        if let (true, Some(position), Store::Redis(redis)) = (self.wait, &position, &mut store) {
            let replicas = self.wait(redis, position)?;
            shown["replicas"] =
                replicas.iter().map(|replica| acknowledged(replica, position)).collect();
            text.push_str(&format!(", in force at {} replicas", replicas.len()));
            behind = who_is_behind(&replicas, position);
        }
        match self.shared.output {
            Output::Json => print(&format!("{shown}\n"))?,
            Output::Text if behind.is_none() => print(&format!("{text}\n"))?,
            Output::Text => {}
        }
        match behind {
            Some(behind) => bail!("{subject} is {state} in Redis, and {behind}"),
            None => Ok(()),
        }
    }

    /// Who waits a second time, as the first was too short, changes nothing.
    fn as_it_is(
        &self,
        id: Option<KeyId>,
        tenant: &str,
        status: Status,
        store: &mut Store<'_>,
    ) -> anyhow::Result<Option<Position>> {
        match store {
            Store::Redis(redis) if self.wait => redis.position_if(id, tenant, status),
            _ => Ok(None),
        }
    }

    fn change_key(
        &self,
        id: KeyId,
        what: &'static str,
        status: Status,
        store: &mut Store<'_>,
    ) -> anyhow::Result<Option<Position>> {
        let mut event = self.shared.event(what, Some(id), None)?;
        let position = store.set_status(id, status, &mut event)?;
        audit(&event);
        Ok(position)
    }

    fn change_tenant(
        &self,
        tenant: &str,
        what: &'static str,
        status: Status,
        store: &mut Store<'_>,
    ) -> anyhow::Result<Position> {
        if let Some(problem) = tenant_problem(tenant) {
            bail!(UsageError(problem));
        }
        let is_suspended = match status {
            Status::Suspended => true,
            Status::Active => false,
            Status::Revoked => {
                bail!(UsageError("a tenant can be suspended, not revoked".to_owned()))
            }
        };
        let Store::Redis(redis) = store else {
            let problem = "tenants of a keys file are changed there, in its list 'tenants'";
            bail!(UsageError(problem.to_owned()));
        };
        let event = self.shared.event(what, None, Some(tenant))?;
        let position = redis.set_tenant(tenant, is_suspended, &event)?;
        audit(&event);
        Ok(position)
    }

    fn wait(&self, redis: &mut RedisStore<'_>, change: &Position) -> anyhow::Result<Vec<Replica>> {
        let most = self.wait_timeout.as_ref().map_or(WAIT_DEFAULT, |timeout| timeout.0);
        redis.wait(change, most)
    }
}

fn acknowledged(replica: &Replica, change: &Position) -> Value {
    let mut shown = show::replica(replica);
    shown["acknowledged"] = json!(replica.has(change));
    shown
}

/// Who has not acknowledged a change; nothing where all have.
fn who_is_behind(replicas: &[Replica], change: &Position) -> Option<String> {
    if replicas.is_empty() {
        return Some(
            "no replica is known to follow it: none runs, or it has another Redis or prefix"
                .to_owned(),
        );
    }
    let behind = replicas.iter().filter(|replica| !replica.has(change));
    let name = |replica: &Replica| {
        format!("{} (last heard of {} s ago)", replica.name, replica.silence.as_secs())
    };
    let names: Vec<String> = behind.map(name).collect();
    (!names.is_empty()).then(|| format!("not acknowledged by {}", names.join(", ")))
}
