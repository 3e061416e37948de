//! A pin as one line of text, as logs of pins keep it. Pure.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{FieldType, Pin};

/// How long the names of a measurement and a field may be together to be pinned, bytes.
pub const PIN_BYTES_MAX: usize = 8 << 10;

#[derive(Serialize, Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    tenant: Cow<'a, str>,
    #[serde(borrow)]
    database: Cow<'a, str>,
    #[serde(borrow)]
    destination: Cow<'a, str>,
    #[serde(borrow)]
    measurement: Cow<'a, str>,
    #[serde(borrow)]
    field: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    field_type: Cow<'a, str>,
}

impl Pin {
    /// Appends the pin and a line feed.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        let line = Line {
            tenant: Cow::Borrowed(&self.tenant),
            database: Cow::Borrowed(&self.database),
            destination: Cow::Borrowed(&self.destination),
            measurement: Cow::Borrowed(&self.measurement),
            field: Cow::Borrowed(&self.field),
            field_type: Cow::Borrowed(self.field_type.name()),
        };
        serde_json::to_writer(&mut *out, &line).expect("text is JSON, and memory grows");
        out.push(b'\n');
    }

    /// Reads a line, with or without its line feed; none when it holds no pin.
    pub fn from_line(line: &[u8]) -> Option<Self> {
        let line: Line<'_> = serde_json::from_slice(line).ok()?;
        Some(Self {
            field_type: FieldType::named(&line.field_type)?,
            tenant: line.tenant.into_owned(),
            database: line.database.into_owned(),
            destination: line.destination.into_owned(),
            measurement: line.measurement.into_owned(),
            field: line.field.into_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_pin_is_one_line_and_is_read_back(
            tenant: String, database: String, measurement: String, field: String, number in 0..5usize,
        ) {
            let destination = format!("{tenant}__{database}");
            let field_type = FieldType::ALL[number];
            let pin = Pin { tenant, database, destination, measurement, field, field_type };
            let mut line = Vec::new();
            pin.write_line(&mut line);
            prop_assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
            prop_assert_eq!(Pin::from_line(&line), Some(pin));
        }

        #[test]
        fn any_bytes_are_a_pin_or_none(line: Vec<u8>) {
            prop_assert_eq!(Pin::from_line(&line), None);
        }
    }
}
