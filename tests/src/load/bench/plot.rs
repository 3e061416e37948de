//! Pictures for the report, drawn as SVG by hand: bars, latency by percentile, counts over time.
//! Pure: values in, text out. Texts are escaped; colours tell series apart and so do the legends.

use std::fmt::Write;

use hdrhistogram::Histogram;

use crate::load::table::number;
use crate::load::tally::{STEP, Tally};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 24.0;
/// Told apart also by people who see red and green alike.
const COLOURS: [&str; 6] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#555555"];

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
}

impl Plot {
    /// Latency by percentile: nines to the right, logarithmic upwards.
    pub fn percentiles(title: &str, subjects: &[(String, Histogram<u64>)]) -> Self {
        let nines = |q: f64| -(1.0 - q).log10();
        let line = |(name, latency): &(String, Histogram<u64>)| {
            let most = (latency.len() as f64).log10().min(5.0);
            let steps = (0..=100).map(|step| f64::from(step) / 100.0 * most);
            let at = |x: f64| (x, latency.value_at_quantile(1.0 - 10_f64.powf(-x)) as f64 / 1e3);
            Line { name: name.clone(), points: steps.map(at).collect() }
        };
        let marks =
            [(0.5, "50 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %"), (0.9999, "99.99 %")];
        Self::Lines {
            title: title.to_owned(),
            x: "percentile".to_owned(),
            y: "us".to_owned(),
            log: true,
            marks: marks.map(|(q, text)| (nines(q), text.to_owned())).into(),
            level: None,
            shade: None,
            lines: subjects.iter().map(line).collect(),
        }
    }

    /// Requests admitted a second by class, against the limit.
    pub fn classes(title: &str, tally: &Tally, limit: u64) -> Self {
        // Ten steps are averaged, so that windows of a second do not saw.
        const WINDOW: usize = 10;
        let steps = tally.classes.iter().map(|class| class.steps.len()).max().unwrap_or(0);
        let rate = |admitted: &dyn Fn(usize) -> u64| -> Vec<(f64, f64)> {
            let at = |end: usize| {
                let sum: u64 = (end - WINDOW..end).map(admitted).sum();
                let seconds = WINDOW as f64 * STEP.as_secs_f64();
                (end as f64 * STEP.as_secs_f64(), sum as f64 / seconds)
            };
            (WINDOW..steps).map(at).collect()
        };
        let mut lines: Vec<Line> = Vec::new();
        for class in tally.classes.iter().filter(|class| class.total.sent > 0) {
            let admitted = |step: usize| class.steps.get(step).map_or(0, |step| step.admitted);
            lines.push(Line { name: class.name.clone(), points: rate(&admitted) });
        }
        let all = |step: usize| {
            let of =
                |class: &crate::load::tally::Class| class.steps.get(step).map_or(0, |s| s.admitted);
            tally.classes.iter().map(of).sum()
        };
        lines.push(Line { name: "all admitted".to_owned(), points: rate(&all) });
        Self::over_time(
            title,
            "admitted a second (over 1 s)",
            false,
            Some((limit as f64, "the limit".to_owned())),
            lines,
        )
    }

    /// The longest wait of each step, by class.
    pub fn waits(title: &str, tally: &Tally) -> Self {
        let line = |class: &crate::load::tally::Class| {
            let wait = |(step, wait): (usize, &std::time::Duration)| {
                (step as f64 * STEP.as_secs_f64(), wait.as_secs_f64() * 1e3)
            };
            let points = class.longest.iter().enumerate().map(wait).filter(|(_, ms)| *ms > 0.0);
            Line { name: class.name.clone(), points: points.collect() }
        };
        let classes = tally.classes.iter().filter(|class| class.total.sent > 0);
        let level = Some((10.0, "10 ms".to_owned()));
        Self::over_time(title, "ms", true, level, classes.map(line).collect())
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
        let every = if end > 12.0 { 2.0 } else { 1.0 };
        let marks = (0..=(end / every) as usize).map(|mark| mark as f64 * every);
        Self::Lines {
            title: title.to_owned(),
            x: "s".to_owned(),
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
        }
    }
}

fn figure(title: &str, body: &str) -> String {
    format!("<figure><figcaption>{}</figcaption>{body}</figure>\n", escape(title))
}

/// Text for HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn legend<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let entry = |(at, name): (usize, &str)| {
        format!(
            "<span class=\"key\"><i style=\"background:{}\"></i>{}</span>",
            COLOURS[at % COLOURS.len()],
            escape(name)
        )
    };
    format!("<div class=\"legend\">{}</div>", names.enumerate().map(entry).collect::<String>())
}

fn draw_bars(unit: &str, bars: &[Bar]) -> String {
    const ROW: f64 = 20.0;
    const NAMES: f64 = 190.0;
    const VALUES: f64 = 70.0;
    let whole = |bar: &Bar| bar.parts.iter().map(|(_, length)| length.max(0.0)).sum::<f64>();
    let most = bars.iter().map(whole).fold(1e-9, f64::max);
    let height = bars.len() as f64 * ROW + 8.0;
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">");
    for (row, bar) in bars.iter().enumerate() {
        let y = row as f64 * ROW + 4.0;
        let middle = y + ROW * 0.65;
        // Writing into a String cannot fail.
        let _ = write!(
            svg,
            "<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\">{}</text>",
            NAMES - 8.0,
            escape(&bar.name)
        );
        let mut x = NAMES;
        for (at, (_, length)) in bar.parts.iter().enumerate() {
            let width = length.max(0.0) / most * (WIDTH - NAMES - VALUES);
            let _ = write!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{}\" fill=\"{}\"/>",
                ROW - 5.0,
                COLOURS[at % COLOURS.len()]
            );
            x += width;
        }
        let value = number(whole(bar));
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{middle}\">{value} {}</text>",
            x + 6.0,
            escape(unit)
        );
    }
    svg += "</svg>";
    let parts = bars.first().map(|bar| bar.parts.iter().map(|(name, _)| name.as_str()));
    legend(parts.into_iter().flatten()) + &svg
}

/// Where values fall on the paper.
struct Axes {
    x: (f64, f64),
    y: (f64, f64),
    log: bool,
}

impl Axes {
    fn around(lines: &[Line], level: Option<f64>, log: bool) -> Self {
        let points = || lines.iter().flat_map(|line| &line.points);
        let x = points()
            .map(|point| point.0)
            .fold((f64::MAX, f64::MIN), |(a, b), x| (a.min(x), b.max(x)));
        let ys = || points().map(|point| point.1).chain(level);
        let top = ys().fold(0.0, f64::max);
        let x = if x.0 <= x.1 { x } else { (0.0, 1.0) };
        let x = (x.0, if x.1 > x.0 { x.1 } else { x.0 + 1.0 });
        let y = if log {
            let least = ys().filter(|y| *y > 0.0).fold(f64::MAX, f64::min);
            let least = if least < f64::MAX { least } else { 1.0 };
            (least.log10().floor(), top.max(least * 10.0).log10().ceil())
        } else {
            (0.0, nice(top.max(1e-9)))
        };
        Self { x, y, log }
    }

    fn x(&self, x: f64) -> f64 {
        LEFT + (x - self.x.0) / (self.x.1 - self.x.0) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, y: f64) -> f64 {
        let y = if self.log { y.max(10_f64.powf(self.y.0)).log10() } else { y };
        HEIGHT - BOTTOM - (y - self.y.0) / (self.y.1 - self.y.0) * (HEIGHT - TOP - BOTTOM)
    }

    fn ticks(&self) -> Vec<f64> {
        if self.log {
            (self.y.0 as i32..=self.y.1 as i32).map(|power| 10_f64.powi(power)).collect()
        } else {
            (0..=5).map(|tick| self.y.1 * f64::from(tick) / 5.0).collect()
        }
    }
}

/// The next of 1, 2, 2.5, 5 times a power of ten.
fn nice(top: f64) -> f64 {
    let power = 10_f64.powf(top.log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|step| step * power);
    steps.into_iter().find(|step| *step >= top * 0.999).unwrap_or(power * 10.0)
}

struct Chart<'a> {
    x: &'a str,
    y: &'a str,
    log: bool,
    marks: &'a [(f64, String)],
    level: &'a Option<(f64, String)>,
    shade: Option<(f64, f64)>,
    lines: &'a [Line],
}

impl Chart<'_> {
    fn draw(&self) -> String {
        let level = self.level.as_ref().map(|(level, _)| *level);
        let axes = Axes::around(self.lines, level, self.log);
        let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">");
        self.ground(&axes, &mut svg);
        for (at, line) in self.lines.iter().enumerate() {
            let mut path = String::new();
            for (x, y) in &line.points {
                // Writing into a String cannot fail.
                let _ = write!(path, "{:.1},{:.1} ", axes.x(*x), axes.y(*y));
            }
            let colour = COLOURS[at % COLOURS.len()];
            let _ = write!(svg, "<polyline points=\"{path}\" stroke=\"{colour}\" class=\"line\"/>");
        }
        svg += "</svg>";
        let mut unit = format!("{} by {}", self.y, self.x);
        if let Some((_, what)) = self.level {
            unit += &format!("; dashed: {what}");
        }
        if self.shade.is_some() {
            unit += "; shaded: Redis is stopped";
        }
        let unit = format!("<div class=\"unit\">{}</div>", escape(&unit));
        legend(self.lines.iter().map(|line| line.name.as_str())) + &unit + &svg
    }

    /// What lies under the lines: shade, grid, marks, level.
    fn ground(&self, axes: &Axes, svg: &mut String) {
        let (right, floor) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        if let Some((from, until)) = self.shade {
            let (from, until) = (axes.x(from), axes.x(until.min(axes.x.1)));
            // Writing into a String cannot fail.
            let _ = write!(
                svg,
                "<rect x=\"{from:.1}\" width=\"{:.1}\" y=\"{TOP}\" height=\"{}\" class=\"shade\"/>",
                until - from,
                floor - TOP
            );
        }
        for tick in axes.ticks() {
            let y = axes.y(tick);
            let _ = write!(
                svg,
                "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\" class=\"grid\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 6.0,
                y + 4.0,
                number(tick)
            );
        }
        for (at, text) in self.marks.iter().filter(|(at, _)| *at >= axes.x.0 && *at <= axes.x.1) {
            let x = axes.x(*at);
            let _ = write!(
                svg,
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{floor}\" class=\"grid\"/>\
                 <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                floor + 16.0,
                escape(text)
            );
        }
        if let Some((level, _)) = self.level {
            let y = axes.y(*level);
            let _ = write!(
                svg,
                "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\" class=\"level\"/>"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_at_a_round_number() {
        for (top, expected) in
            [(0.9, 1.0), (1.1, 2.0), (2.2, 2.5), (4000.0, 5000.0), (5000.0, 5000.0)]
        {
            assert!((nice(top) - expected).abs() < 1e-9, "{top}");
        }
    }

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
