//! Pictures for the report: bars, latency by percentile, counts over time, small tables. What is
//! in them; `draw` puts them on paper. Pure: values in, text out.

use hdrhistogram::Histogram;

use crate::load::tally::{Class, STEP, Tally};
use draw::{Chart, draw_bars, draw_table, figure};

pub mod draw;

/// The colour of what is summed over classes.
const SUM: usize = 5;

/// One bar, of parts on top of each other.
#[derive(Clone, Debug)]
pub struct Bar {
    /// What it is.
    pub name: String,
    /// Names and lengths of its parts.
    pub parts: Vec<(String, f64)>,
}

/// One line of a chart.
#[derive(Clone, Debug)]
pub struct Line {
    /// What it is.
    pub name: String,
    /// Which of the colours it has: a class has the same in every picture.
    pub colour: usize,
    /// Its points.
    pub points: Vec<(f64, f64)>,
}

/// One picture.
#[derive(Clone, Debug)]
pub enum Plot {
    /// Horizontal bars.
    Bars {
        /// Over the picture.
        title: String,
        /// Of the lengths.
        unit: String,
        /// From the top down.
        bars: Vec<Bar>,
    },
    /// Lines over a common axis.
    Lines {
        /// Over the picture.
        title: String,
        /// Under the horizontal axis.
        x: String,
        /// Of the vertical axis.
        y: String,
        /// Whether the vertical axis is logarithmic.
        log: bool,
        /// Marks on the horizontal axis: place and text.
        marks: Vec<(f64, String)>,
        /// A level to hold the lines against, and what it is.
        level: Option<(f64, String)>,
        /// A stretch of the horizontal axis that stands out.
        shade: Option<(f64, f64)>,
        /// The lines.
        lines: Vec<Line>,
    },
    /// Cells of text, the first column to the left.
    Table {
        /// Over the table.
        title: String,
        /// Over the columns.
        head: Vec<String>,
        /// From the top down.
        rows: Vec<Vec<String>>,
    },
}

impl Plot {
    /// Latency by percentile: nines to the right, logarithmic upwards.
    pub fn percentiles(title: &str, subjects: &[(String, Histogram<u64>)]) -> Self {
        let nines = |q: f64| -(1.0 - q).log10();
        let line = |(colour, (name, latency)): (usize, &(String, Histogram<u64>))| {
            let most = (latency.len() as f64).log10().min(5.0);
            let steps = (0..=100).map(|step| f64::from(step) / 100.0 * most);
            let at = |x: f64| (x, latency.value_at_quantile(1.0 - 10_f64.powf(-x)) as f64 / 1e3);
            Line { name: name.clone(), colour, points: steps.map(at).collect() }
        };
        let marks =
            [(0.5, "50 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %"), (0.9999, "99.99 %")];
        Self::Lines {
            title: title.to_owned(),
            x: "share of requests that had their answer by then".to_owned(),
            y: "us".to_owned(),
            log: true,
            marks: marks.map(|(q, text)| (nines(q), text.to_owned())).into(),
            level: None,
            shade: None,
            lines: subjects.iter().enumerate().map(line).collect(),
        }
    }

    /// Requests admitted in each second of the wall clock by class, against the limit: the windows
    /// that the limit counts in, so that nothing may be above it.
    pub fn classes(title: &str, tally: &Tally, limit: u64) -> Self {
        let seconds = tally.classes.iter().map(|class| class.seconds.len()).max().unwrap_or(0);
        let into = f64::from(tally.began().subsec_nanos()) / 1e9;
        let end = tally.elapsed.as_secs_f64();
        let line = |name: &str, colour: usize, admitted: &dyn Fn(usize) -> u64| {
            let steps = (0..seconds).flat_map(|second| {
                let (from, until) = (second as f64 - into, second as f64 + 1.0 - into);
                let height = admitted(second) as f64;
                [(from.max(0.0), height), (until.min(end).max(0.0), height)]
            });
            Line { name: name.to_owned(), colour, points: steps.collect() }
        };
        let of = |class: &Class, second: usize| class.seconds.get(second).map_or(0, |s| s.admitted);
        let sent = |(_, class): &(usize, &Class)| class.total.sent > 0;
        let classes = || tally.classes.iter().enumerate().filter(sent);
        let mut lines: Vec<Line> = classes()
            .map(|(at, class)| line(&class.name, at, &|second| of(class, second)))
            .collect();
        let all = |second| tally.classes.iter().map(|class| of(class, second)).sum();
        lines.push(line("all admitted", SUM, &all));
        let level = Some((limit as f64, "the limit".to_owned()));
        Self::over_time(title, "admitted, by the second of the answer", false, level, lines)
    }

    /// The longest wait of each step, by class.
    pub fn waits(title: &str, tally: &Tally) -> Self {
        let line = |(colour, class): (usize, &Class)| {
            let wait = |(step, wait): (usize, &std::time::Duration)| {
                (step as f64 * STEP.as_secs_f64(), wait.as_secs_f64() * 1e3)
            };
            let points = class.longest.iter().enumerate().map(wait).filter(|(_, ms)| *ms > 0.0);
            Line { name: class.name.clone(), colour, points: points.collect() }
        };
        let classes = tally.classes.iter().enumerate();
        let classes = classes.filter(|(_, class)| class.total.sent > 0);
        let level = Some((10.0, "10 ms".to_owned()));
        Self::over_time(title, "longest wait, ms", true, level, classes.map(line).collect())
    }

    /// The same with a stretch of time that stands out.
    pub fn shaded(mut self, from: f64, until: f64) -> Self {
        if let Self::Lines { shade, .. } = &mut self {
            *shade = Some((from, until));
        }
        self
    }

    fn over_time(
        title: &str,
        y: &str,
        log: bool,
        level: Option<(f64, String)>,
        lines: Vec<Line>,
    ) -> Self {
        let end = lines.iter().flat_map(|line| line.points.last()).map(|(x, _)| *x);
        let end = end.fold(0.0, f64::max);
        let every = [1.0, 2.0, 5.0].into_iter().find(|every| end / every <= 20.0).unwrap_or(10.0);
        let marks = (0..=(end / every) as usize).map(|mark| mark as f64 * every);
        Self::Lines {
            title: title.to_owned(),
            x: "time, s".to_owned(),
            y: y.to_owned(),
            log,
            marks: marks.map(|at| (at, format!("{at}"))).collect(),
            level,
            shade: None,
            lines,
        }
    }

    /// The picture with its title, as HTML.
    pub fn html(&self) -> String {
        match self {
            Self::Bars { title, unit, bars } => figure(title, &draw_bars(unit, bars)),
            Self::Lines { title, x, y, log, marks, level, shade, lines } => {
                let chart = Chart { x, y, log: *log, marks, level, shade: *shade, lines };
                figure(title, &chart.draw())
            }
            Self::Table { title, head, rows } => figure(title, &draw_table(head, rows)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_closed_and_their_texts_escaped() {
        let bars = Plot::Bars {
            title: "a < b".to_owned(),
            unit: "us".to_owned(),
            bars: vec![Bar { name: "x&y".to_owned(), parts: vec![("p".to_owned(), 1.0)] }],
        };
        let html = bars.html();
        assert!(
            html.contains("a &lt; b") && html.contains("x&amp;y") && html.ends_with("</figure>\n")
        );
        let mut latency = Histogram::new(3).unwrap();
        (1..=1000).for_each(|micros| latency.record(micros * 1000).unwrap());
        let html = Plot::percentiles("p", &[("one".to_owned(), latency)]).html();
        assert!(
            html.contains("<polyline") && !html.contains("NaN") && !html.contains("inf"),
            "{html}"
        );
        // Nothing to draw is no reason to fail.
        let empty = Plot::over_time("e", "ms", true, None, Vec::new()).html();
        assert!(!empty.contains("NaN"), "{empty}");
    }
}
