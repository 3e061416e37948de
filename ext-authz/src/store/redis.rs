//! Changing keys in Redis: each change is one step of a script, which refuses when somebody else was
//! quicker; then it is made anew of what stands there now.

mod replicas;

use anyhow::{Context, bail};
use chassis::process::UsageError;
use redis::{Connection, RedisError};

pub use self::replicas::Replica;
use super::{Noted, Successor};
use crate::admin::{self, Event, Objection};
use crate::check::feed::Position;
use crate::check::key::KeyId;
use crate::check::record::{KeyRecord, Kind, Shared, Status};
use crate::key_file::{Rules, Tenant, json};
use crate::source::redis::connect::open_blocking;
use crate::source::redis::scripts::{AUDIT_MAX, CHANGE, CHANGES_MAX, LOAD};
use crate::source::redis::settings::{Names, RedisSettings};
use crate::source::redis::wire;
use crate::source::redis::worded::worded;

/// How often a change is made anew because somebody else was quicker.
const ATTEMPTS_MAX: usize = 10;
/// How many records are written or asked for at a time.
const AT_ONCE: usize = 1_000;
/// How long a set that is being written may take before it is thrown away.
const LOADING_SECONDS_MAX: u64 = 3_600;
/// Redis, for commands.
pub struct RedisStore<'a> {
    connection: Connection,
    names: Names,
    name: String,
    rules: Rules<'a>,
}

/// One part of a change.
struct Put {
    kind: &'static str,
    name: String,
    /// What stands there now; nothing is the empty text.
    expected: String,
    value: String,
}

impl<'a> RedisStore<'a> {
    /// Connects.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub fn open(settings: &RedisSettings, rules: Rules<'a>) -> anyhow::Result<Self> {
        let name = format!("Redis at {}", settings.shown());
        let connection =
            open_blocking(settings).map_err(|error| anyhow::anyhow!("{name} {error}"))?;
        Ok(Self { connection, names: Names::new(&settings.prefix), name, rules })
    }

    pub(super) fn name(&self) -> String {
        self.name.clone()
    }

    fn trouble(&self, error: &RedisError) -> anyhow::Error {
        anyhow::anyhow!("{} {}", self.name, worded(error))
    }

    pub(super) fn all(&mut self) -> anyhow::Result<Vec<Noted>> {
        let (records, rules) = (self.names.records.clone(), self.rules);
        let (mut all, mut shared) = (Vec::new(), Shared::default());
        self.scan(&records, |id, text| {
            let noted = wire::record(text, rules, &mut shared)
                .with_context(|| format!("the record '{}'", id.escape_debug()))?;
            all.push(noted);
            Ok(())
        })?;
        all.sort_by_key(|(record, _)| record.id);
        all.dedup_by_key(|(record, _)| record.id);
        Ok(all)
    }

    pub(super) fn tenants(&mut self) -> anyhow::Result<Vec<Tenant>> {
        let tenants = self.names.tenants.clone();
        let mut all = Vec::new();
        self.scan(&tenants, |name, status| {
            let is_suspended = wire::is_suspended(name, status)?;
            all.push(Tenant { name: name.to_owned(), is_suspended });
            Ok(())
        })?;
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all.dedup();
        Ok(all)
    }

    fn scan(
        &mut self,
        hash: &str,
        mut each: impl FnMut(&str, &str) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut cursor = 0_u64;
        loop {
            let mut command = redis::cmd("HSCAN");
            command.arg(hash).arg(cursor).arg("COUNT").arg(AT_ONCE);
            let (next, page): (u64, Vec<(String, String)>) =
                command.query(&mut self.connection).map_err(|error| self.trouble(&error))?;
            for (name, value) in &page {
                each(name, value)?;
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// The record as it stands and as it is read.
    pub(super) fn find(&mut self, id: KeyId) -> anyhow::Result<Option<(String, Noted)>> {
        let text = self.get(&self.names.records.clone(), id.as_str())?;
        if text.is_empty() {
            return Ok(None);
        }
        let noted = wire::record(&text, self.rules, &mut Shared::default())?;
        Ok(Some((text, noted)))
    }

    fn get(&mut self, hash: &str, field: &str) -> anyhow::Result<String> {
        let text: Option<String> = redis::cmd("HGET")
            .arg(hash)
            .arg(field)
            .query(&mut self.connection)
            .map_err(|error| self.trouble(&error))?;
        Ok(text.unwrap_or_default())
    }

    fn known(&mut self, id: KeyId) -> anyhow::Result<(String, Noted)> {
        let found = self.find(id)?;
        Ok(found.ok_or_else(|| UsageError(Objection::NoSuchKey(id).to_string()))?)
    }

    pub(super) fn add(
        &mut self,
        record: &KeyRecord,
        comment: Option<&str>,
        event: &Event,
    ) -> anyhow::Result<Position> {
        // An issued key is new by chance, and an imported one may be there under another id.
        if record.kind == Kind::Imported
            && let Some((other, _)) =
                self.all()?.into_iter().find(|(other, _)| other.digest == record.digest)
        {
            bail!(UsageError(format!("key '{}' is the same key", other.id)));
        }
        let put = put(record, comment, String::new());
        match self.apply(event, &[put])? {
            Some(position) => Ok(position),
            None => bail!("key id '{}' is taken", record.id),
        }
    }

    pub(super) fn set_status(
        &mut self,
        id: KeyId,
        status: Status,
        event: &mut Event,
    ) -> anyhow::Result<Position> {
        for _ in 0..ATTEMPTS_MAX {
            let (text, (record, comment)) = self.known(id)?;
            event.tenant = Some(record.tenant.to_string());
            let record = admin::with_status(record, status).map_err(usage)?;
            let put = put(&record, comment.as_deref(), text);
            if let Some(position) = self.apply(event, &[put])? {
                return Ok(position);
            }
        }
        bail!("key '{id}' is changed by others all the time")
    }

    pub(super) fn rotate(
        &mut self,
        successor: &Successor<'_>,
        event: &mut Event,
    ) -> anyhow::Result<(KeyRecord, Position)> {
        let id = successor.of;
        for _ in 0..ATTEMPTS_MAX {
            let (text, (old, comment)) = self.known(id)?;
            let new = (successor.make)(&old);
            let old = admin::succeeded(old, successor.end).map_err(usage)?;
            event.tenant = Some(new.tenant.to_string());
            let puts = [
                put(&old, comment.as_deref(), text),
                put(&new, Some(&successor.comment), String::new()),
            ];
            if let Some(position) = self.apply(event, &puts)? {
                return Ok((new, position));
            }
        }
        bail!("key '{id}' is changed by others all the time")
    }

    /// Lets no key of a tenant pass, or lets them pass again.
    ///
    /// # Errors
    /// When it is so already, or cannot be written.
    pub fn set_tenant(
        &mut self,
        tenant: &str,
        is_suspended: bool,
        event: &Event,
    ) -> anyhow::Result<Position> {
        let tenants = self.names.tenants.clone();
        let value = if is_suspended { wire::SUSPENDED } else { wire::ACTIVE };
        for _ in 0..ATTEMPTS_MAX {
            let expected = self.get(&tenants, tenant)?;
            let is_so = expected == value || expected.is_empty() && !is_suspended;
            if is_so {
                bail!(UsageError(format!("tenant '{tenant}' is {value} already")));
            }
            let (name, value) = (tenant.to_owned(), value.to_owned());
            let put = Put { kind: "tenant", name, expected, value };
            if let Some(position) = self.apply(event, &[put])? {
                return Ok(position);
            }
        }
        bail!("tenant '{tenant}' is changed by others all the time")
    }

    /// Where the set is now, if a key or, without an id, a tenant has a status already.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn position_if(
        &mut self,
        id: Option<KeyId>,
        tenant: &str,
        status: Status,
    ) -> anyhow::Result<Option<Position>> {
        let is_so = match id {
            Some(id) => self.find(id)?.is_some_and(|(_, (record, _))| record.status == status),
            None => {
                let said = self.get(&self.names.tenants.clone(), tenant)?;
                match status {
                    Status::Suspended => said == wire::SUSPENDED,
                    Status::Active => said != wire::SUSPENDED,
                    Status::Revoked => false,
                }
            }
        };
        if !is_so {
            return Ok(None);
        }
        let epoch = self.get(&self.names.state.clone(), "epoch")?;
        let generation = self.get(&self.names.state.clone(), "generation")?;
        Ok(Some(Position { epoch, generation: generation.parse().unwrap_or(0) }))
    }

    /// Applies a change; nothing where something else stands there than was expected.
    fn apply(&mut self, event: &Event, puts: &[Put]) -> anyhow::Result<Option<Position>> {
        let names = &self.names;
        let mut script = CHANGE.prepare_invoke();
        for key in [&names.state, &names.records, &names.tenants, &names.changes, &names.audit] {
            script.key(key);
        }
        script.arg(new_epoch()?).arg(CHANGES_MAX).arg(AUDIT_MAX).arg(event.to_json().to_string());
        for put in puts {
            script.arg(put.kind).arg(&put.name).arg(&put.expected).arg(&put.value);
        }
        let (generation, epoch): (u64, String) =
            script.invoke(&mut self.connection).map_err(|error| self.trouble(&error))?;
        Ok((generation > 0).then_some(Position { epoch, generation }))
    }

    /// Puts a whole set in place of the one that is there.
    ///
    /// # Errors
    /// When it cannot be written; then the old one stays.
    pub fn load(
        &mut self,
        records: &mut dyn Iterator<Item = Noted>,
        tenants: &[Tenant],
        event: &Event,
    ) -> anyhow::Result<(usize, Position)> {
        let epoch = new_epoch()?;
        let beside = |name: &str| format!("{name}:{epoch}");
        let (new_records, new_tenants) = (beside(&self.names.records), beside(&self.names.tenants));
        let mut count = 0;
        loop {
            let page: Vec<Noted> = records.take(AT_ONCE).collect();
            if page.is_empty() {
                break;
            }
            count += page.len();
            let mut command = redis::cmd("HSET");
            command.arg(&new_records);
            for (record, comment) in &page {
                command.arg(record.id.as_str()).arg(json::render(record, comment.as_deref()));
            }
            self.write_beside(&new_records, command)?;
        }
        if !tenants.is_empty() {
            let mut command = redis::cmd("HSET");
            command.arg(&new_tenants);
            for tenant in tenants {
                let status = if tenant.is_suspended { wire::SUSPENDED } else { wire::ACTIVE };
                command.arg(&tenant.name).arg(status);
            }
            self.write_beside(&new_tenants, command)?;
        }
        let names = &self.names;
        let mut script = LOAD.prepare_invoke();
        for key in [&names.state, &names.records, &names.tenants, &names.changes, &names.audit] {
            script.key(key);
        }
        script.key(&new_records).key(&new_tenants);
        script.arg(&epoch).arg(count).arg(AUDIT_MAX).arg(event.to_json().to_string());
        let (generation, said): (u64, String) =
            script.invoke(&mut self.connection).map_err(|error| self.trouble(&error))?;
        if generation == 0 {
            bail!("{}: of {count} keys only {said} were there in the end", self.name);
        }
        Ok((count, Position { epoch: said, generation }))
    }

    /// Writes into a set that nobody uses yet, and that ends by itself when this program does.
    fn write_beside(&mut self, key: &str, command: redis::Cmd) -> anyhow::Result<()> {
        let expire = redis::cmd("EXPIRE").arg(key).arg(LOADING_SECONDS_MAX).to_owned();
        for command in [command, expire] {
            command
                .query::<redis::Value>(&mut self.connection)
                .map_err(|error| self.trouble(&error))?;
        }
        Ok(())
    }
}

fn put(record: &KeyRecord, comment: Option<&str>, expected: String) -> Put {
    let value = json::render(record, comment);
    Put { kind: "put", name: record.id.as_str().to_owned(), expected, value }
}

fn usage(objection: Objection) -> UsageError {
    UsageError(objection.to_string())
}

/// A name that no set had before.
fn new_epoch() -> anyhow::Result<String> {
    let id = KeyId::generate(getrandom::fill)
        .map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
    Ok(id.to_string())
}
