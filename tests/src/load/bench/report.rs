//! The report: one HTML file with the table and the pictures, which needs nothing from elsewhere.

use std::fmt::Write;

use super::measured::{self, Measured};
use super::plot::draw::escape;
use super::results::{HEAD, Row, cells};
use super::stages_table;

const STYLE: &str = "
body { font: 15px/1.45 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 2rem auto;
  max-width: 60rem; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
table { border-collapse: collapse; width: 100%; font-size: 13px; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: .18rem .6rem; border-bottom: 1px solid #e5e5e5 }
th:first-child, td:first-child { text-align: left }
td.yes { color: #00663f } tr.no td { background: #fbe9e9 }
tr.no td:nth-child(n+5) { color: #a30000; font-weight: 600 }
figure { margin: 1.6rem 0 } figcaption { font-weight: 600; margin-bottom: .3rem }
svg { width: 100%; height: auto; font: 12px system-ui, sans-serif; fill: #333 }
.legend { font-size: 13px } .key { margin-right: 1.2rem; white-space: nowrap }
.key i { display: inline-block; width: .8em; height: .8em; margin-right: .4em }
.unit { font-size: 12px; color: #555 }
.grid { stroke: #e5e5e5 } .level { stroke: #a30000; stroke-dasharray: 6 4 }
rect.shade { fill: #f3f0e6 }
.line { fill: none; stroke-width: 1.8 }
.failed { background: #fbe9e9; padding: .6rem 1rem }
";

/// The whole document.
pub fn html(all: &[Measured]) -> String {
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>Tidegate benchmarks</title><style>{STYLE}</style></head><body>\n\
         <h1>Tidegate benchmarks</h1>\n"
    );
    for machine in stages_table::machines(all) {
        // Writing into a String cannot fail.
        let _ = writeln!(html, "<p>{}.</p>", escape(&machine));
    }
    html += &stages(all);
    let remarks = measured::remarks(all);
    if !remarks.is_empty() {
        let item = |remark: &String| match remark.starts_with("FAILED") {
            true => format!("<li class=\"failed\">{}</li>", escape(remark)),
            false => format!("<li>{}</li>", escape(remark)),
        };
        let _ = writeln!(html, "<ul>{}</ul>", remarks.iter().map(item).collect::<String>());
    }
    let rows = measured::rows(all);
    let mut aimed: Vec<&Row> = rows.iter().filter(|row| row.met.is_some()).collect();
    let met = aimed.iter().filter(|row| row.met == Some(true)).count();
    let _ = writeln!(html, "<h2>Targets: {met} of {} met</h2>", aimed.len());
    html += "<p>The missed ones first; the distance is in shares of the target.</p>\n";
    aimed.sort_by_key(|row| row.met);
    html += &table(&aimed);
    html += "<h2>Pictures</h2>\n";
    for picture in all.iter().flat_map(|one| &one.pictures) {
        html += picture;
    }
    html += "<h2>All figures</h2>\n";
    html += &table(&rows.iter().collect::<Vec<_>>());
    html + "</body></html>\n"
}

/// When each stage was measured.
fn stages(all: &[Measured]) -> String {
    let cells = |tag: &str, cells: &[String]| {
        let cell = |cell: &String| format!("<{tag}>{}</{tag}>", escape(cell));
        format!("<tr>{}</tr>\n", cells.iter().map(cell).collect::<String>())
    };
    let mut html = format!("<table>{}", cells("th", &stages_table::HEAD.map(str::to_owned)));
    for row in stages_table::rows(all) {
        html += &cells("td", &row);
    }
    html + "</table>\n"
}

fn table(rows: &[&Row]) -> String {
    let mut html = String::from("<table><tr>");
    for name in HEAD {
        // Writing into a String cannot fail.
        let _ = write!(html, "<th>{name}</th>");
    }
    html += "</tr>\n";
    for row in rows {
        html += if row.met == Some(false) { "<tr class=\"no\">" } else { "<tr>" };
        for (column, cell) in cells(row).iter().enumerate() {
            let class = if column == 4 && row.met == Some(true) { " class=\"yes\"" } else { "" };
            let _ = write!(html, "<td{class}>{}</td>", escape(cell));
        }
        html += "</tr>\n";
    }
    html + "</table>\n"
}
