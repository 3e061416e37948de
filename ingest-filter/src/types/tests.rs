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
    let refused = write(&mut of("acme", ""), "cpu", &[("usage", Float(2.5))]);
    let expected = "input field \"usage\" on measurement \"cpu\" is type float, already exists as \
                    type integer";
    assert_eq!(refused, Err(expected.to_owned()));
    // A refused point pins nothing.
    let fields = [("new", Integer(1)), ("usage", Text(Cow::Borrowed("x")))];
    assert!(write(&mut acme, "cpu", &fields).is_err());
    assert_eq!(write(&mut acme, "cpu", &[("new", Float(0.5))]), Ok(vec![Float(0.5)]));
    assert_eq!(types.fields(), 5);
    assert_eq!(types.conflicts.list()[0].conflict, expected);
    assert_eq!(types.conflicts.list()[0].database, "acme__");
    let pins = acme.into_pins();
    let told: Vec<_> = pins.iter().map(|pin| (&*pin.measurement, &*pin.field)).collect();
    assert_eq!(told, [("cpu", "usage"), ("mem", "usage"), ("cpu", "new")]);
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
    let mut of = again.of("acme", "app", "acme__app").expect("room");
    assert!(write(&mut of, "cpu", &[("usage", FieldValue::Float(1.5))]).is_err());
    assert!(again.of("acme", "x", "acme__x").is_ok(), "the restored database is one of two");
    assert!(again.of("acme", "y", "acme__y").is_err());
}

#[test]
fn what_was_pinned_for_nothing_is_taken_back() {
    let types = Types::new(LIMITS);
    let mut kept = types.of("acme", "", "acme").expect("room");
    write(&mut kept, "m", &[("a", FieldValue::Integer(1))]).expect("stored");
    let mut of = types.of("acme", "", "acme").expect("room");
    let fields = [("x", FieldValue::Integer(1)), ("a", FieldValue::Integer(1))];
    write(&mut of, "m", &fields).expect("checked");
    write(&mut of, "m", &[("y", FieldValue::Integer(1))]).expect("checked");
    of.withdraw();
    assert_eq!((types.fields(), types.pinned.get()), (1, 1));
    let fields = [("y", FieldValue::Boolean(true)), ("x", FieldValue::Float(0.5))];
    assert!(write(&mut kept, "m", &fields).is_ok());
    assert!(write(&mut kept, "m", &[("a", FieldValue::Float(0.5))]).is_err());
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
    assert_eq!((types.fields(), types.unpinned.get()), (2, 1));
    assert_eq!(write(&mut acme, "m", &[("c", FieldValue::Float(1.5))]).map(|v| v.len()), Ok(1));
    let mut zeta = types.of("zeta", "", "zeta").expect("room");
    write(&mut zeta, "m", &fields).expect("stored");
    assert_eq!(types.fields(), 3, "the bound of all");
    assert!(write(&mut acme, "m", &[("a", FieldValue::Float(1.5))]).is_err(), "still pinned");
}

#[test]
fn of_two_types_at_the_same_time_one_is_pinned() {
    for round in 0..50 {
        let types = Types::new(LIMITS);
        let measurement = format!("m{round}");
        let outcomes: Vec<bool> = std::thread::scope(|scope| {
            let threads: Vec<_> = [FieldValue::Float(1.5), FieldValue::Boolean(true)]
                .into_iter()
                .map(|value| {
                    let (types, measurement) = (&types, &measurement);
                    scope.spawn(move || {
                        let mut of = types.of("acme", "", "acme").expect("room");
                        write(&mut of, measurement, &[("f", value)]).is_ok()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        assert_eq!(outcomes.iter().filter(|stored| **stored).count(), 1);
        assert_eq!(types.fields(), 1);
    }
}
