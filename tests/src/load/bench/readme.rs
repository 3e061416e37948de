//! The table of tests/REFERENCE.md, out of what a run left in its directory. Not a judge: it copies figures
//! and targets as they were written.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::super::table::number;
use crate::parts::workspace;

const BEGIN: &str = "<!-- benchmarks: begin -->";
const END: &str = "<!-- benchmarks: end -->";

/// What README tells, and the figures for it, of which the first one that was taken counts: a quick
/// run has other ones.
const TOLD: [(&str, &[&str]); 27] = [
    ("a decision with counters in memory, in bare tonic echoes", &["cost/memory/w2/echoes"]),
    ("a decision on a lease, in bare tonic echoes", &["cost/lease-free/w2/echoes"]),
    ("CPU of a bare tonic echo", &["cost/echo/w2/server (min)"]),
    ("CPU of a decision with counters in memory", &["cost/memory/w2/server (min)"]),
    ("CPU of a decision on a lease", &["cost/lease-free/w2/server (min)"]),
    ("CPU of a decision counted in Redis, service", &["cost/exact/w2/server (min)"]),
    ("CPU of a decision counted in Redis, Redis", &["cost/exact/w2/redis"]),
    ("four descriptors to one, counters in memory", &["cost/memory/four descriptors to one"]),
    ("10,000 rules to 10", &["rules/10,000 rules to 10"]),
    (
        "Redis commands of a decision: one tenant at 20 times its limit, 3 replicas, leases",
        &["keys/lease x3/w1 20000/s/redis commands"],
    ),
    (
        "the most that limit admitted in a second",
        &["keys/lease x3/w1 20000/s/most admitted to limit"],
    ),
    (
        "Redis commands of a decision: 10,000 tenants, 3 replicas, leases, 5 % free",
        &["keys/lease-free x3/w2 20000/s/redis commands"],
    ),
    (
        "Redis CPU of such a decision, beyond an idle Redis",
        &["keys/lease-free x3/w2 20000/s/redis beyond idle"],
    ),
    (
        "three classes at 3 times a limit, leases: farthest from ideal",
        &["overload/lease x3/farthest from ideal"],
    ),
    ("the same: used of the limit", &["overload/lease x3/pool used"]),
    ("the same: the most admitted in a second", &["overload/lease x3/most admitted to limit"]),
    ("the same: inversions", &["overload/lease x3/inversions"]),
    ("the same, counted in Redis: farthest from ideal", &["overload/exact x3/farthest from ideal"]),
    ("the same, counted in Redis: inversions", &["overload/exact x3/inversions"]),
    (
        "Redis stopped: critical requests admitted",
        &["outage/exact x3/critical admitted", "outage/exact x1/critical admitted"],
    ),
    (
        "Redis stopped: longest wait",
        &["outage/exact x3/longest wait", "outage/exact x1/longest wait"],
    ),
    (
        "the longest the machine itself kept anybody waiting meanwhile",
        &[
            "outage/exact x3/longest hiccup of the machine",
            "outage/exact x1/longest hiccup of the machine",
        ],
    ),
    (
        "requests that waited over 10 ms without that",
        &[
            "outage/exact x3/over 10 ms without hiccups",
            "outage/exact x1/over 10 ms without hiccups",
        ],
    ),
    ("ext-authz: a check, in echoes of its own message", &["authz/a check"]),
    (
        "ext-authz: the most keys to 100",
        &["authz/1000000 keys to 100 keys", "authz/10000 keys to 100 keys"],
    ),
    ("line protocol, parsed and written anew", &["parser/line protocol, parsed and written anew"]),
    ("points through Kafka into InfluxDB", &["ingest/arrived in InfluxDB"]),
];

/// Puts the table of the run in `dir` into tests/REFERENCE.md. What to say about it.
///
/// # Errors
/// When there is no run, or tests/REFERENCE.md has no place for a table.
pub fn write(dir: &Path) -> Result<String> {
    let read = |name: &str| -> Result<Value> {
        let path = dir.join(name);
        let text = std::fs::read(&path)
            .with_context(|| format!("cannot read {}: run make bench first", path.display()))?;
        serde_json::from_slice(&text).with_context(|| path.display().to_string())
    };
    let (table, absent) = table(&read("results.json")?, &read("machine.json")?)?;
    let path = workspace().join("tests/REFERENCE.md");
    let readme = std::fs::read_to_string(&path).context("cannot read tests/REFERENCE.md")?;
    std::fs::write(&path, put(&readme, &table)?)?;
    let mut said = format!("{} has the table of {}\n", path.display(), dir.display());
    for what in absent {
        let _ = writeln!(said, "not in that run: {what}");
    }
    Ok(said)
}

/// The text with the table between its marks.
fn put(readme: &str, table: &str) -> Result<String> {
    let (before, rest) =
        readme.split_once(BEGIN).context("tests/REFERENCE.md has no mark for the table")?;
    let (_, after) =
        rest.split_once(END).context("tests/REFERENCE.md has no mark for the table's end")?;
    Ok(format!("{before}{BEGIN}\n{table}{END}{after}"))
}

/// The machine and the table as Markdown, and what is missing.
fn table(results: &Value, machine: &Value) -> Result<(String, Vec<&'static str>)> {
    let rows = results.as_array().context("results.json is a list")?;
    let by_name: BTreeMap<&str, &Value> =
        rows.iter().filter_map(|row| Some((row["name"].as_str()?, row))).collect();
    let text = |name: &str| machine[name].as_str().unwrap_or("unknown").to_owned();
    let aimed = |met: bool| rows.iter().filter(|row| row["met"] == Value::Bool(met)).count();
    let mut table = format!(
        "{} run of {:.0} s on {} x {}, {:.1} GiB, Linux {}, load average {} before; generator, services \
         and Redis share the processors. {} of {} targets were met.\n\n\
         | figure | value | target | met |\n|---|---|---|---|\n",
        if machine["quick"] == Value::Bool(true) { "Quick" } else { "Full" },
        machine["seconds"].as_f64().unwrap_or(f64::NAN),
        machine["processors"],
        text("processor"),
        machine["memory_mib"].as_f64().unwrap_or(f64::NAN) / 1024.0,
        text("kernel"),
        text("load_before"),
        aimed(true),
        aimed(true) + aimed(false),
    );
    let mut absent = Vec::new();
    for (what, names) in TOLD {
        let Some(row) = names.iter().find_map(|name| by_name.get(name)) else {
            absent.push(what);
            continue;
        };
        let value = row["value"].as_f64().map_or("not taken".to_owned(), number);
        let met = match row["met"].as_bool() {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "",
        };
        let unit = row["unit"].as_str().unwrap_or_default();
        let target = row["target"].as_str().unwrap_or_default();
        // Writing into a String cannot fail.
        let _ = writeln!(table, "| {what} | {value} {unit} | {target} | {met} |");
    }
    ensure!(absent.len() < TOLD.len(), "the run has none of the figures of tests/REFERENCE.md");
    Ok((table, absent))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn figures_are_copied_with_their_targets() {
        let results = json!([
            {"name": "cost/memory/w2/echoes", "value": 1.234, "unit": "E", "target": "<= 1.10", "met": false},
            {"name": "outage/exact x1/longest wait", "value": 4.0, "unit": "ms", "target": "<= 10.0", "met": true},
            {"name": "other", "value": 1.0, "unit": "", "target": null, "met": null},
        ]);
        let machine = json!({"processor": "P", "processors": 2, "memory_mib": 2048, "kernel": "6",
            "load_before": "0 0 0", "seconds": 800.4, "quick": false});
        let (text, absent) = table(&results, &machine).unwrap();
        assert!(text.starts_with("Full run of 800 s on 2 x P, 2.0 GiB, Linux 6, "), "{text}");
        assert!(text.contains("1 of 2 targets were met"), "{text}");
        assert!(text.contains(" echoes | 1.23 E | <= 1.10 | **no** |\n"), "{text}");
        assert!(text.contains("longest wait | 4.00 ms | <= 10.0 | yes |\n"), "{text}");
        assert_eq!(absent.len(), TOLD.len() - 2);
        assert!(table(&json!([]), &machine).is_err());
    }

    #[test]
    fn the_table_has_its_place() {
        let readme = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        assert_eq!(put(&readme, "new\n").unwrap(), format!("a\n{BEGIN}\nnew\n{END}\nb\n"));
        assert!(put("a", "new").is_err());
        let ours = std::fs::read_to_string(workspace().join("tests/REFERENCE.md")).unwrap();
        assert!(put(&ours, "").is_ok());
    }
}
