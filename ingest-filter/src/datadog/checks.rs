//! Service checks in JSON, which `/api/v1/check_run` takes: a list, or one alone.
//!
//! ```text
//! check             measurement
//! host_name, tags   as of a series; host_name is the tag `host`
//! status            field `status`: 0 ok, 1 warning, 2 critical, 3 unknown
//! message           field `message`, where there is one
//! ```

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::json::{MEMORY_PER_BYTE, tags};
use super::{Series, whole_seconds};
use crate::fault::Fault;
use crate::intake::{Intake, Item, Kind, Stop};
use crate::point::FieldValue;

#[derive(Deserialize)]
struct Check<'a> {
    #[serde(borrow)]
    check: Cow<'a, str>,
    status: i64,
    #[serde(borrow, default)]
    host_name: Option<Cow<'a, str>>,
    #[serde(default)]
    timestamp: Option<i64>,
    #[serde(borrow, default)]
    message: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    tags: Option<Vec<&'a RawValue>>,
}

/// Hands every check of a body of `/api/v1/check_run` to `intake`.
///
/// # Errors
/// When the body is no JSON list of checks, or with what `intake` stops with.
pub fn service_checks(body: &[u8], intake: &mut dyn Intake) -> Result<(), Stop> {
    intake.reserve(body.len().saturating_mul(MEMORY_PER_BYTE))?;
    let text = crate::wire::text(body);
    let checks: Vec<&RawValue> = match text.trim_start().starts_with('{') {
        true => vec![serde_json::from_str(&text).map_err(|_| Stop::Malformed)?],
        false => serde_json::from_str(&text).map_err(|_| Stop::Malformed)?,
    };
    checks.iter().try_for_each(|check| take(check.get(), intake))
}

fn take(check: &str, intake: &mut dyn Intake) -> Result<(), Stop> {
    let Ok(read) = serde_json::from_str::<Check<'_>>(check) else {
        return intake.take(Kind::Sample, Item::Rejected(Fault::Malformed));
    };
    let mut series = Series { metric: read.check, ..Series::default() };
    let host = read.host_name.unwrap_or_default();
    let fault = series.set("host".into(), host).and_then(|()| tags(&mut series, read.tags));
    let (mut point, named) = series.named(fault);
    let filled = named.and_then(|()| {
        if !(0..=3).contains(&read.status) {
            return Err(Fault::NumberOutOfRange);
        }
        point.fields.push(("status".into(), FieldValue::Integer(read.status)));
        if let Some(message) = read.message.filter(|message| !message.is_empty()) {
            point.fields.push(("message".into(), FieldValue::Text(message)));
        }
        point.timestamp_ns = read.timestamp.map(whole_seconds).transpose()?;
        Ok(())
    });
    let item = match filled {
        Ok(()) => Item::Point(&mut point),
        Err(fault) => Item::Rejected(fault),
    };
    intake.take(Kind::Sample, item)
}
