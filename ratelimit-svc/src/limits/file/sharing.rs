//! How classes share a `rate_limit`: `reserve`, `floor`, `reserve_min` and `admit_up_to`. Whether
//! the classes exist is known only when all files are read.

use std::collections::HashSet;

use chassis::config::ConfigError;

use crate::document::{Node as Yaml, Value};
use crate::limits::file::Reader;
use crate::limits::file::rate_limit::given;
use crate::limits::sharing::{Fraction, Portion, Portions, Sharing};

impl Reader<'_> {
    pub(super) fn sharing(&self, limit: &Yaml) -> Result<Sharing, ConfigError> {
        let reserve = given(limit, "reserve");
        let forecast = match reserve.map(|node| (node, node.value.as_text())) {
            None => None,
            Some((_, Some("forecast"))) => Some(true),
            Some((_, Some("none"))) => Some(false),
            Some((at, _)) => return Err(self.error(at, "reserve must be forecast or none")),
        };
        let (floor, reserve_min) = (given(limit, "floor"), given(limit, "reserve_min"));
        if let Some(up_to) = given(limit, "admit_up_to") {
            let others = [("reserve", reserve), ("floor", floor), ("reserve_min", reserve_min)];
            if let Some((name, Some(at))) = others.into_iter().find(|(_, node)| node.is_some()) {
                let message = format!("should not specify both {name} and admit_up_to");
                return Err(self.error(at, message));
            }
            return Ok(Sharing::Thresholds(self.portions(up_to, "admit_up_to")?));
        }
        if forecast == Some(false) {
            let others = [("floor", floor), ("reserve_min", reserve_min)];
            if let Some((name, Some(at))) = others.into_iter().find(|(_, node)| node.is_some()) {
                return Err(
                    self.error(at, format!("{name} can only be used with reserve forecast"))
                );
            }
            return Ok(Sharing::Plain);
        }
        if forecast.is_none() && floor.is_none() && reserve_min.is_none() {
            return Ok(Sharing::Unsaid);
        }
        let list = |node: Option<&Yaml>, key: &str| {
            node.map_or(Ok(Portions::default()), |node| self.portions(node, key))
        };
        let (floors, reserve_min) = (list(floor, "floor")?, list(reserve_min, "reserve_min")?);
        if let Some(portion) = floors.beyond_whole() {
            let (path, at) = (self.path.to_owned(), portion.at);
            let message = "floors must not add up to more than 1".to_owned();
            return Err(ConfigError { path, at, message });
        }
        Ok(Sharing::Forecast { floor: floors, reserve_min })
    }

    /// A map of class names and fractions.
    fn portions(&self, node: &Yaml, key: &str) -> Result<Portions, ConfigError> {
        let Value::Map(pairs) = &node.value else {
            return Err(self.error(node, format!("{key} must be a map of classes and fractions")));
        };
        let mut names = HashSet::new();
        let mut portions = Vec::with_capacity(pairs.len());
        for (name, value) in pairs {
            let class = self.scalar_text(name)?;
            if !names.insert(class.clone()) {
                return Err(self.error(name, format!("duplicate priority class '{class}'")));
            }
            let number = match value.value {
                Value::Integer(number) => Some(number as f64),
                Value::Float(number) => Some(number),
                _ => None,
            };
            let fraction = number.and_then(Fraction::try_new).ok_or_else(|| {
                let message = format!("{key} of priority class '{class}' must be from 0 to 1");
                self.error(value, message)
            })?;
            let (line, column) = (name.referenced.line(), name.referenced.column());
            let at = (line > 0).then_some((line, column));
            portions.push(Portion { class: class.into(), fraction, at });
        }
        Ok(Portions(portions))
    }
}
