//! Changing keys in a keys file, as text.

use std::path::Path;

use anyhow::{Context, bail};
use chassis::config::ConfigError;
use chassis::process::UsageError;

use super::{Noted, Successor};
use crate::admin::{self, Event};
use crate::check::key::KeyId;
use crate::check::record::{KeyRecord, Status};
use crate::key_file::edit::EditError;
use crate::key_file::{KeyFile, Rules, Tenant, edit, save};

/// A keys file.
pub struct FileStore<'a> {
    path: &'a Path,
    rules: Rules<'a>,
}

impl<'a> FileStore<'a> {
    /// At a path, which need not exist.
    pub fn new(path: &'a Path, rules: Rules<'a>) -> Self {
        Self { path, rules }
    }

    /// Where it is.
    pub fn path(&self) -> &'a Path {
        self.path
    }

    pub(super) fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn read(&self) -> Result<KeyFile, ConfigError> {
        let path = self.path;
        let bytes = std::fs::read(path)
            .map_err(|error| ConfigError::file(path, format!("cannot be read: {error}")))?;
        KeyFile::parse(path, &bytes, self.rules)
    }

    pub(super) fn all(&self) -> anyhow::Result<Vec<Noted>> {
        let entries = self.read()?.entries.into_iter();
        Ok(entries.map(|entry| (entry.record, entry.comment)).collect())
    }

    pub(super) fn tenants(&self) -> anyhow::Result<Vec<Tenant>> {
        Ok(self.read()?.tenants)
    }

    pub(super) fn find(&self, id: KeyId) -> anyhow::Result<Option<Noted>> {
        Ok(self.all()?.into_iter().find(|(record, _)| record.id == id))
    }

    pub(super) fn add(&self, record: &KeyRecord, comment: Option<&str>) -> anyhow::Result<()> {
        save::update(self.path, |present| -> anyhow::Result<String> {
            edit::append(self.path, present, record, comment, self.rules).map_err(usage)
        })
        .with_context(|| self.name())
    }

    pub(super) fn set_status(
        &self,
        id: KeyId,
        status: Status,
        event: &mut Event,
    ) -> anyhow::Result<()> {
        save::update(self.path, |present| -> anyhow::Result<String> {
            let present = present.ok_or_else(no_file)?;
            let text = edit::set_status(self.path, present, id, status, self.rules);
            let text = text.map_err(usage)?;
            event.tenant = self.tenant_of(id, &text);
            Ok(text)
        })
        .with_context(|| self.name())
    }

    fn tenant_of(&self, id: KeyId, text: &str) -> Option<String> {
        let file = KeyFile::parse(self.path, text.as_bytes(), self.rules).ok()?;
        let record = file.into_records().find(|record| record.id == id)?;
        Some(record.tenant.to_string())
    }

    pub(super) fn rotate(
        &self,
        successor: &Successor<'_>,
        event: &mut Event,
    ) -> anyhow::Result<KeyRecord> {
        let (path, rules, id) = (self.path, self.rules, successor.of);
        let mut made = None;
        save::update(path, |present| -> anyhow::Result<String> {
            let present = present.ok_or_else(no_file)?;
            let file = KeyFile::parse(path, present.as_bytes(), rules)?;
            let Some(old) = file.into_records().find(|record| record.id == id) else {
                bail!(UsageError(admin::Objection::NoSuchKey(id).to_string()));
            };
            let ended = admin::succeeded(old.clone(), successor.end)
                .map_err(|objection| UsageError(objection.to_string()))?;
            let text = match ended == old {
                true => present.to_owned(),
                false => edit::expire(path, present, id, successor.end, rules).map_err(usage)?,
            };
            let new = (successor.make)(&old);
            let comment = Some(successor.comment.as_str());
            let text = edit::append(path, Some(&text), &new, comment, rules).map_err(usage)?;
            event.tenant = Some(new.tenant.to_string());
            made = Some(new);
            Ok(text)
        })
        .with_context(|| self.name())?;
        made.context("the file was changed")
    }
}

fn no_file() -> UsageError {
    UsageError("there is no keys file".to_owned())
}

/// What the caller must put right is a matter of usage, unless the file itself says where.
fn usage(error: EditError) -> anyhow::Error {
    match error {
        EditError::Invalid(_) | EditError::Refused(_) => anyhow::Error::new(error),
        _ => anyhow::Error::new(UsageError(error.to_string())),
    }
}
