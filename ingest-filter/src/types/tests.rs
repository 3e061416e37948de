//! What is pinned, converted and refused, alone and against others at the same time.

use std::borrow::Cow;

use super::*;
use crate::point::{FieldValue, Point};

const LIMITS: Limits =
    Limits { fields_max: 1000, fields_per_tenant_max: 100, databases_per_tenant_max: 2 };

fn point<'a>(measurement: &'a str, fields: &[(&'a str, FieldValue<'a>)]) -> Point<'a> {
    let fields = fields.iter().map(|(key, value)| (Cow::Borrowed(*key), value.clone())).collect();
    Point { measurement: Cow::Borrowed(measurement), fields, ..Point::default() }
}

/// Checks and pins as the gateway does; gives the values that are stored.
fn write<'a>(
    of: &mut TypesOf,
    measurement: &'a str,
    fields: &[(&'a str, FieldValue<'a>)],
) -> Result<Vec<FieldValue<'a>>, String> {
    let mut point = point(measurement, fields);
    loop {
        match of.check(&mut point) {
            Checked::Conflict => return Err(of.conflict().expect("a conflict").to_string()),
            Checked::New if !of.pin(&point) => {}
            Checked::New | Checked::Known => {
                return Ok(point.fields.into_iter().map(|(_, value)| value).collect());
            }
        }
    }
}

/// Pins what a request brought, as the log of pins does.
fn keep(types: &Arc<Types>, of: TypesOf) -> Vec<Pin> {
    let pins = of.into_pins();
    pins.iter().for_each(|pin| _ = types.restore(pin));
    pins
}

#[test]
fn a_type_belongs_to_its_database_and_measurement() {
    use FieldValue::{Float, Integer, Text};
    let types = Types::new(LIMITS);
    let of = |tenant: &str, database: &str| {
        types.of(tenant, database, &format!("{tenant}__{database}")).expect("room")
    };
    let mut acme = of("acme", "");
    assert_eq!(write(&mut acme, "cpu", &[("usage", Integer(1))]), Ok(vec![Integer(1)]));
    assert_eq!(write(&mut of("zeta", ""), "cpu", &[("usage", Float(1.5))]), Ok(vec![Float(1.5)]));
    assert_eq!(
        write(&mut of("acme", "app"), "cpu", &[("usage", Float(1.5))]),
        Ok(vec![Float(1.5)])
    );
    assert_eq!(write(&mut acme, "mem", &[("usage", Float(1.5))]), Ok(vec![Float(1.5)]));
    assert_eq!(write(&mut acme, "cpu", &[("usage", Float(2.0))]), Ok(vec![Integer(2)]));
    // A refused point pins nothing.
    let fields = [("new", Integer(1)), ("usage", Text(Cow::Borrowed("x")))];
    assert!(write(&mut acme, "cpu", &fields).is_err());
    assert_eq!(write(&mut acme, "cpu", &[("new", Float(0.5))]), Ok(vec![Float(0.5)]));
    assert_eq!(types.fields(), 0, "nothing is pinned before the log has it");
    let mut pins = keep(&types, acme);
    pins.sort_by(|a, b| (&a.measurement, &a.field).cmp(&(&b.measurement, &b.field)));
    let told: Vec<_> = pins.iter().map(|pin| (&*pin.measurement, &*pin.field)).collect();
    assert_eq!(told, [("cpu", "new"), ("cpu", "usage"), ("mem", "usage")]);
    assert_eq!(types.fields(), 3);
    let refused = write(&mut of("acme", ""), "cpu", &[("usage", Float(2.5))]);
    let expected = "input field \"usage\" on measurement \"cpu\" is type float, already exists as \
                    type integer";
    assert_eq!(refused, Err(expected.to_owned()));
    assert_eq!(types.conflicts.list()[1].conflict, expected);
    assert_eq!(types.conflicts.list()[1].database, "acme__");
    let mut known = of("acme", "");
    let both = [("usage", Float(7.0)), ("newer", Integer(1)), ("new", Integer(3))];
    let stored = vec![Integer(7), Integer(1), Float(3.0)];
    assert_eq!(write(&mut known, "cpu", &both), Ok(stored), "known and new fields in one point");
    assert!(known.allocated() > PIN_BYTES);
    assert_eq!(keep(&types, known).len(), 1);
}

#[test]
fn what_was_pinned_before_is_restored_and_the_first_counts() {
    let types = Types::new(LIMITS);
    let mut of = types.of("acme", "app", "acme__app").expect("room");
    write(&mut of, "cpu", &[("usage", FieldValue::Integer(1))]).expect("stored");
    let pins = of.into_pins();
    let again = Types::new(LIMITS);
    assert_eq!(again.restore(&pins[0]), FieldType::Integer);
    let other = Pin { field_type: FieldType::Float, ..pins[0].clone() };
    assert_eq!(again.restore(&other), FieldType::Integer);
    assert_eq!(again.pinned(&other), Some(FieldType::Integer));
    let mut of = again.of("acme", "app", "acme__app").expect("room");
    assert!(write(&mut of, "cpu", &[("usage", FieldValue::Float(1.5))]).is_err());
    assert!(again.of("acme", "x", "acme__x").is_ok(), "the restored database is one of two");
    assert!(again.of("acme", "y", "acme__y").is_err());
}

#[test]
fn a_request_that_stores_nothing_leaves_nothing_and_takes_nothing_away() {
    let types = Types::new(LIMITS);
    let mut refused = types.of("acme", "", "acme").expect("room");
    write(&mut refused, "m", &[("a", FieldValue::Integer(1))]).expect("checked");
    let mut stored = types.of("acme", "", "acme").expect("room");
    write(&mut stored, "m", &[("a", FieldValue::Integer(1))]).expect("checked");
    keep(&types, stored);
    drop(refused);
    assert_eq!((types.fields(), types.fields_pinned.get()), (1, 1));
    let mut of = types.of("acme", "", "acme").expect("room");
    assert!(write(&mut of, "m", &[("a", FieldValue::Float(0.5))]).is_err());
}

#[test]
fn a_tenant_has_so_many_databases_and_always_its_default_one() {
    let types = Types::new(LIMITS);
    for (database, fits) in
        [("a", true), ("b", true), ("c", false), ("a", true), ("", true), ("d", false)]
    {
        assert_eq!(types.of("acme", database, "x").is_ok(), fits, "{database}");
    }
    assert!(types.of("zeta", "c", "x").is_ok(), "another tenant has its own");
    assert_eq!(types.of("acme", "c", "x").err(), Some(TooManyDatabases(2)));
}

#[test]
fn at_a_bound_fields_are_let_through_unpinned() {
    let types = Types::new(Limits { fields_max: 3, fields_per_tenant_max: 2, ..LIMITS });
    let value = || FieldValue::Integer(1);
    let mut acme = types.of("acme", "", "acme").expect("room");
    let fields = [("a", value()), ("b", value()), ("c", value())];
    write(&mut acme, "m", &fields).expect("stored");
    keep(&types, acme);
    assert_eq!((types.fields(), types.unpinned.get()), (2, 1));
    let mut acme = types.of("acme", "", "acme").expect("room");
    assert_eq!(write(&mut acme, "m", &[("c", FieldValue::Float(1.5))]).map(|v| v.len()), Ok(1));
    let mut zeta = types.of("zeta", "", "zeta").expect("room");
    write(&mut zeta, "m", &fields).expect("stored");
    keep(&types, zeta);
    assert_eq!(types.fields(), 3, "the bound of all");
    assert!(write(&mut acme, "m", &[("a", FieldValue::Float(1.5))]).is_err(), "still pinned");
    let long = "f".repeat(line::PIN_BYTES_MAX);
    write(&mut acme, "m", &[(&long, value())]).expect("stored");
    assert_eq!(acme.into_pins(), [], "names that long are not pinned");
}

#[test]
fn of_two_types_at_the_same_time_the_first_in_the_log_is_pinned() {
    let types = Types::new(LIMITS);
    let mut of: Vec<TypesOf> =
        (0..2).map(|_| types.of("acme", "", "acme").expect("room")).collect();
    let values = [FieldValue::Float(1.5), FieldValue::Boolean(true)];
    for (of, value) in of.iter_mut().zip(&values) {
        write(of, "m", &[("f", value.clone())]).expect("nobody knows of the other");
    }
    let pins: Vec<Pin> = of.into_iter().flat_map(TypesOf::into_pins).collect();
    assert!(pins.iter().all(|pin| types.restore(pin) == FieldType::Float));
    assert_eq!(types.fields(), 1);
}

#[test]
fn a_field_that_is_pinned_between_check_and_note_is_checked_again() {
    let types = Types::new(LIMITS);
    let mut of = types.of("acme", "", "acme").expect("room");
    let mut late = point("m", &[("f", FieldValue::Integer(2))]);
    assert_eq!(of.check(&mut late), Checked::New);
    let mut other = types.of("acme", "", "acme").expect("room");
    write(&mut other, "m", &[("f", FieldValue::Float(0.5))]).expect("stored");
    keep(&types, other);
    assert!(!of.pin(&late));
    assert_eq!(of.check(&mut late), Checked::Known);
    assert_eq!(late.fields[0].1, FieldValue::Float(2.0));
}
