//! Tables and numbers for people, and the outcome of one run as a table or as JSON.

use std::fmt::Write;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::tally::{Counts, Tally};

/// The quantiles that are told.
pub const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// Columns of text, the first to the left and the others to the right.
pub fn columns(rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..).map_while(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let pad = widths[column] - cell.chars().count();
            let (left, right) = if column == 0 { (0, pad) } else { (pad, 0) };
            // Writing into a String cannot fail.
            let _ = write!(line, "{:left$}{cell}{:right$}  ", "", "");
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// Three significant digits, without an exponent.
pub fn number(value: f64) -> String {
    let size = value.abs();
    let decimals = match size {
        _ if size == 0.0 || size >= 100.0 => 0,
        _ if size >= 10.0 => 1,
        _ if size >= 1.0 => 2,
        _ => (2 - size.log10().floor() as i32).clamp(3, 7) as usize,
    };
    let digits = format!("{value:.decimals$}");
    if decimals > 0 || size < 10_000.0 {
        return digits;
    }
    let (sign, digits) = digits.split_at(digits.len() - digits.trim_start_matches('-').len());
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .filter_map(|group| std::str::from_utf8(group).ok())
        .collect();
    format!("{sign}{}", groups.join(","))
}

fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

/// The outcome of one run as text.
pub fn text(tally: &Tally) -> String {
    let total = tally.total();
    let cells = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect();
    let mut rows: Vec<Vec<String>> = vec![cells(&[
        "class", "sent", "admitted", "refused", "p50 us", "p90 us", "p99 us", "p99.9 us", "max us",
    ])];
    let mut add = |name: &str, counts: Counts, latency: &Histogram<u64>| {
        let mut row = vec![name.to_owned()];
        row.extend([counts.sent, counts.admitted, counts.refused].map(|n| n.to_string()));
        let at = |(_, q)| number(micros(latency.value_at_quantile(q)));
        row.extend(QUANTILES.map(at));
        rows.push(row);
    };
    if tally.classes.len() > 1 {
        for class in tally.classes.iter().filter(|class| class.total.sent > 0) {
            add(&class.name, class.total, &class.latency);
        }
    }
    add("all", total, &tally.latency());
    format!(
        "{}{} a second for {:.2} s; {} sent late; generator {} us of CPU a request, {} of a core\n",
        columns(&rows),
        number(tally.rate()),
        tally.elapsed.as_secs_f64(),
        tally.late,
        number(own_cpu_micros(tally)),
        percent(tally.own_cpu.as_secs_f64() / tally.elapsed.as_secs_f64().max(1e-9)),
    )
}

/// A share as a percentage.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// CPU of the generator for one request, in microseconds.
pub fn own_cpu_micros(tally: &Tally) -> f64 {
    tally.own_cpu.as_secs_f64() * 1e6 / tally.total().sent.max(1) as f64
}

/// The outcome of one run as JSON.
pub fn json(tally: &Tally) -> Value {
    let class = |name: &str, counts: Counts, latency: &Histogram<u64>| {
        let quantiles = QUANTILES
            .map(|(name, q)| (name.to_owned(), Value::from(micros(latency.value_at_quantile(q)))));
        json!({
            "class": name, "sent": counts.sent, "admitted": counts.admitted,
            "refused": counts.refused,
            "latency_us": serde_json::Map::from_iter(quantiles),
        })
    };
    let classes: Vec<Value> =
        tally.classes.iter().map(|one| class(&one.name, one.total, &one.latency)).collect();
    json!({
        "seconds": tally.elapsed.as_secs_f64(),
        "per_second": tally.rate(),
        "late": tally.late,
        "generator_cpu_us_per_request": own_cpu_micros(tally),
        "most_admitted_in_one_second": tally.sure_most,
        "all": class("all", tally.total(), &tally.latency()),
        "classes": classes,
    })
}

/// What each class wanted and was given in each second of the wall clock; the first and the last
/// are not whole.
pub fn seconds(tally: &Tally, limit: u64) -> Value {
    let classes = || tally.classes.iter().filter(|class| class.total.sent > 0);
    let length = classes().map(|class| class.seconds.len()).max().unwrap_or(0);
    let each = |of: &dyn Fn(&Counts) -> u64, second: usize| -> Vec<u64> {
        classes().map(|class| class.seconds.get(second).map_or(0, of)).collect()
    };
    let rows = (0..length).map(|second| {
        let (sent, admitted) =
            (each(&|counts| counts.sent, second), each(&|counts| counts.admitted, second));
        let ranks = tally.ranks.get(second).copied().unwrap_or_default();
        json!({ "second": second, "sent": sent, "admitted": admitted,
            "inversions": ranks.inversions, "inversions_between_replicas": ranks.between,
            "stood_still": ranks.stood_still })
    });
    json!({
        "limit": limit,
        "classes": classes().map(|class| class.name.as_str()).collect::<Vec<_>>(),
        "seconds": rows.collect::<Vec<_>>(),
    })
}

/// A histogram as `[[value in us, count], …]`, exact to its three digits.
pub fn histogram(latency: &Histogram<u64>) -> Value {
    let buckets = latency
        .iter_recorded()
        .map(|bucket| json!([micros(bucket.value_iterated_to()), bucket.count_at_value()]));
    Value::Array(buckets.collect())
}

/// A duration in milliseconds.
pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let table = [
            (0.0, "0"),
            (0.001_834, "0.00183"),
            (0.000_012_3, "0.0000123"),
            (0.5, "0.500"),
            (6.049, "6.05"),
            (12.34, "12.3"),
            (123.4, "123"),
            (9_999.0, "9999"),
            (1_234_567.0, "1,234,567"),
            (-23_456.0, "-23,456"),
        ];
        for (value, expected) in table {
            assert_eq!(number(value), expected);
        }
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["bcd".to_owned(), "23".to_owned()]];
        assert_eq!(columns(&rows), "a     1\nbcd  23\n");
    }
}
