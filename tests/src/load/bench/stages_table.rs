//! When, of which commit and under which load each stage was measured, as cells of a table: for the report and
//! for the reference. Pure.

use ratelimit_svc::simulate::instant::instant;

use super::measured::{Measured, Taken};
use super::results::targets;
use super::stage::Stage;

/// Over the columns.
pub const HEAD: [&str; 6] = ["stage", "measured", "commit", "load before", "took", "targets met"];

/// A row for each stage, also for those that were never measured.
pub fn rows(all: &[Measured]) -> Vec<[String; HEAD.len()]> {
    let known = |stage: &Stage| all.iter().find(|one| one.stage == stage.name());
    Stage::all().iter().map(|stage| row(*stage, known(stage))).collect()
}

/// The machines of all stages, each once.
pub fn machines(all: &[Measured]) -> Vec<String> {
    let mut machines: Vec<String> = Vec::new();
    for taken in all.iter().filter_map(|one| one.taken.as_ref()) {
        let machine = taken.machine.text();
        if !machines.contains(&machine) {
            machines.push(machine);
        }
    }
    machines
}

fn row(stage: Stage, measured: Option<&Measured>) -> [String; HEAD.len()] {
    let name = stage.name().to_owned();
    let none = || [String::new(), String::new(), String::new(), String::new()];
    let failed = measured.and_then(|measured| measured.failed.as_ref());
    let failed = failed.map(|failed| format!("failed {}", minute(&failed.taken)));
    match measured.and_then(|measured| Some((measured, measured.taken.as_ref()?))) {
        None => {
            let [commit, load, took, met] = none();
            let never = failed.unwrap_or_else(|| "never".to_owned());
            [name, never, commit, load, took, met]
        }
        Some((measured, taken)) => {
            let quick = if taken.quick { ", quick" } else { "" };
            let failed = failed.map(|failed| format!(", {failed}")).unwrap_or_default();
            let when = format!("{}{quick}{failed}", minute(taken));
            let load = taken.load.split(' ').next().unwrap_or_default().to_owned();
            let took = format!("{:.0} s", taken.seconds);
            let met = match targets(&measured.rows) {
                (_, 0) => String::new(),
                (met, of) => format!("{met} of {of}"),
            };
            [name, when, taken.commit.clone(), load, took, met]
        }
    }
}

/// When a run began, to the minute.
fn minute(taken: &Taken) -> String {
    instant(taken.unix_time).chars().take("2026-11-28 21:27".len()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::measured::tests::{results, taken};
    use super::*;

    #[test]
    fn every_stage_has_its_row() {
        let good = Measured::after(None, Stage::Cost, taken("a"), Ok(results("x", 1.0)));
        let again = Measured::after(None, Stage::Rules, taken("a"), Ok(results("x", 2.0)));
        let again = Measured::after(Some(again), Stage::Rules, taken("b"), Err("gone".to_owned()));
        let never = Measured::after(None, Stage::Keys, taken("a"), Err("gone".to_owned()));
        let all = [good, again, never];
        let rows = rows(&all);
        assert_eq!(rows.len(), Stage::all().len());
        assert_eq!(rows[0], ["cost", "2027-01-15 08:00", "a", "0.10", "60 s", "1 of 1"]);
        let failed = "2027-01-15 08:00, failed 2027-01-15 08:00";
        assert_eq!(rows[1], ["rules", failed, "a", "0.10", "60 s", "0 of 1"]);
        assert_eq!(rows[2], ["keys", "failed 2027-01-15 08:00", "", "", "", ""]);
        assert_eq!(rows[3], ["overload", "never", "", "", "", ""]);
        assert_eq!(machines(&all), ["2 x P, 2.0 GiB, Linux 6"]);
    }
}
