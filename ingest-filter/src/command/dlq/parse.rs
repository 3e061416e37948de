//! A dead letter's points, read and judged as when they first came. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::destination::Destinations;
use crate::journal::stored_letter::StoredLetter;
use crate::line_protocol::{Dialect, Lines, Precision};
use crate::point::{Chunker, Point};
use crate::record::Record;
use crate::types::Types;

/// What the gateway goes by.
pub(super) struct Rules {
    pub destinations: Destinations,
    pub types: Arc<Types>,
    pub chunk_bytes_max: usize,
    pub accept_unsigned: bool,
}

/// What became of a letter's points.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parsed {
    pub records: Vec<Record>,
    pub points: u64,
    /// Points by the reason for which they are refused.
    pub refused: BTreeMap<String, u64>,
}

impl Rules {
    /// Turns a letter into records.
    pub fn read(&self, letter: &StoredLetter) -> Parsed {
        let (tenant, database) = (&letter.tenant, &letter.database);
        let destination = self.destinations.resolve(tenant, database);
        // To name the default database is to name none.
        let default = self.destinations.named("") == database;
        let named = if default { "" } else { database.as_str() };
        let mut parsed = Parsed::default();
        let Ok(types) = self.types.of(tenant, named, &destination.name) else {
            let reason = "the tenant has too many databases".to_owned();
            parsed.refused.insert(reason, u64::from(letter.points));
            return parsed;
        };
        let tags = self.destinations.tags_added();
        let mut chunker =
            Chunker::new(tags, letter.admitted_at_ns, self.chunk_bytes_max).typed(types);
        let dialect = Dialect {
            precision: Precision::Nanoseconds,
            unsigned: self.accept_unsigned,
            line_bytes_max: self.chunk_bytes_max * 2,
        };
        let mut lines = Lines::new(&letter.body, dialect);
        let mut point = Point::default();
        while let Some(line) = lines.next(&mut point) {
            let stored = match line {
                Ok(_) => chunker.push(&mut point),
                Err(error) => Err(error.fault),
            };
            if let Err(fault) = stored {
                *parsed.refused.entry(fault.to_string()).or_default() += 1;
            }
        }
        parsed.points = chunker.points();
        // For the letters that follow; the gateways' log of pins is not written to.
        for pin in chunker.take_pins() {
            self.types.restore(&pin);
        }
        parsed.records = chunker
            .finish()
            .into_iter()
            .map(|chunk| Record {
                tenant: tenant.clone(),
                database: database.clone(),
                shard: chunk.shard,
                points: chunk.points,
                admitted_at_ns: letter.admitted_at_ns,
                request_id: letter.request_id.clone(),
                traceparent: None,
                body: chunk.body,
            })
            .collect();
        parsed
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::types::Limits;

    #[test]
    fn points_are_judged_as_the_first_time() {
        let limits =
            Limits { fields_max: 10, fields_per_tenant_max: 10, databases_per_tenant_max: 1 };
        let rules = Rules {
            destinations: Destinations::default(),
            types: Types::new(limits),
            chunk_bytes_max: 1 << 20,
            accept_unsigned: false,
        };
        let letter = |database: &str, body: &'static str| StoredLetter {
            tenant: "acme".to_owned(),
            database: database.to_owned(),
            points: 4,
            admitted_at_ns: 7,
            body: Bytes::from_static(body.as_bytes()),
            ..StoredLetter::default()
        };
        let parsed = rules.read(&letter("app", "m v=1 1\nm v=\"x\" 2\n0 \\\\=\"=\"\nm v=3 3\n"));
        assert_eq!((parsed.points, parsed.refused.values().sum::<u64>()), (2, 2), "{parsed:?}");
        assert_eq!(parsed.refused.get("field type conflict"), Some(&1));
        let [record] = &parsed.records[..] else { panic!("one series") };
        assert_eq!((&record.body[..], record.points), (&b"m v=1.0 1\nm v=3.0 3\n"[..], 2));
        assert_eq!((&*record.database, record.admitted_at_ns), ("app", 7));
        // Of a body that came from a client this mark would be passed over.
        let marked = rules.read(&letter("app", "\u{feff}m v=1 1\n"));
        assert_eq!(marked.records[0].body, "\u{feff}m v=1.0 1\n");
        let beyond = rules.read(&letter("other", "m v=1 1\n"));
        assert_eq!((beyond.records.len(), beyond.refused.values().sum::<u64>()), (0, 4));
    }
}
