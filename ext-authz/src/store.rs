//! Where commands change keys: a keys file or Redis. Each change is whole or not at all, and leaves
//! an audit event.

pub mod file;
pub mod redis;

use self::file::FileStore;
use self::redis::RedisStore;
use crate::admin::Event;
use crate::check::feed::Position;
use crate::check::key::KeyId;
use crate::check::record::{KeyRecord, Status};
use crate::key_file::Tenant;
use crate::timestamp::Timestamp;

/// A record and what the operator noted beside it.
pub type Noted = (KeyRecord, Option<String>);

/// A keys file or Redis.
pub enum Store<'a> {
    /// A keys file.
    File(FileStore<'a>),
    /// Redis.
    Redis(Box<RedisStore<'a>>),
}

/// What takes the place of a key, and until when the old one goes on.
pub struct Successor<'f> {
    /// The key that is succeeded.
    pub of: KeyId,
    /// When it ends.
    pub end: Timestamp,
    /// Makes the record of the new key from that of the old one.
    pub make: &'f dyn Fn(&KeyRecord) -> KeyRecord,
    /// What is noted beside the new one.
    pub comment: String,
}

impl Store<'_> {
    /// What it is called in messages.
    pub fn name(&self) -> String {
        match self {
            Self::File(store) => store.name(),
            Self::Redis(store) => store.name(),
        }
    }

    /// All records.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn all(&mut self) -> anyhow::Result<Vec<Noted>> {
        match self {
            Self::File(store) => store.all(),
            Self::Redis(store) => store.all(),
        }
    }

    /// The tenants that have a status of their own.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn tenants(&mut self) -> anyhow::Result<Vec<Tenant>> {
        match self {
            Self::File(store) => store.tenants(),
            Self::Redis(store) => store.tenants(),
        }
    }

    /// The record of one key.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn find(&mut self, id: KeyId) -> anyhow::Result<Option<Noted>> {
        match self {
            Self::File(store) => store.find(id),
            Self::Redis(store) => Ok(store.find(id)?.map(|(_, noted)| noted)),
        }
    }

    /// Adds a record. In Redis it has a position then, as after every change.
    ///
    /// # Errors
    /// When it cannot be beside the others, or not be written.
    pub fn add(
        &mut self,
        record: &KeyRecord,
        comment: Option<&str>,
        event: &Event,
    ) -> anyhow::Result<Option<Position>> {
        match self {
            Self::File(store) => store.add(record, comment).map(|()| None),
            Self::Redis(store) => store.add(record, comment, event).map(Some),
        }
    }

    /// Gives a key another status.
    ///
    /// # Errors
    /// When that is not possible, or cannot be written.
    pub fn set_status(
        &mut self,
        id: KeyId,
        status: Status,
        event: &mut Event,
    ) -> anyhow::Result<Option<Position>> {
        match self {
            Self::File(store) => store.set_status(id, status, event).map(|()| None),
            Self::Redis(store) => store.set_status(id, status, event).map(Some),
        }
    }

    /// Adds a key in place of another, which ends later. Returns the new record.
    ///
    /// # Errors
    /// When that is not possible, or cannot be written.
    pub fn rotate(
        &mut self,
        successor: &Successor<'_>,
        event: &mut Event,
    ) -> anyhow::Result<(KeyRecord, Option<Position>)> {
        match self {
            Self::File(store) => Ok((store.rotate(successor, event)?, None)),
            Self::Redis(store) => {
                let (record, position) = store.rotate(successor, event)?;
                Ok((record, Some(position)))
            }
        }
    }
}
