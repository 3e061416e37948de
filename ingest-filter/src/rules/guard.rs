//! The rules of a tenant, applied to the points of one request.

use std::borrow::Cow;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::series::{Limits, Seen, Series, Tracked, WINDOW_SECONDS};
use super::{OtlpRules, Rules};
use crate::fault::Fault;
use crate::point::{KnownLine, Point};

/// How much of a name is told, bytes.
const NAME_BYTES_TOLD: usize = 64;

/// How many refusals of a request are put into words.
const DETAILS_MAX: u32 = 100;

/// What a rule can refuse.
pub const FAULTS: [Fault; 9] = [
    Fault::LabelsTooMany,
    Fault::LabelNameTooLong,
    Fault::LabelValueTooLong,
    Fault::TooOld,
    Fault::TooFarAhead,
    Fault::SeriesTooMany,
    Fault::SeriesTooFast,
    Fault::TemporalityRefused,
    Fault::TypeConflict,
];

/// What is remembered of a tenant from request to request.
#[derive(Debug, Default)]
pub struct TenantState {
    series: Mutex<Series>,
    refused: [AtomicU64; FAULTS.len()],
    /// Requests whose bodies were too large.
    too_large: AtomicU64,
    /// When the newest request came, seconds since 1970.
    used_at: AtomicI64,
}

impl TenantState {
    /// How many series are active.
    pub fn series(&self) -> usize {
        self.series.lock().unwrap_or_else(PoisonError::into_inner).active()
    }

    /// Forgets the series that are active no more; `tracked` counts those of all tenants. True
    /// once the tenant has none and wrote nothing for as long as a series may be active, so that
    /// all of it may be forgotten.
    pub fn forget(&self, now_seconds: i64, tracked: &Tracked) -> bool {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        series.forget(now_seconds, tracked);
        let idle = now_seconds.saturating_sub(self.used_at.load(Ordering::Relaxed));
        series.active() == 0 && idle >= 2 * WINDOW_SECONDS
    }

    /// How many points each rule has refused, where any.
    pub fn refused(&self) -> impl Iterator<Item = (Fault, u64)> {
        let counts = self.refused.iter().map(|count| count.load(Ordering::Relaxed));
        FAULTS.into_iter().zip(counts).filter(|(_, count)| *count > 0)
    }

    /// How many requests were refused for their size.
    pub fn too_large(&self) -> u64 {
        self.too_large.load(Ordering::Relaxed)
    }

    /// Counts a request that was refused for its size.
    pub fn count_too_large(&self) {
        self.too_large.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts what a rule refused; false for every other fault.
    pub fn count(&self, fault: Fault, times: u64) -> bool {
        let Some(at) = FAULTS.iter().position(|known| *known == fault) else { return false };
        self.refused[at].fetch_add(times, Ordering::Relaxed);
        true
    }
}

/// The rules for the points of one request.
#[derive(Debug)]
pub struct Guard {
    rules: Arc<Rules>,
    state: Arc<TenantState>,
    /// The series of all tenants that are remembered.
    tracked: Arc<Tracked>,
    admitted_at_ns: i64,
    earliest_ns: i64,
    latest_ns: i64,
    tags: Vec<(String, String)>,
    detail: String,
    details_left: u32,
    untracked: u64,
}

impl Guard {
    /// Applies `rules` to a request that was admitted at this time; its points get `tags`.
    pub fn new(
        rules: Arc<Rules>,
        state: Arc<TenantState>,
        tracked: Arc<Tracked>,
        admitted_at_ns: i64,
        tags: Vec<(String, String)>,
    ) -> Self {
        state.used_at.fetch_max(admitted_at_ns / 1_000_000_000, Ordering::Relaxed);
        let ns = |duration: std::time::Duration| i64::try_from(duration.as_nanos());
        let past = rules.past_max.map_or(i64::MAX, |past| ns(past).unwrap_or(i64::MAX));
        let future = rules.future_max.map_or(i64::MAX, |ahead| ns(ahead).unwrap_or(i64::MAX));
        let earliest_ns = match rules.past_max {
            Some(_) => admitted_at_ns.saturating_sub(past),
            None => i64::MIN,
        };
        let latest_ns = admitted_at_ns.saturating_add(future);
        Self {
            rules,
            state,
            tracked,
            admitted_at_ns,
            earliest_ns,
            latest_ns,
            tags,
            detail: String::new(),
            details_left: DETAILS_MAX,
            untracked: 0,
        }
    }

    /// The rules for OTLP.
    pub fn otlp(&self) -> OtlpRules {
        self.rules.otlp
    }

    /// The tags that points get beside their own.
    pub fn tags(&self) -> &[(String, String)] {
        &self.tags
    }

    /// Whether a line that looks like an earlier one passes; `hash` is that of its series, with the
    /// tags that it gets. One that
    /// does not, or may not, is to be read and then admitted as a point.
    pub fn admits_known(&mut self, line: &KnownLine<'_>, hash: u64) -> bool {
        let rules = &*self.rules;
        let (names, values) = (rules.label_name_bytes_max, rules.label_value_bytes_max);
        let (name, value) = (names.unwrap_or(usize::MAX), values.unwrap_or(usize::MAX));
        let is_short = |tag: &[u8]| {
            // With their escapes they are longer than without, never shorter.
            let at = tag.iter().position(|byte| *byte == b'=').unwrap_or(tag.len());
            at <= name && tag.len() - at <= value.saturating_add(1)
        };
        let within = (names.is_none() && values.is_none()) || line.tags.iter().all(is_short);
        let is_plain = rules.labels_max.is_none_or(|max| line.tags.count() <= max)
            && within
            && self.is_in_window(line.timestamp);
        is_plain && matches!(self.see(hash), None | Some(Seen::Active | Seen::Untracked))
    }

    /// Lets a point pass, with the tags that it gets, or says which rule it breaks. The tags are
    /// behind its own, and to be taken away again. Its series is for [`Guard::admit_series`].
    ///
    /// # Errors
    /// With what is wrong; [`Guard::take_detail`] says more.
    pub fn admit(&mut self, point: &mut Point<'_>) -> Result<(), Fault> {
        let checked = self.labels(point).and_then(|()| self.time(point));
        if let Err((fault, detail)) = checked {
            return Err(self.refuse(fault, detail));
        }
        if let Some((key, _)) = self.tags.iter().find(|(key, _)| is_there(point, key)) {
            let detail = Detail::new(point, key, 0, 0);
            return Err(self.refuse(Fault::TagDuplicate, detail));
        }
        for (key, value) in &self.tags {
            point.tags.push((Cow::Owned(key.clone()), Cow::Owned(value.clone())));
        }
        Ok(())
    }

    /// Lets the series of a point pass, which has this hash with all its tags.
    ///
    /// # Errors
    /// When it is new and there may be no more, or not yet.
    pub fn admit_series(&mut self, point: &Point<'_>, hash: u64) -> Result<(), Fault> {
        let (fault, max) = match self.see(hash) {
            None | Some(Seen::Active | Seen::Untracked) => return Ok(()),
            Some(Seen::TooMany) => (Fault::SeriesTooMany, self.rules.series_max.unwrap_or(0)),
            Some(Seen::TooFast) => {
                let rate = self.rules.new_series_per_minute.unwrap_or(0);
                (Fault::SeriesTooFast, rate as usize)
            }
        };
        Err(self.refuse(fault, Detail::new(point, "", 0, max)))
    }

    /// What was wrong with the point that was refused last; empty when that was not a rule's doing.
    pub fn take_detail(&mut self) -> String {
        std::mem::take(&mut self.detail)
    }

    /// How many new series were let through without being remembered.
    pub fn untracked(&self) -> u64 {
        self.untracked
    }

    /// Where refusals are counted.
    pub fn state(&self) -> &Arc<TenantState> {
        &self.state
    }

    fn labels(&self, point: &Point<'_>) -> Result<(), (Fault, Detail)> {
        let (labels, rules) = (point.tags.len(), &*self.rules);
        if let Some(max) = rules.labels_max.filter(|max| labels > *max) {
            return Err((Fault::LabelsTooMany, Detail::new(point, "", labels, max)));
        }
        let (names, values) = (rules.label_name_bytes_max, rules.label_value_bytes_max);
        if names.is_none() && values.is_none() {
            return Ok(());
        }
        for (name, value) in &point.tags {
            if let Some(max) = names.filter(|max| name.len() > *max) {
                let detail = Detail::new(point, name, name.len(), max);
                return Err((Fault::LabelNameTooLong, detail));
            }
            if let Some(max) = values.filter(|max| value.len() > *max) {
                let detail = Detail::new(point, name, value.len(), max);
                return Err((Fault::LabelValueTooLong, detail));
            }
        }
        Ok(())
    }

    fn time(&self, point: &Point<'_>) -> Result<(), (Fault, Detail)> {
        let Some(at) = point.timestamp_ns else { return Ok(()) };
        let seconds = |ns: i64| usize::try_from(ns / 1_000_000_000).unwrap_or(0);
        if at < self.earliest_ns {
            let (age, max) = (self.admitted_at_ns.saturating_sub(at), self.rules.past_max);
            let max = max.map_or(0, |max| max.as_secs() as usize);
            return Err((Fault::TooOld, Detail::new(point, "", seconds(age), max)));
        }
        if at > self.latest_ns {
            let (ahead, max) = (at.saturating_sub(self.admitted_at_ns), self.rules.future_max);
            let max = max.map_or(0, |max| max.as_secs() as usize);
            return Err((Fault::TooFarAhead, Detail::new(point, "", seconds(ahead), max)));
        }
        Ok(())
    }

    /// Whether the timestamp of a line, a blank and digits or nothing, is one that may be.
    fn is_in_window(&self, timestamp: &[u8]) -> bool {
        if timestamp.is_empty() || (self.earliest_ns == i64::MIN && self.rules.future_max.is_none())
        {
            return true;
        }
        let digits = std::str::from_utf8(&timestamp[1..]).ok();
        let at = digits.and_then(|digits| digits.parse().ok());
        at.is_some_and(|at: i64| at >= self.earliest_ns && at <= self.latest_ns)
    }

    /// What a series is by the rules; none where they do not speak of series.
    fn see(&mut self, hash: u64) -> Option<Seen> {
        let rules = &*self.rules;
        let (series_max, new_per_minute) = (rules.series_max, rules.new_series_per_minute);
        if series_max.is_none() && new_per_minute.is_none() {
            return None;
        }
        let limits = Limits { series_max: series_max.unwrap_or(usize::MAX), new_per_minute };
        let now = self.admitted_at_ns / 1_000_000_000;
        let mut series = self.state.series.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = series.admit(hash, now, limits, &self.tracked);
        self.untracked += u64::from(seen == Seen::Untracked);
        Some(seen)
    }

    fn refuse(&mut self, fault: Fault, detail: Detail) -> Fault {
        self.detail.clear();
        if self.details_left > 0 {
            self.details_left -= 1;
            self.detail = detail.words(fault);
        }
        fault
    }
}

fn is_there(point: &Point<'_>, key: &str) -> bool {
    point.tags.iter().any(|tag| tag.0 == key)
}

/// A measurement by its name, which is cut.
pub fn of_measurement(name: &str) -> String {
    format!("measurement {:?}", cut(name))
}

fn cut(name: &str) -> &str {
    &name[..name.floor_char_boundary(NAME_BYTES_TOLD)]
}

/// What broke a rule: names are cut.
struct Detail {
    measurement: String,
    label: String,
    found: usize,
    max: usize,
}

impl Detail {
    fn new(point: &Point<'_>, label: &str, found: usize, max: usize) -> Self {
        let (measurement, label) = (cut(&point.measurement).to_owned(), cut(label).to_owned());
        Self { measurement, label, found, max }
    }

    fn words(&self, fault: Fault) -> String {
        let Self { measurement, label, found, max } = self;
        match fault {
            Fault::LabelsTooMany => {
                format!("measurement {measurement:?} has {found}, at most {max}")
            }
            Fault::LabelNameTooLong | Fault::LabelValueTooLong => format!(
                "tag {label:?} on measurement {measurement:?} has {found} bytes, at most {max}"
            ),
            Fault::TagDuplicate => format!(
                "tag {label:?} on measurement {measurement:?} is one that the rules of the tenant add"
            ),
            Fault::TooOld => {
                format!("measurement {measurement:?} is {found} s old, at most {max} s")
            }
            Fault::TooFarAhead => {
                format!("measurement {measurement:?} is {found} s ahead, at most {max} s")
            }
            Fault::SeriesTooFast => {
                format!("measurement {measurement:?}, at most {max} new ones in a minute")
            }
            _ => format!("measurement {measurement:?}, at most {max}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::point::FieldValue;

    const SECOND: i64 = 1_000_000_000;
    const NOW: i64 = 1_000_000 * SECOND;

    fn guard(rules: Rules, tags: &[(&str, &str)]) -> Guard {
        let tags = tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let tracked = Arc::new(Tracked::new(Arc::default(), 1 << 20));
        Guard::new(Arc::new(rules), Arc::default(), tracked, NOW, tags.collect())
    }

    fn point(tags: &[(&'static str, &'static str)], timestamp_ns: Option<i64>) -> Point<'static> {
        let tags = tags.iter().map(|(key, value)| (Cow::Borrowed(*key), Cow::Borrowed(*value)));
        Point {
            measurement: Cow::Borrowed("cpu"),
            tags: tags.collect(),
            fields: vec![(Cow::Borrowed("v"), FieldValue::Integer(1))],
            timestamp_ns,
            ..Point::default()
        }
    }

    #[track_caller]
    fn check(rules: Rules, mut point: Point<'_>, expected: Result<(), (Fault, &str)>) {
        let mut guard = guard(rules, &[]);
        let found = guard.admit(&mut point).map_err(|fault| (fault, guard.take_detail()));
        let expected = expected.map_err(|(fault, detail)| (fault, detail.to_owned()));
        assert_eq!(found, expected);
    }

    #[test]
    fn labels_have_their_bounds() {
        let rules = || Rules {
            labels_max: Some(2),
            label_name_bytes_max: Some(4),
            label_value_bytes_max: Some(3),
            ..Rules::default()
        };
        check(rules(), point(&[("host", "a"), ("b", "ccc")], None), Ok(()));
        let many = "measurement \"cpu\" has 3, at most 2";
        let three = point(&[("a", "1"), ("b", "1"), ("c", "1")], None);
        check(rules(), three, Err((Fault::LabelsTooMany, many)));
        let name = "tag \"hosts\" on measurement \"cpu\" has 5 bytes, at most 4";
        check(rules(), point(&[("hosts", "1")], None), Err((Fault::LabelNameTooLong, name)));
        let value = "tag \"host\" on measurement \"cpu\" has 4 bytes, at most 3";
        check(rules(), point(&[("host", "1234")], None), Err((Fault::LabelValueTooLong, value)));
    }

    #[test]
    fn a_point_is_neither_too_old_nor_too_far_ahead() {
        let rules = || Rules {
            past_max: Some(Duration::from_secs(60)),
            future_max: Some(Duration::from_secs(5)),
            ..Rules::default()
        };
        for at in [None, Some(NOW), Some(NOW - 60 * SECOND), Some(NOW + 5 * SECOND)] {
            check(rules(), point(&[], at), Ok(()));
        }
        let old = "measurement \"cpu\" is 61 s old, at most 60 s";
        check(rules(), point(&[], Some(NOW - 61 * SECOND)), Err((Fault::TooOld, old)));
        let ahead = "measurement \"cpu\" is 6 s ahead, at most 5 s";
        check(rules(), point(&[], Some(NOW + 6 * SECOND)), Err((Fault::TooFarAhead, ahead)));
        check(Rules::default(), point(&[], Some(i64::MIN + 2)), Ok(()));
        check(Rules::default(), point(&[], Some(i64::MAX - 1)), Ok(()));
    }

    #[test]
    fn series_are_counted_once_and_the_refused_one_is_named() {
        let rules = Rules { series_max: Some(2), ..Rules::default() };
        let mut guard = guard(rules, &[]);
        let mut admit = |hash| {
            let admitted = guard.admit_series(&point(&[("a", "b")], None), hash);
            (admitted, guard.take_detail())
        };
        assert_eq!((admit(1).0, admit(1).0, admit(2).0), (Ok(()), Ok(()), Ok(())));
        let detail = "measurement \"cpu\", at most 2".to_owned();
        assert_eq!(admit(3), (Err(Fault::SeriesTooMany), detail));
        assert!(guard.state().count(Fault::SeriesTooMany, 3));
        assert!(!guard.state().count(Fault::NotFinite, 3));
        assert_eq!(guard.state().series(), 2);
        assert_eq!(guard.state().refused().collect::<Vec<_>>(), [(Fault::SeriesTooMany, 3)]);
    }

    #[test]
    fn the_first_refusals_are_put_into_words() {
        let rules = Rules { labels_max: Some(0), ..Rules::default() };
        let mut guard = guard(rules, &[]);
        for at in 0..DETAILS_MAX + 1 {
            assert_eq!(guard.admit(&mut point(&[("a", "b")], None)), Err(Fault::LabelsTooMany));
            assert_eq!(guard.take_detail().is_empty(), at == DETAILS_MAX);
        }
    }
}
