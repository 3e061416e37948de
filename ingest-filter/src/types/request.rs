//! The types of one request's points: checked before a point is written. What is new stays with
//! the request until the log of pins has it.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLockReadGuard};

use super::line::PIN_BYTES_MAX;
use super::{Columns, Conflict, Database, FieldType, PIN_BYTES, Pin, Table, Tenant, Types};
use crate::point::Point;

mod tags;
pub use tags::Marked;

/// Whose points a request brings, and where they go.
pub(super) struct Names {
    pub tenant: String,
    pub database: String,
    pub destination: String,
}

/// The types that count for the points of one request.
pub struct TypesOf {
    types: Arc<Types>,
    owner: Option<Arc<Tenant>>,
    database: Arc<Database>,
    names: Names,
    /// Points of a measurement mostly stand together.
    last: Option<(String, Arc<Table>)>,
    /// The same for the kinds of tags.
    last_kinds: Option<(String, Arc<Table>)>,
    conflict: Option<Conflict>,
    counted: bool,
    /// Whether nothing is converted.
    is_strict: bool,
    /// The fields that nobody has pinned yet, by measurement.
    new: HashMap<Box<str>, Columns>,
    new_fields: usize,
    new_bytes: usize,
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// Every field has the type that is pinned, some by conversion.
    Known,
    /// Some are not pinned yet.
    New,
    /// One has another type, and its value would change; see [`TypesOf::conflict`].
    Conflict,
}

impl TypesOf {
    pub(super) fn new(
        types: Arc<Types>,
        owner: Option<Arc<Tenant>>,
        database: Arc<Database>,
        names: Names,
    ) -> Self {
        let (last, last_kinds, conflict, counted, is_strict, new) = Default::default();
        let (new_fields, new_bytes) = (0, 0);
        Self {
            types,
            owner,
            database,
            names,
            last,
            last_kinds,
            conflict,
            counted,
            is_strict,
            new,
            new_fields,
            new_bytes,
        }
    }

    /// Refuses what could be converted.
    pub fn strict(self) -> Self {
        Self { is_strict: true, ..self }
    }

    /// Gives the fields of a point their pinned types. No key may be there twice.
    pub fn check(&mut self, point: &mut Point<'_>) -> Checked {
        let table = self.known(&point.measurement);
        let own = self.new.get(&*point.measurement);
        if table.is_none() && own.is_none() {
            return Checked::New;
        }
        let columns = table.as_deref().map(read);
        let (mut hint, mut own_hint, mut all_known, mut converted) = (0, 0, true, 0);
        let mut conflict = None;
        for (key, value) in &mut point.fields {
            let pinned = columns.as_ref().and_then(|columns| columns.find(hint, key));
            let own = || own.and_then(|own| own.find(own_hint, key));
            let pinned = match pinned {
                Some((place, pinned)) => {
                    hint = place + 1;
                    pinned
                }
                None => match own() {
                    Some((place, pinned)) => {
                        own_hint = place + 1;
                        pinned
                    }
                    None => {
                        all_known = false;
                        continue;
                    }
                },
            };
            let sent = FieldType::of(value);
            if sent == pinned {
                continue;
            }
            let Some(same) = pinned.convert(value).filter(|_| !self.is_strict) else {
                conflict = Some(Conflict::new(&point.measurement, key, pinned, sent));
                break;
            };
            *value = same;
            converted += 1;
        }
        drop(columns);
        if let Some(conflict) = conflict {
            self.refuse(conflict);
            return Checked::Conflict;
        }
        self.types.converted.inc_by(converted);
        if all_known { Checked::Known } else { Checked::New }
    }

    /// Notes the new fields of a point that was checked; false when somebody else pinned another
    /// type meanwhile, and the point must be checked again.
    pub fn pin(&mut self, point: &Point<'_>) -> bool {
        let table = self.known(&point.measurement);
        let fields = point.fields.iter().map(|(key, value)| (&**key, FieldType::of(value)));
        self.note(&point.measurement, table.as_deref(), fields)
    }

    /// Notes what is not pinned yet under this name, whose table is the one in force; false when
    /// one of the keys has another type there.
    fn note<'k>(
        &mut self,
        name: &str,
        table: Option<&Table>,
        typed: impl Iterator<Item = (&'k str, FieldType)> + Clone,
    ) -> bool {
        let Some(owner) = self.owner.clone() else { return true };
        let columns = table.map(read);
        let pinned = |key: &str| columns.as_ref().and_then(|columns| columns.find(0, key));
        let lost =
            |(key, sent): (&str, FieldType)| pinned(key).is_some_and(|(_, pinned)| pinned != sent);
        if typed.clone().any(lost) {
            return false;
        }
        for (key, sent) in typed {
            let own = self.new.get(name);
            if pinned(key).is_some() || own.is_some_and(|own| own.find(0, key).is_some()) {
                continue;
            }
            let bytes = name.len() + key.len();
            if bytes > PIN_BYTES_MAX || !self.types.has_room(&owner, self.new_fields) {
                self.types.unpinned.inc();
                continue;
            }
            let own = self.new.entry(Box::from(name)).or_default();
            own.insert(key, sent);
            self.new_fields += 1;
            self.new_bytes += bytes + PIN_BYTES;
        }
        true
    }

    /// Memory that the new fields take.
    pub fn allocated(&self) -> usize {
        self.new_bytes
    }

    /// What the last refused point conflicted with.
    pub fn conflict(&self) -> Option<&Conflict> {
        self.conflict.as_ref()
    }

    /// What the log of pins must have before any of the request's points is stored.
    pub fn into_pins(self) -> Vec<Pin> {
        let mut pins = Vec::with_capacity(self.new_fields);
        for (measurement, columns) in &self.new {
            pins.extend(columns.order.iter().map(|(field, field_type)| Pin {
                tenant: self.names.tenant.clone(),
                database: self.names.database.clone(),
                destination: self.names.destination.clone(),
                measurement: measurement.to_string(),
                field: field.to_string(),
                field_type: *field_type,
            }));
        }
        pins
    }

    fn refuse(&mut self, conflict: Conflict) {
        // Once for a request: what is refused must not cost more than what is stored.
        if !std::mem::replace(&mut self.counted, true) {
            self.types.conflicts.count(&self.names.destination, &conflict.to_string());
        }
        self.conflict = Some(conflict);
    }

    fn known(&mut self, measurement: &str) -> Option<Arc<Table>> {
        known(&self.database, &mut self.last, measurement)
    }
}

/// A table of the database, which is mostly that of the point before.
fn known(
    database: &Database,
    last: &mut Option<(String, Arc<Table>)>,
    wanted: &str,
) -> Option<Arc<Table>> {
    if let Some((name, table)) = last
        && name == wanted
    {
        return Some(table.clone());
    }
    let table = database.known(wanted)?;
    let mut name = last.take().map(|(name, _)| name).unwrap_or_default();
    name.clear();
    name.push_str(wanted);
    *last = Some((name, table.clone()));
    Some(table)
}

fn read(table: &Table) -> RwLockReadGuard<'_, Columns> {
    table.columns.read().unwrap_or_else(PoisonError::into_inner)
}
