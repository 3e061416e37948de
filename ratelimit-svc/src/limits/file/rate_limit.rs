//! The `rate_limit` of a descriptor: so many hits, per what, and how they are counted.

use std::ops::RangeInclusive;

use chassis::config::{ConfigError, DurationText};

use crate::document::{Node as Yaml, Value};
use crate::limits::algorithm::Algorithm;
use crate::limits::file::Reader;
use crate::limits::rule::{Allowance, CountingMode, Limit, Step};
use crate::limits::unit::{PERIOD_SECONDS_MAX, Period, Unit};

/// What an unlimited rule may not say.
const LIMITED_ONLY: [&str; 10] = [
    "window",
    "unit_multiplier",
    "algorithm",
    "burst",
    "overdraft",
    "reserve",
    "floor",
    "reserve_min",
    "admit_up_to",
    "mode",
];

/// The descriptors of Envoy's bootstrap here whose hits are told once they have happened.
const TOLD_AFTERWARDS: [&str; 2] = ["tenant_points", "tenant_bytes"];

fn told_afterwards(steps: &[Step]) -> Option<&str> {
    let told = |step: &&Step| TOLD_AFTERWARDS.contains(&&*step.key);
    steps.iter().find(told).map(|step| &*step.key)
}

impl Reader<'_> {
    /// Warns of a quota that its own reports cannot be held against.
    pub(super) fn warn_unfit(&mut self, limit: &Yaml, steps: &[Step]) {
        let Some(key) = told_afterwards(steps) else { return };
        for (name, value, why) in [
            ("algorithm", "token_bucket", "what does not fit a bucket is not counted"),
            ("mode", "lease", "what is claimed ahead passes when the limit is reached"),
        ] {
            if let Some(at) = given(limit, name).filter(|at| at.value.as_text() == Some(value)) {
                let message = format!(
                    "{name} {value} cannot hold {key}, whose hits are told once they have happened: {why}"
                );
                self.warnings.push(ConfigError::at(self.path, at, message));
            }
        }
    }

    pub(super) fn allowance(&self, limit: &Yaml, steps: &[Step]) -> Result<Allowance, ConfigError> {
        if self.flag_of(limit, "unlimited")? {
            return self.unlimited(limit);
        }
        let period = self.period(limit)?;
        let requests_per_unit =
            self.number_of(limit, "requests_per_unit", 0..=u32::MAX)?.unwrap_or(0);
        let algorithm = self.algorithm(limit, period, requests_per_unit)?;
        let mode = self.mode(limit, algorithm, told_afterwards(steps).is_some())?;
        Ok(Allowance::Limited(Limit { requests_per_unit, period, algorithm, mode }))
    }

    fn mode(
        &self,
        limit: &Yaml,
        algorithm: Algorithm,
        told_afterwards: bool,
    ) -> Result<Option<CountingMode>, ConfigError> {
        // No block can hold reports, and what is claimed ahead passes when they have used up the limit.
        let overdraft = self.overdraft(limit)?;
        let Some(at) = given(limit, "mode") else {
            return Ok((overdraft || told_afterwards).then_some(CountingMode::Exact));
        };
        match at.value.as_text() {
            Some("lease") if overdraft => {
                Err(self.error(at, "mode lease cannot be used with overdraft"))
            }
            Some("lease") if algorithm.has_windows() => Ok(Some(CountingMode::Lease)),
            Some("lease") => {
                let message = "mode lease can only be used with algorithm fixed_window";
                Err(self.error(at, message))
            }
            Some("exact") => Ok(Some(CountingMode::Exact)),
            _ => Err(self.error(at, "mode must be lease or exact")),
        }
    }

    /// Whether hits that have happened already are counted beyond the limit too.
    pub(super) fn overdraft(&self, limit: &Yaml) -> Result<bool, ConfigError> {
        let Some(at) = given(limit, "overdraft").filter(|flag| flag.value == Value::Bool(true))
        else {
            return self.flag_of(limit, "overdraft");
        };
        if self.text_of(limit, "algorithm")? == "token_bucket" {
            let message = "overdraft cannot be used with algorithm token_bucket";
            return Err(self.error(at, message));
        }
        // What is reported has no class that could be refused, and a forecast learns from refusals.
        let shared = ["reserve", "floor", "reserve_min"];
        if let Some((key, at)) = shared.iter().find_map(|key| Some((key, given(limit, key)?))) {
            return Err(self.error(at, format!("{key} cannot be used with overdraft")));
        }
        if self.number_of(limit, "requests_per_unit", 0..=u32::MAX)?.unwrap_or(0) == 0 {
            return Err(self.error(at, "overdraft needs requests_per_unit above 0"));
        }
        Ok(true)
    }

    fn unlimited(&self, limit: &Yaml) -> Result<Allowance, ConfigError> {
        if !self.text_of(limit, "unit")?.is_empty() {
            let at = limit.value.get("unit").unwrap_or(limit);
            return Err(self.error(at, "should not specify rate limit unit when unlimited"));
        }
        match LIMITED_ONLY.iter().find_map(|key| Some((key, given(limit, key)?))) {
            Some((key, at)) => {
                let message = format!("should not specify rate limit {key} when unlimited");
                Err(self.error(at, message))
            }
            None => Ok(Allowance::Unlimited),
        }
    }

    /// `unit`, a multiple of it, or any `window`.
    fn period(&self, limit: &Yaml) -> Result<Period, ConfigError> {
        let multiplier = given(limit, "unit_multiplier");
        if let Some(window) = given(limit, "window") {
            if given(limit, "unit").is_some() {
                let message = "should not specify both rate limit unit and window";
                return Err(self.error(window, message));
            }
            if let Some(multiplier) = multiplier {
                return Err(self.error(multiplier, "unit_multiplier can only be used with unit"));
            }
            return self.window(window);
        }
        let unit = self.text_of(limit, "unit")?;
        let at = limit.value.get("unit").unwrap_or(limit);
        let unit = Unit::parse(&unit)
            .ok_or_else(|| self.error(at, format!("invalid rate limit unit '{unit}'")))?;
        let Some(at) = multiplier else { return Ok(unit.into()) };
        let times = self.number_of(limit, "unit_multiplier", 1..=u32::MAX)?.unwrap_or(1);
        Period::try_new(unit.seconds().saturating_mul(times.into())).ok_or_else(|| {
            let problem = "unit times unit_multiplier must not be longer than";
            self.error(at, format!("{problem} {}h", PERIOD_SECONDS_MAX / 3600))
        })
    }

    fn window(&self, node: &Yaml) -> Result<Period, ConfigError> {
        let duration = node.value.as_text().and_then(|text| text.parse::<DurationText>().ok());
        let whole = duration.filter(|duration| duration.0.subsec_nanos() == 0);
        whole.and_then(|duration| Period::try_new(duration.0.as_secs())).ok_or_else(|| {
            let bounds = format!("from 1s to {}h", PERIOD_SECONDS_MAX / 3600);
            let problem = "window must be a duration of whole seconds such as 30s,";
            self.error(node, format!("error loading config file: {problem} {bounds}"))
        })
    }

    fn algorithm(
        &self,
        limit: &Yaml,
        period: Period,
        requests_per_unit: u32,
    ) -> Result<Algorithm, ConfigError> {
        let name = self.text_of(limit, "algorithm")?;
        let at = limit.value.get("algorithm").unwrap_or(limit);
        let burst_at = given(limit, "burst");
        // A bucket holds what a window would, unless it says otherwise.
        let algorithm = match name.as_str() {
            "" => Some(Algorithm::default()),
            name => Algorithm::of_name(name, requests_per_unit),
        };
        let Some(algorithm) = algorithm else {
            return Err(self.error(at, format!("invalid rate limit algorithm '{name}'")));
        };
        let Some(at) = burst_at else { return Ok(algorithm) };
        if algorithm.burst().is_none() {
            return Err(self.error(at, "burst can only be used with algorithm token_bucket"));
        }
        let burst = self.number_of(limit, "burst", 1..=u32::MAX)?.unwrap_or(requests_per_unit);
        let algorithm = algorithm.with_burst(|_| burst);
        // Keeps all instants within what every store computes exactly.
        let refill_seconds = u64::from(burst) * period.seconds();
        if refill_seconds > PERIOD_SECONDS_MAX * u64::from(requests_per_unit.max(1)) {
            let hours = PERIOD_SECONDS_MAX / 3600;
            let message = format!("a burst of {burst} takes longer than {hours}h to refill");
            return Err(self.error(at, message));
        }
        Ok(algorithm)
    }

    fn number_of(
        &self,
        node: &Yaml,
        key: &str,
        bounds: RangeInclusive<u32>,
    ) -> Result<Option<u32>, ConfigError> {
        let Some(at) = given(node, key) else { return Ok(None) };
        let Value::Integer(number) = at.value else {
            let message = format!("error loading config file: {key} must be a whole number");
            return Err(self.error(at, message));
        };
        let number = u32::try_from(number).ok().filter(|number| bounds.contains(number));
        number.map(Some).ok_or_else(|| {
            let (from, to) = bounds.into_inner();
            let problem = format!("{key} must be from {from} to {to}");
            self.error(at, format!("error loading config file: {problem}"))
        })
    }
}

/// The value of a key that is there and not null.
pub(super) fn given<'y>(node: &'y Yaml, key: &str) -> Option<&'y Yaml> {
    node.value.get(key).filter(|value| value.value != Value::Null)
}
