//! Which type each field has, pinned before a point is acknowledged. Pure, but for its locks.
//!
//! A database types a field by its first value and refuses every other type for ever. So the
//! first type of a field is pinned here, for each database and measurement: what comes with
//! another type is converted where no value changes, or refused by name while the client can
//! still be told.
//!
//! ```text
//! database of the target ─► measurement ─► field ─► type
//! acme__app                 mem            used     integer      used=2.0 ─► 2i
//!                                                                used=2.5 ─► refused
//! ```
//!
//! A request that brings a new field keeps its type to itself until the pins' log has it: the log
//! decides for all gateways, by which came first, and only what came out of it is known here. So
//! a request that is refused leaves nothing behind, and a restart finds the same types.
//!
//! What is pinned is bounded, for each tenant and in all; a field beyond the bounds is let
//! through unpinned and counted.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use dashmap::DashMap;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

mod conflict;
mod field;
mod line;
mod request;

pub use conflict::{Conflict, Conflicts};
pub use field::FieldType;
pub use request::{Checked, Marked, TypesOf};

/// Tenants of which anything is remembered; what others write is not pinned.
const TENANTS_MAX: usize = 100_000;

/// Bytes that a pinned field takes beside its names.
const PIN_BYTES: usize = 150;

/// Bounds of what is pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Fields of all tenants.
    pub fields_max: usize,
    /// Fields of one tenant.
    pub fields_per_tenant_max: usize,
    /// Databases of one tenant beside its default one.
    pub databases_per_tenant_max: usize,
}

/// A tenant wrote to more databases than it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyDatabases(pub usize);

/// One field and its type, as first seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Whose point brought it.
    pub tenant: String,
    /// The database that the client named.
    pub database: String,
    /// The database of the target.
    pub destination: String,
    /// The measurement.
    pub measurement: String,
    /// The field.
    pub field: String,
    /// Its type.
    pub field_type: FieldType,
}

/// The types of all databases.
pub struct Types {
    limits: Limits,
    databases: DashMap<Box<str>, Arc<Database>>,
    tenants: DashMap<Box<str>, Arc<Tenant>>,
    fields: AtomicUsize,
    /// Conflicts that were refused.
    pub conflicts: Conflicts,
    /// Fields that are pinned.
    pub fields_pinned: Gauge,
    /// Fields that were let through unpinned, because a bound was reached.
    pub unpinned: Counter,
    /// Fields that were converted.
    pub converted: Counter,
}

#[derive(Default)]
struct Database {
    tables: RwLock<HashMap<Box<str>, Arc<Table>>>,
}

#[derive(Default)]
struct Tenant {
    databases: Mutex<HashSet<Box<str>>>,
    fields: AtomicUsize,
}

#[derive(Default)]
struct Table {
    columns: RwLock<Columns>,
}

/// The fields of a measurement: in the order in which they first came, which is the order in
/// which most clients send them, and by name.
#[derive(Default)]
struct Columns {
    order: Vec<(Arc<str>, FieldType)>,
    places: HashMap<Arc<str>, usize>,
}

impl Columns {
    /// The place and type of a field, which is looked for at `hint` first.
    fn find(&self, hint: usize, field: &str) -> Option<(usize, FieldType)> {
        if let Some((name, field_type)) = self.order.get(hint)
            && &**name == field
        {
            return Some((hint, *field_type));
        }
        let place = *self.places.get(field)?;
        Some((place, self.order[place].1))
    }

    fn insert(&mut self, field: &str, field_type: FieldType) {
        let name: Arc<str> = Arc::from(field);
        self.places.insert(name.clone(), self.order.len());
        self.order.push((name, field_type));
    }
}

impl Types {
    /// Nothing is pinned yet.
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            databases: DashMap::new(),
            tenants: DashMap::new(),
            fields: AtomicUsize::new(0),
            conflicts: Conflicts::default(),
            fields_pinned: Gauge::default(),
            unpinned: Counter::default(),
            converted: Counter::default(),
        })
    }

    /// The types for a request that writes to `database` of `tenant`, which are stored in
    /// `destination`. An empty `database` is the default one.
    ///
    /// # Errors
    /// When the tenant has as many other databases as it may.
    pub fn of(
        self: &Arc<Self>,
        tenant: &str,
        database: &str,
        destination: &str,
    ) -> Result<TypesOf, TooManyDatabases> {
        let owner = self.tenant(tenant);
        if let Some(owner) = &owner
            && !database.is_empty()
        {
            let max = self.limits.databases_per_tenant_max;
            let mut known = owner.databases.lock().unwrap_or_else(PoisonError::into_inner);
            if !known.contains(database) {
                if known.len() >= max {
                    return Err(TooManyDatabases(max));
                }
                known.insert(Box::from(database));
            }
        }
        let names = request::Names {
            tenant: tenant.to_owned(),
            database: database.to_owned(),
            destination: destination.to_owned(),
        };
        // Of a tenant beyond the bound nothing is remembered, so nothing is looked up either.
        let database = match owner {
            Some(_) => self.database(destination),
            None => Arc::default(),
        };
        Ok(TypesOf::new(self.clone(), owner, database, names))
    }

    /// Pins what came out of the log of pins; what is pinned already stays. Gives the type that
    /// counts from now on.
    pub fn restore(self: &Arc<Self>, pin: &Pin) -> FieldType {
        let Some(owner) = self.tenant(&pin.tenant) else { return pin.field_type };
        if !pin.database.is_empty() {
            let mut known = owner.databases.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() < self.limits.databases_per_tenant_max {
                known.insert(Box::from(&*pin.database));
            }
        }
        let database = self.database(&pin.destination);
        let Some(table) = self.table(&database, &pin.measurement, &owner) else {
            return pin.field_type;
        };
        let mut columns = table.columns.write().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, field_type)) = columns.find(0, &pin.field) {
            return field_type;
        }
        if self.claim(&owner) {
            columns.insert(&pin.field, pin.field_type);
        }
        pin.field_type
    }

    /// The type that a field is pinned to, if it is.
    pub fn pinned(&self, pin: &Pin) -> Option<FieldType> {
        let database = self.databases.get(&*pin.destination)?.clone();
        let table = database.known(&pin.measurement)?;
        let columns = table.columns.read().unwrap_or_else(PoisonError::into_inner);
        columns.find(0, &pin.field).map(|(_, field_type)| field_type)
    }

    /// How many fields are pinned.
    pub fn fields(&self) -> usize {
        self.fields.load(Ordering::Relaxed)
    }

    /// The table of a measurement, made where there is room for one of its fields.
    fn table(&self, database: &Database, measurement: &str, owner: &Tenant) -> Option<Arc<Table>> {
        if let Some(known) = database.known(measurement) {
            return Some(known);
        }
        self.has_room(owner, 0).then(|| {
            let mut tables = database.tables.write().unwrap_or_else(PoisonError::into_inner);
            tables.entry(Box::from(measurement)).or_default().clone()
        })
    }

    /// Whether another field of this tenant fits beside `more` that are not pinned yet.
    fn has_room(&self, owner: &Tenant, more: usize) -> bool {
        owner.fields.load(Ordering::Relaxed) + more < self.limits.fields_per_tenant_max
            && self.fields() + more < self.limits.fields_max
    }

    /// Takes room for a field; false at a bound.
    fn claim(&self, owner: &Tenant) -> bool {
        let take = |count: &AtomicUsize, max: usize| {
            count
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
                    (now < max).then_some(now + 1)
                })
                .is_ok()
        };
        if !take(&owner.fields, self.limits.fields_per_tenant_max) {
            self.unpinned.inc();
            return false;
        }
        if !take(&self.fields, self.limits.fields_max) {
            owner.fields.fetch_sub(1, Ordering::Relaxed);
            self.unpinned.inc();
            return false;
        }
        self.fields_pinned.inc();
        true
    }

    fn tenant(&self, tenant: &str) -> Option<Arc<Tenant>> {
        if let Some(known) = self.tenants.get(tenant) {
            return Some(known.clone());
        }
        if self.tenants.len() >= TENANTS_MAX {
            return None;
        }
        Some(self.tenants.entry(Box::from(tenant)).or_default().clone())
    }

    fn database(&self, destination: &str) -> Arc<Database> {
        if let Some(known) = self.databases.get(destination) {
            return known.clone();
        }
        self.databases.entry(Box::from(destination)).or_default().clone()
    }
}

impl Database {
    fn known(&self, measurement: &str) -> Option<Arc<Table>> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        tables.get(measurement).cloned()
    }
}

#[cfg(test)]
mod tests;
