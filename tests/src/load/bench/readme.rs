//! The tables of tests/REFERENCE.md and the figures in README.md, out of what runs left in a directory. Not a
//! judge: it copies figures and targets as they were written, and says what was never measured.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::super::table::number;
use super::measured::{self, Measured};
use super::results::Row;
use super::stages_table;
use crate::parts::workspace;

const REFERENCE: &str = "tests/REFERENCE.md";
const BEGIN: &str = "<!-- benchmarks: begin -->";
const END: &str = "<!-- benchmarks: end -->";

/// What the reference tells, and the figures for it, of which the first one that was taken counts: a quick
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

/// What README tells of them.
const IN_README: [&str; 5] = [
    "cost/memory/w2/echoes",
    "cost/lease-free/w2/echoes",
    "keys/lease x3/w1 20000/s/redis commands",
    "cost/exact/w2/server (min)",
    "cost/exact/w2/redis",
];

type ByName<'a> = BTreeMap<&'a str, &'a Row>;

/// Puts the figures that are in `dir` into tests/REFERENCE.md and README.md. What to say about it.
///
/// # Errors
/// When there are none, or a document has no place for them.
pub fn write(all: &[Measured], dir: &Path) -> Result<String> {
    let dir = dir.display();
    ensure!(all.iter().any(|one| one.taken.is_some()), "no figures in {dir}: run make bench first");
    let rows = measured::rows(all);
    let by_name: ByName<'_> = rows.iter().map(|row| (row.name.as_str(), row)).collect();
    let (figures, mut missing) = figures(&by_name);
    let text = format!("{}{}{figures}", head(all, &rows), stages(all));
    fill(REFERENCE, &text)?;
    let mut said = format!("{REFERENCE} has the figures of {dir}\n");
    match sentence(&by_name) {
        Some(sentence) => {
            fill("README.md", &sentence)?;
            said += "README.md has them too\n";
        }
        None => missing.push("a figure of README.md, which is as it was"),
    }
    for what in missing {
        let _ = writeln!(said, "not measured: {what}");
    }
    for remark in measured::remarks(all) {
        let _ = writeln!(said, "{remark}");
    }
    Ok(said)
}

fn fill(document: &str, text: &str) -> Result<()> {
    let path = workspace().join(document);
    let old = std::fs::read_to_string(&path).with_context(|| format!("cannot read {document}"))?;
    let new = put(&old, text).with_context(|| format!("{document} has no place for figures"))?;
    std::fs::write(&path, new).with_context(|| format!("cannot write {document}"))
}

/// The document with the text between its marks.
fn put(document: &str, text: &str) -> Option<String> {
    let (before, rest) = document.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{text}{END}{after}"))
}

/// Where all of it was measured, and what came of it in one sentence each.
fn head(all: &[Measured], rows: &[Row]) -> String {
    let (met, of) = measured::met(all);
    let machines = stages_table::machines(all).join("; ");
    let whole = rows.iter().find(|row| row.name == "run/all stages");
    let whole = whole.map_or_else(
        || "Not all stages were measured. ".to_owned(),
        |whole| format!("All stages together took {:.0} s. ", whole.value),
    );
    format!(
        "Measured on {machines}; generator, services and Redis share the processors. {whole}{met} of {of} targets \
         were met.\n\n"
    )
}

/// When each stage was measured, as Markdown.
fn stages(all: &[Measured]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = line(&stages_table::HEAD.map(str::to_owned));
    text += &format!("{}|\n", "|---".repeat(stages_table::HEAD.len()));
    text.extend(stages_table::rows(all).iter().map(|row| line(row)));
    text + "\n"
}

/// The figures that the reference tells as Markdown, and which of them were never measured.
fn figures(by_name: &ByName<'_>) -> (String, Vec<&'static str>) {
    let mut table = "| figure | value | target | met |\n|---|---|---|---|\n".to_owned();
    let mut missing = Vec::new();
    for (what, names) in TOLD {
        let Some(row) = names.iter().find_map(|name| by_name.get(name)) else {
            missing.push(what);
            let _ = writeln!(table, "| {what} | not measured | | |");
            continue;
        };
        let met = match row.met {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "",
        };
        let target = row.target.as_deref().unwrap_or_default();
        // Writing into a String cannot fail.
        let _ = writeln!(table, "| {what} | {} {} | {target} | {met} |", value(row), row.unit);
    }
    (table, missing)
}

fn value(row: &Row) -> String {
    if row.value.is_finite() { number(row.value) } else { "not taken".to_owned() }
}

/// What README tells; none where a figure is missing.
fn sentence(by_name: &ByName<'_>) -> Option<String> {
    let found =
        IN_README.map(|name| by_name.get(name).copied().filter(|row| row.value.is_finite()));
    let [memory, leased, commands, service, redis] = found;
    Some(format!(
        "A decision with counters in memory costs {} of such echoes, one on a lease {} and {} Redis commands, one\n\
         counted in Redis {} + {} µs of CPU:\n",
        value(memory?),
        value(leased?),
        value(commands?),
        value(service?),
        value(redis?),
    ))
}

#[cfg(test)]
mod tests {
    use super::super::measured::tests::taken;
    use super::super::results::{Aim, Results};
    use super::super::stage::Stage;
    use super::*;

    fn of_rows(rows: &[Row]) -> ByName<'_> {
        rows.iter().map(|row| (row.name.as_str(), row)).collect()
    }

    #[test]
    fn figures_are_copied_with_their_targets() {
        let mut results = Results::default();
        results.add("cost/memory/w2/echoes", 1.234, "E", Aim::AtMost(1.1));
        results.add("outage/exact x1/longest wait", 4.0, "ms", Aim::AtMost(10.0));
        results.add("rules/10,000 rules to 10", f64::NAN, "x", Aim::AtMost(1.0));
        results.add("other", 1.0, "", Aim::None);
        let (text, missing) = figures(&of_rows(&results.rows));
        assert!(text.contains(" echoes | 1.23 E | <= 1.10 | **no** |\n"), "{text}");
        assert!(text.contains("longest wait | 4.00 ms | <= 10.0 | yes |\n"), "{text}");
        assert!(text.contains("10,000 rules to 10 | not taken x | <= 1.00 | **no** |\n"), "{text}");
        assert!(text.contains("| CPU of a bare tonic echo | not measured | | |\n"), "{text}");
        assert_eq!(missing.len(), TOLD.len() - 3);
    }

    #[test]
    fn what_is_there_is_told_with_its_date() {
        let mut results = Results::default();
        results.add("cost/x", 1.0, "us", Aim::AtMost(1.5));
        let all = [Measured::after(None, Stage::Cost, taken("9b75676"), Ok(results))];
        let rows = measured::rows(&all);
        let text = head(&all, &rows) + &stages(&all);
        for expected in [
            "Measured on 2 x P, 2.0 GiB, Linux 6; ",
            "Not all stages were measured. 1 of 1 targets were met.\n",
            "| cost | 2027-01-15 08:00 | 9b75676 | 0.10 | 60 s | 1 of 1 |\n",
            "| path | never |  |  |  |  |\n",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
    }

    #[test]
    fn readme_tells_all_of_its_figures_or_stays_as_it_is() {
        let mut results = Results::default();
        IN_README.into_iter().for_each(|name| results.add(name, 1.5, "", Aim::None));
        let whole = sentence(&of_rows(&results.rows)).expect("all are there");
        assert!(
            whole.starts_with("A decision with counters in memory costs 1.50 of such"),
            "{whole}"
        );
        results.rows.pop();
        assert_eq!(sentence(&of_rows(&results.rows)), None);
    }

    #[test]
    fn figures_have_their_place() {
        let document = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let expected = format!("a\n{BEGIN}\nnew\n{END}\nb\n");
        assert_eq!(put(&document, "new\n").as_deref(), Some(expected.as_str()));
        assert_eq!(put("a", "new"), None);
        for ours in [REFERENCE, "README.md"] {
            let text = std::fs::read_to_string(workspace().join(ours)).expect("ours");
            assert!(put(&text, "").is_some(), "{ours}");
        }
    }

    #[test]
    fn without_figures_nothing_is_written() {
        let dir = Path::new("nowhere");
        let error = write(&[], dir).expect_err("there are none").to_string();
        assert_eq!(error, "no figures in nowhere: run make bench first");
    }
}
