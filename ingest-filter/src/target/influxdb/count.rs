//! Counting what InfluxDB 1.x has stored.

use http::Method;
use serde_json::Value;

use super::query::query_value;
use super::{Api, Influxdb};
use crate::target::Extent;

/// Nanoseconds of an hour.
const HOUR_NS: i64 = 3_600_000_000_000;

impl Influxdb {
    /// The values of all fields together, by hour.
    ///
    /// # Errors
    /// With what the server said instead; other versions cannot be asked.
    pub(super) async fn count(&self, of: &Extent) -> Result<Vec<(i64, u64)>, String> {
        let Api::V1 { retention_policy } = &self.api else {
            return Err("only InfluxDB 1.x can be asked what it has stored".to_owned());
        };
        self.is_influxdb().await?;
        let (db, text) = (query_value(&of.destination.name), select(of, retention_policy));
        let path = format!("/query?db={db}&epoch=ns&q={}", query_value(&text));
        let answer = self.json(Method::GET, &path).await?;
        match answer["results"][0]["error"].as_str() {
            // A database that nothing was written to is not there.
            Some(error) if error.contains("database not found") => Ok(Vec::new()),
            Some(error) => Err(error.to_owned()),
            None => Ok(rows(&answer)),
        }
    }
}

/// The statement, with the tags of ours where a database is shared.
fn select(of: &Extent, retention_policy: &Option<String>) -> String {
    let name = |name: &str| format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""));
    let policy = retention_policy.as_deref().map_or_else(String::new, |it| name(it) + ".");
    let time = |hour: i64| hour.saturating_mul(HOUR_NS);
    let mut text = format!(
        "SELECT count(*) FROM {policy}{} WHERE time >= {} AND time < {}",
        name(&of.measurement),
        time(of.hours.start),
        time(of.hours.end)
    );
    // Values of our tags have no character that line protocol escapes.
    for tag in of.destination.tags.split(',').filter_map(|tag| tag.split_once('=')) {
        let value = tag.1.replace('\\', "\\\\").replace('\'', "\\'");
        text += &format!(" AND {} = '{value}'", name(tag.0));
    }
    text + " GROUP BY time(1h) fill(none)"
}

/// The sum of each row's counts.
fn rows(answer: &Value) -> Vec<(i64, u64)> {
    let values = answer["results"][0]["series"][0]["values"].as_array();
    let row = |row: &Value| {
        let (at, counts) = row.as_array()?.split_first()?;
        let sum: u64 = counts.iter().filter_map(Value::as_u64).sum();
        (sum > 0).then_some((at.as_i64()?.div_euclid(HOUR_NS), sum))
    };
    values.into_iter().flatten().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destination::Destination;

    #[test]
    fn a_shared_database_is_asked_for_one_tenant() {
        let tags = ",tidegate_tenant=acme".to_owned();
        let of = Extent {
            destination: Destination { name: "all".to_owned(), tags },
            measurement: "a\"b".to_owned(),
            hours: 1..3,
        };
        let policy = Some("short".to_owned());
        assert_eq!(
            select(&of, &policy),
            "SELECT count(*) FROM \"short\".\"a\\\"b\" WHERE time >= 3600000000000 AND time < \
             10800000000000 AND \"tidegate_tenant\" = 'acme' GROUP BY time(1h) fill(none)"
        );
        let answer = serde_json::json!({ "results": [{ "series": [{
            "columns": ["time", "count_a", "count_b"],
            "values": [[3_600_000_000_000_i64, 2, 3], [7_200_000_000_000_i64, 0, null]]
        }] }] });
        assert_eq!(rows(&answer), [(1, 5)]);
        assert_eq!(rows(&serde_json::json!({ "results": [{}] })), []);
    }
}
