//! The report as one page of HTML that needs nothing else: tables, and plots as SVG. It holds no script
//! and asks for nothing outside.

use std::fmt::Write;

use super::{Report, WHO_MAX, grouped, percent, rule_name};
use crate::html::escape;
use crate::simulate::instant::instant;
use crate::simulate::tally::Both;

/// Points of a plot; a longer simulation is drawn in longer steps.
const POINTS_MAX: usize = 600;
/// Of what a plot is drawn in, whatever its size on the screen.
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 180.0;
/// So that no line is cut at the edge.
const MARGIN: f64 = 4.0;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1b1f24;--faint:#59636e;--line:#d1d9e0;--page:#fff;--old:#57606a;--new:#b42318;--all:#0b5cad}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--faint:#9da7b1;--line:#3d444d;--page:#0d1117;--old:#a5b0bb;--new:#ff8a80;--all:#79b8ff}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:62rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin:1.8rem 0 .4rem}.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .6rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}th{color:var(--faint);font-size:.85rem}
th:first-child,td:first-child{text-align:left;padding-left:0}td.wrap{white-space:normal;text-align:left}p,li{max-width:52rem;overflow-wrap:anywhere}
.sum{font-size:1.1rem}.faint,figcaption{color:var(--faint);font-size:.85rem}.failed{color:var(--new);font-weight:600}
figure{margin:0}svg{display:block;width:100%;height:9rem;border-bottom:1px solid var(--line)}svg *{vector-effect:non-scaling-stroke}
.ends{display:flex;justify-content:space-between;gap:1rem}.key{margin-right:1rem;white-space:nowrap}.key::before{content:'';display:inline-block;width:1.4rem;border-top:3px solid;vertical-align:middle;margin-right:.4rem}
.key.dashed::before{border-top-style:dashed}.all{color:var(--all)}.old{color:var(--old)}.new{color:var(--new)}";

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
            let (holds, figure) = condition.verdict(tally);
            let (class, verdict) = if holds { ("failed", "Failed") } else { ("faint", "Passed") };
            let condition = escape(&condition.to_string());
            let _ =
                writeln!(page, "<p class=\"{class}\">{verdict}: {condition}, it is {figure}</p>");
        }
        page += &self.summary();
        page += &self.plots();
        page += &self.tables();
        let notes = self.notes();
        if !notes.is_empty() {
            page += "<h2>Notes</h2>\n<ul>\n";
            for note in notes {
                let _ = writeln!(page, "<li>{}</li>", escape(note.trim()));
            }
            page += "</ul>\n";
        }
        page + "</body></html>\n"
    }

    /// The figures in one sentence, and the worst step.
    fn summary(&self) -> String {
        let tally = &self.answer.tally;
        let Both { requests, new_refused, newly_refused, newly_admitted, .. } = tally.total;
        let mut text = format!(
            "<p class=\"sum\">Of {} requests {} would be refused ({}): {} newly, and {} newly admitted.</p>\n",
            grouped(requests),
            grouped(new_refused),
            percent(new_refused, requests),
            grouped(newly_refused),
            grouped(newly_admitted)
        );
        if let Some((t, both)) = tally.worst().filter(|(_, both)| both.new_refused > 0) {
            let _ = writeln!(
                text,
                "<p>The worst {}: from {}, {} of {} refused, {} of them newly.</p>",
                self.step_name(),
                instant(t),
                grouped(both.new_refused),
                grouped(both.requests),
                grouped(both.newly_refused)
            );
        }
        text
    }

    fn plots(&self) -> String {
        let tally = &self.answer.tally;
        let steps: Vec<(u64, Both)> = tally.steps.iter().map(|(t, both)| (*t, *both)).collect();
        let refused: [Series; 2] =
            [("old", "old", |both| both.old_refused), ("new", "new", |both| both.new_refused)];
        let changed: [Series; 2] = [
            ("newly refused", "new", |both| both.newly_refused),
            ("newly admitted", "all", |both| both.newly_admitted),
        ];
        plot("Requests", &steps, &[("asked", "all", |both| both.requests)])
            + &plot("Refused", &steps, &refused)
            + &plot("Changed", &steps, &changed)
    }

    fn tables(&self) -> String {
        let tally = &self.answer.tally;
        let mut rows = vec![("all".to_owned(), tally.total)];
        rows.extend(tally.classes.iter().map(|(class, both)| (class.to_string(), *both)));
        let mut text = table("Classes", &rows);
        text += "<h2>Rules</h2>\n<div class=\"scroll\"><table><thead><tr><th>rule</th><th>requests</th><th>old refused</th><th>new refused</th></tr></thead><tbody>\n";
        for ((domain, rule), figures) in &tally.rules {
            let _ = writeln!(
                text,
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                escape(&rule_name(domain, rule)),
                grouped(figures.requests),
                super::reasons(&figures.old),
                super::reasons(&figures.new)
            );
        }
        text += "</tbody></table></div>\n";
        let tried: Vec<(String, Both)> = tally
            .rules
            .iter()
            .filter(|(_, figures)| figures.trial.requests > 0)
            .map(|((domain, rule), figures)| (rule_name(domain, rule), figures.trial))
            .collect();
        if !tried.is_empty() {
            text += &table("Trials, beside the new quotas", &tried);
        }
        let who = tally.who(&self.answer.shapes).into_iter();
        let hit: Vec<(String, Both)> =
            who.filter(|(_, both)| both.new_refused + both.old_refused > 0).collect();
        if !hit.is_empty() {
            text += &table("Hit hardest", &hit[..hit.len().min(WHO_MAX)]);
        }
        let more = hit.len().saturating_sub(WHO_MAX);
        if more > 0 {
            let _ = writeln!(text, "<p class=\"faint\">and {} more</p>", grouped(more as u64));
        }
        text
    }
}

fn table(title: &str, rows: &[(String, Both)]) -> String {
    let mut text = format!(
        "<h2>{title}</h2>\n<div class=\"scroll\"><table><thead><tr><th></th><th>requests</th><th>old refused</th>\
         <th>new refused</th><th>newly refused</th><th>share</th><th>newly admitted</th></tr></thead><tbody>\n"
    );
    for (name, both) in rows {
        let _ = writeln!(
            text,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(name),
            grouped(both.requests),
            grouped(both.old_refused),
            grouped(both.new_refused),
            grouped(both.newly_refused),
            percent(both.newly_refused, both.requests),
            grouped(both.newly_admitted)
        );
    }
    text + "</tbody></table></div>\n"
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
        "<h2>{title}</h2>\n<figure><figcaption class=\"ends\"><span>{}</span><span>",
        grouped(most)
    );
    for (at, (name, colour, _)) in series.iter().enumerate() {
        let dashed = if at > 0 { " dashed" } else { "" };
        let _ = write!(text, "<span class=\"key {colour}{dashed}\">{name}</span>");
    }
    let _ = writeln!(
        text,
        "</span></figcaption>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"{title} over time, at most {most} in a step\">"
    );
    for (at, (_, colour, of)) in series.iter().enumerate() {
        let place = |(t, both): &(u64, Both)| {
            let x = (t - first.0) as f64 / span * WIDTH;
            let y =
                HEIGHT - MARGIN - of(both) as f64 / most.max(1) as f64 * (HEIGHT - 2.0 * MARGIN);
            format!("{x:.1},{y:.1}")
        };
        let mut line: Vec<String> = points.iter().map(place).collect();
        if let [only] = &line[..] {
            // A line through one point would show nothing: it is drawn through the whole.
            let y = only.split_once(',').map_or("0", |(_, y)| y);
            line = vec![format!("0,{y}"), format!("{WIDTH},{y}")];
        }
        let dashes = if at > 0 { " stroke-dasharray=\"6 3\"" } else { "" };
        let _ = writeln!(
            text,
            "<polyline fill=\"none\" stroke=\"var(--{colour})\" stroke-width=\"2\"{dashes} points=\"{}\"/>",
            line.join(" ")
        );
    }
    let _ = writeln!(
        text,
        "</svg>\n<figcaption class=\"ends\"><span>{}</span><span>{}</span></figcaption></figure>",
        instant(first.0),
        instant(last.0)
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
        assert_eq!(plot("Refused", &[], &[]), "");
        let one = plot("Refused", &steps[1..2], &[("new", "new", |both| both.new_refused)]);
        assert!(one.contains("points=\"0,4.0 960,4.0\""), "{one}");
    }
}
