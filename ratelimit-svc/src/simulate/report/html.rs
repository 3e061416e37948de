//! The report as one page of HTML that needs nothing else: tables, and plots as SVG. It holds no script
//! and asks for nothing outside.

use std::fmt::Write;

use super::{Report, WHO_MAX, instant, percent};
use crate::html::escape;
use crate::simulate::tally::Both;

/// Points of a plot; a longer simulation is drawn in longer steps.
const POINTS_MAX: usize = 600;
/// So few points have dots.
const DOTS_MAX: usize = 30;
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 180.0;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1b1f24;--faint:#59636e;--line:#d1d9e0;--page:#fff;--old:#57606a;--new:#b42318;--all:#0b5cad}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--faint:#9da7b1;--line:#3d444d;--page:#0d1117;--old:#a5b0bb;--new:#ff8a80;--all:#79b8ff}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:62rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;width:100%;display:block;overflow-x:auto}th,td{padding:.3rem .6rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left}svg{width:100%;height:auto}p,li{max-width:46rem}.faint{color:var(--faint)}.failed{color:var(--new);font-weight:600}";

impl Report<'_> {
    /// As a page.
    pub fn html(&self) -> String {
        let tally = &self.answer.tally;
        let (from, to) = tally.span.unwrap_or_default();
        let mut page = format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\">\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
             <title>Quota simulation</title><style>{STYLE}</style></head><body>\n\
             <h1>Quota simulation</h1>\n<p>Traffic from {} to {}, against {}.</p>\n",
            instant(from),
            instant(to),
            escape(self.against)
        );
        for condition in self.conditions {
            let (holds, figure) = condition.holds(tally);
            let (class, verdict) = if holds { ("failed", "Failed") } else { ("faint", "Passed") };
            let condition = escape(&condition.to_string());
            let _ = writeln!(
                page,
                "<p class=\"{class}\">{verdict}: {condition}, it is {figure:.4}</p>"
            );
        }
        let steps: Vec<(u64, Both)> = tally.steps.iter().map(|(t, both)| (*t, *both)).collect();
        page += &plot("Requests", &steps, &[("asked", "all", |both| both.requests)]);
        let refused: [Series; 2] =
            [("old", "old", |both| both.old_refused), ("new", "new", |both| both.new_refused)];
        page += &plot("Refused", &steps, &refused);
        let changed: [Series; 2] = [
            ("newly refused", "new", |both| both.newly_refused),
            ("newly admitted", "all", |both| both.newly_admitted),
        ];
        page += &plot("Changed", &steps, &changed);
        let mut rows = vec![("all".to_owned(), tally.total)];
        rows.extend(tally.classes.iter().map(|(class, both)| (class.to_string(), *both)));
        page += &table("Classes", &rows);
        let who = tally.who(&self.answer.shapes);
        let more = who.len().saturating_sub(WHO_MAX);
        page += &table("Hit hardest", &who[..who.len() - more]);
        if more > 0 {
            let _ = writeln!(page, "<p class=\"faint\">and {more} more</p>");
        }
        page += "<h2>Rules</h2>\n<table><thead><tr><th>rule</th><th>requests</th><th>old refused</th><th>new refused</th></tr></thead><tbody>\n";
        for ((domain, rule), figures) in &tally.rules {
            let _ = writeln!(
                page,
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                escape(&format!("{domain}.{rule}")),
                figures.requests,
                super::reasons(&figures.old),
                super::reasons(&figures.new)
            );
        }
        page += "</tbody></table>\n";
        let tried: Vec<(String, Both)> = tally
            .rules
            .iter()
            .filter(|(_, figures)| figures.trial.requests > 0)
            .map(|((domain, rule), figures)| (format!("{domain}.{rule}"), figures.trial))
            .collect();
        if !tried.is_empty() {
            page += &table("Trials, beside the new quotas", &tried);
        }
        let mut doubts = String::new();
        self.doubts(&mut doubts);
        if !doubts.trim().is_empty() {
            let _ = writeln!(page, "<h2>Notes</h2>\n<pre>{}</pre>", escape(doubts.trim()));
        }
        page + "</body></html>\n"
    }
}

fn table(title: &str, rows: &[(String, Both)]) -> String {
    let mut text = format!(
        "<h2>{title}</h2>\n<table><thead><tr><th></th><th>requests</th><th>old refused</th>\
         <th>new refused</th><th>newly refused</th><th>share</th><th>newly admitted</th></tr></thead><tbody>\n"
    );
    for (name, both) in rows {
        let _ = writeln!(
            text,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(name),
            both.requests,
            both.old_refused,
            both.new_refused,
            both.newly_refused,
            percent(both.newly_refused, both.requests),
            both.newly_admitted
        );
    }
    text + "</tbody></table>\n"
}

/// A name, a colour, and which figure.
type Series = (&'static str, &'static str, fn(&Both) -> u64);

fn plot(title: &str, steps: &[(u64, Both)], series: &[Series]) -> String {
    let joined = steps.len().div_ceil(POINTS_MAX).max(1);
    let points: Vec<(u64, Both)> = steps
        .chunks(joined)
        .map(|chunk| {
            let mut sum = Both::default();
            chunk.iter().for_each(|(_, both)| sum.add(both));
            (chunk[0].0, sum)
        })
        .collect();
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return String::new() };
    let all = points.iter().flat_map(|(_, both)| series.iter().map(move |(_, _, of)| of(both)));
    let most = all.max().unwrap_or(0);
    let span = (last.0 - first.0).max(1) as f64;
    let mut text = format!(
        "<h2>{title}</h2>\n<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"{title} over time, at most {most} in a step\">\n\
         <line x1=\"0\" y1=\"{HEIGHT}\" x2=\"{WIDTH}\" y2=\"{HEIGHT}\" stroke=\"var(--line)\"/>\n",
        HEIGHT + 40.0
    );
    for (at, (name, colour, of)) in series.iter().enumerate() {
        let place = |(t, both): &(u64, Both)| {
            let x = (t - first.0) as f64 / span * WIDTH;
            let y = HEIGHT - of(both) as f64 / most.max(1) as f64 * (HEIGHT - 20.0);
            format!("{x:.1},{y:.1}")
        };
        let line: Vec<String> = points.iter().map(place).collect();
        // A line through one point shows nothing, and one through a few hides where they are.
        for dot in line.iter().filter(|_| points.len() <= DOTS_MAX) {
            let (x, y) = dot.split_once(',').unwrap_or_default();
            let _ =
                write!(text, "<circle cx=\"{x}\" cy=\"{y}\" r=\"4\" fill=\"var(--{colour})\"/>");
        }
        let dashes = if at > 0 { " stroke-dasharray=\"6 3\"" } else { "" };
        let _ = writeln!(
            text,
            "<polyline fill=\"none\" stroke=\"var(--{colour})\" stroke-width=\"2\"{dashes} points=\"{}\"/>\
             <text x=\"{}\" y=\"{}\" fill=\"var(--{colour})\" font-size=\"13\">{name}</text>",
            line.join(" "),
            120 + at * 140,
            HEIGHT + 34.0
        );
    }
    let _ = writeln!(
        text,
        "<text x=\"0\" y=\"14\" fill=\"var(--faint)\" font-size=\"13\">{most}</text>\
         <text x=\"0\" y=\"{y}\" fill=\"var(--faint)\" font-size=\"13\">{}</text>\
         <text x=\"{WIDTH}\" y=\"{y}\" text-anchor=\"end\" fill=\"var(--faint)\" font-size=\"13\">{}</text></svg>",
        instant(first.0),
        instant(last.0),
        y = HEIGHT + 18.0
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_clients_stay_text() {
        let rows = [("<script>&\"'".to_owned(), Both::of(1, 0, 1))];
        let table = table("t", &rows);
        assert!(table.contains("&lt;script&gt;&amp;&quot;&#39;") && !table.contains("<script"));
    }

    #[test]
    fn a_long_simulation_has_few_points() {
        let steps: Vec<(u64, Both)> = (0..5000).map(|n| (n * 60, Both::of(10, 1, n % 7))).collect();
        let text = plot("Refused", &steps, &[("new", "new", |both| both.new_refused)]);
        let points = text.split("points=\"").nth(1).expect("a line").split('"').next();
        assert!(points.expect("ends").split(' ').count() <= POINTS_MAX);
        assert!(!text.contains("<circle"));
        assert_eq!(plot("Refused", &[], &[]), "");
        let one = plot("Refused", &steps[1..2], &[("new", "new", |both| both.new_refused)]);
        assert!(one.contains("<circle cx=\"0.0\" cy=\"20.0\""), "{one}");
    }
}
