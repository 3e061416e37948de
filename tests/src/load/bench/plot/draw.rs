//! The pictures of the report on paper: HTML with SVG drawn by hand. Texts are escaped; colours
//! tell series apart, and so do the legends.

use std::fmt::Write;

use super::{Bar, Line};
use crate::load::table::number;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 316.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 40.0;
/// At most so many steps upwards.
const TICKS: f64 = 6.0;
/// Told apart also by people who see red and green alike.
const COLOURS: [&str; 6] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#555555"];

/// A picture with its title.
pub fn figure(title: &str, body: &str) -> String {
    format!("<figure><figcaption>{}</figcaption>{body}</figure>\n", escape(title))
}

/// Text for HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn legend<'a>(names: impl Iterator<Item = (usize, &'a str)>) -> String {
    let entry = |(at, name): (usize, &str)| {
        format!(
            "<span class=\"key\"><i style=\"background:{}\"></i>{}</span>",
            COLOURS[at % COLOURS.len()],
            escape(name)
        )
    };
    format!("<div class=\"legend\">{}</div>", names.map(entry).collect::<String>())
}

/// Horizontal bars and what their parts are.
pub fn draw_bars(unit: &str, bars: &[Bar]) -> String {
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
    legend(parts.into_iter().flatten().enumerate()) + &svg
}

/// A table of texts.
pub fn draw_table(head: &[String], rows: &[Vec<String>]) -> String {
    let cells = |tag: &str, cells: &[String]| -> String {
        let cell = |cell: &String| format!("<{tag}>{}</{tag}>", escape(cell));
        format!("<tr>{}</tr>\n", cells.iter().map(cell).collect::<String>())
    };
    let body: String = rows.iter().map(|row| cells("td", row)).collect();
    format!("<table>{}{body}</table>", cells("th", head))
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
            // A line at the very top would be lost in the edge.
            let top = top.max(1e-9) * 1.02;
            let step = nice(top / TICKS);
            (0.0, (top / step).ceil() * step)
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
            let step = nice(self.y.1 / TICKS);
            (0..=(self.y.1 / step).round() as usize).map(|tick| tick as f64 * step).collect()
        }
    }
}

/// The next of 1, 2, 2.5, 5 times a power of ten.
fn nice(top: f64) -> f64 {
    let power = 10_f64.powf(top.log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|step| step * power);
    steps.into_iter().find(|step| *step >= top * 0.999).unwrap_or(power * 10.0)
}

/// Lines over a common axis.
pub struct Chart<'a> {
    /// Under the horizontal axis.
    pub x: &'a str,
    /// Of the vertical axis.
    pub y: &'a str,
    /// Whether the vertical axis is logarithmic.
    pub log: bool,
    /// Marks on the horizontal axis.
    pub marks: &'a [(f64, String)],
    /// A level to hold the lines against.
    pub level: &'a Option<(f64, String)>,
    /// A stretch that stands out.
    pub shade: Option<(f64, f64)>,
    /// The lines.
    pub lines: &'a [Line],
}

impl Chart<'_> {
    /// The chart with its legend.
    pub fn draw(&self) -> String {
        let level = self.level.as_ref().map(|(level, _)| *level);
        let axes = Axes::around(self.lines, level, self.log);
        let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">");
        self.ground(&axes, &mut svg);
        for line in self.lines {
            let mut path = String::new();
            for (x, y) in &line.points {
                // Writing into a String cannot fail.
                let _ = write!(path, "{:.1},{:.1} ", axes.x(*x), axes.y(*y));
            }
            let colour = COLOURS[line.colour % COLOURS.len()];
            let _ = write!(svg, "<polyline points=\"{path}\" stroke=\"{colour}\" class=\"line\"/>");
        }
        let _ = write!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text></svg>",
            LEFT + (WIDTH - LEFT - RIGHT) / 2.0,
            HEIGHT - 4.0,
            escape(self.x)
        );
        let mut unit = format!("upwards: {}", self.y);
        if let Some((_, what)) = self.level {
            unit += &format!("; dashed: {what}");
        }
        if self.shade.is_some() {
            unit += "; shaded: Redis is stopped";
        }
        let unit = format!("<div class=\"unit\">{}</div>", escape(&unit));
        let names = self.lines.iter().map(|line| (line.colour, line.name.as_str()));
        legend(names) + &unit + &svg
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
    fn steps_are_round_numbers() {
        for (top, expected) in
            [(0.9, 1.0), (1.1, 2.0), (2.2, 2.5), (4000.0, 5000.0), (5000.0, 5000.0)]
        {
            assert!((nice(top) - expected).abs() < 1e-9, "{top}");
        }
    }

    #[test]
    fn an_axis_ends_just_above_what_is_on_it() {
        let check = |top: f64, end: f64, ticks: usize| {
            let line =
                Line { name: String::new(), colour: 0, points: vec![(0.0, 0.0), (1.0, top)] };
            let axes = Axes::around(&[line], None, false);
            assert!((axes.y.1 - end).abs() < 1e-9, "{top}: {}", axes.y.1);
            assert_eq!(axes.ticks().len(), ticks, "{top}");
        };
        check(4_100.0, 5_000.0, 6);
        check(5_000.0, 6_000.0, 7);
        check(6_300.0, 8_000.0, 5);
        check(0.9, 1.0, 6);
    }
}
