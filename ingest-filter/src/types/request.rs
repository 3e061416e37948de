//! The types of one request's points: checked before a point is written, pinned after.

use std::sync::{Arc, PoisonError};

use super::{Columns, Conflict, Database, FieldType, Pin, Table, Tenant, Types};
use crate::point::Point;

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
    conflict: Option<Conflict>,
    counted: bool,
    pins: Vec<Pin>,
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
        let (last, conflict, pins) = (None, None, Vec::new());
        Self { types, owner, database, names, last, conflict, counted: false, pins }
    }

    /// Gives the fields of a point their pinned types. No key may be there twice.
    pub fn check(&mut self, point: &mut Point<'_>) -> Checked {
        let Some(table) = self.known(&point.measurement) else { return Checked::New };
        let columns = table.columns.read().unwrap_or_else(PoisonError::into_inner);
        let (mut hint, mut all_known, mut converted) = (0, true, 0);
        for (key, value) in &mut point.fields {
            let Some((place, pinned)) = columns.find(hint, key) else {
                all_known = false;
                continue;
            };
            hint = place + 1;
            let sent = FieldType::of(value);
            if sent == pinned {
                continue;
            }
            let Some(same) = pinned.convert(value) else {
                self.refuse(Conflict::new(&point.measurement, key, pinned, sent));
                return Checked::Conflict;
            };
            *value = same;
            converted += 1;
        }
        self.types.converted.inc_by(converted);
        if all_known { Checked::Known } else { Checked::New }
    }

    /// Pins the fields of a point that was checked; false when somebody else pinned another type
    /// meanwhile, and the point must be checked again.
    pub fn pin(&mut self, point: &Point<'_>) -> bool {
        let Some(owner) = self.owner.clone() else { return true };
        let table = self.types.table(&self.database, &point.measurement, &owner);
        let Some(table) = table else {
            self.types.unpinned.inc_by(point.fields.len() as u64);
            return true;
        };
        let mut columns = table.columns.write().unwrap_or_else(PoisonError::into_inner);
        let lost = |columns: &Columns| {
            point.fields.iter().any(|(key, value)| {
                columns.find(0, key).is_some_and(|(_, pinned)| pinned != FieldType::of(value))
            })
        };
        if lost(&columns) {
            return false;
        }
        for (key, value) in &point.fields {
            let field_type = FieldType::of(value);
            if columns.find(0, key).is_some() || !self.types.claim(&owner) {
                continue;
            }
            columns.insert(key, field_type);
            self.pins.push(Pin {
                tenant: self.names.tenant.clone(),
                database: self.names.database.clone(),
                destination: self.names.destination.clone(),
                measurement: point.measurement.to_string(),
                field: key.to_string(),
                field_type,
            });
        }
        true
    }

    /// What the last refused point conflicted with.
    pub fn conflict(&self) -> Option<&Conflict> {
        self.conflict.as_ref()
    }

    /// Takes back what was pinned for this request, of which nothing is stored.
    pub fn withdraw(self) {
        let Some(owner) = self.owner else { return };
        for pin in &self.pins {
            let Some(table) = self.database.known(&pin.measurement) else { continue };
            let mut columns = table.columns.write().unwrap_or_else(PoisonError::into_inner);
            if columns.remove(&pin.field) {
                self.types.release(&owner);
            }
        }
    }

    /// What was pinned for this request.
    pub fn into_pins(self) -> Vec<Pin> {
        self.pins
    }

    fn refuse(&mut self, conflict: Conflict) {
        // Once for a request: what is refused must not cost more than what is stored.
        if !std::mem::replace(&mut self.counted, true) {
            self.types.conflicts.count(&self.names.destination, &conflict.to_string());
        }
        self.conflict = Some(conflict);
    }

    fn known(&mut self, measurement: &str) -> Option<Arc<Table>> {
        if let Some((name, table)) = &self.last
            && name == measurement
        {
            return Some(table.clone());
        }
        let table = self.database.known(measurement)?;
        let mut name = self.last.take().map(|(name, _)| name).unwrap_or_default();
        name.clear();
        name.push_str(measurement);
        self.last = Some((name, table.clone()));
        Some(table)
    }
}
