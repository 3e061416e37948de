// Shows a report of `ratelimit-svc simulate --format json` that the visitor opens from their own disk. It is
// read here and sent nowhere.
"use strict";

const REPORT_BYTES_MAX = 64 << 20;
const FIGURES = ["requests", "old_refused", "new_refused", "newly_refused", "newly_admitted"];

function reportTable(title, name, rows, described) {
  const part = element("div");
  const id = `report-${title.replaceAll(/\W+/g, "-").toLowerCase()}`;
  const heading = element("h3", title);
  heading.id = id;
  const table = element("table");
  table.setAttribute("aria-labelledby", id);
  const head = element("tr");
  const cell = (text, kind) => {
    const made = element("th", text, kind);
    made.scope = "col";
    return made;
  };
  head.append(cell(name), ...FIGURES.map((figure) => cell(figure.replace("_", " "), "number")));
  table.createTHead().append(head);
  const body = table.createTBody();
  for (const [label, figures] of rows) {
    const row = element("tr");
    const first = element("th", label);
    first.scope = "row";
    row.append(first);
    for (const figure of FIGURES) {
      const value = Number(figures[figure]) || 0;
      const bad = figure === "newly_refused" && value > 0;
      row.append(element("td", number.format(value), bad ? "number over" : "number"));
    }
    body.append(row);
  }
  const scroll = element("div", undefined, "scroll");
  scroll.tabIndex = 0;
  scroll.append(table);
  part.append(heading, scroll);
  if (described) part.append(element("p", described, "note"));
  return part;
}

function list(value) {
  return Array.isArray(value) ? value : [];
}

function showReport(report) {
  const parts = [];
  const span = Number.isFinite(report.from) ? `Traffic from ${time(report.from)} to ${time(report.to)}, against ${report.against}.` : `Against ${report.against}.`;
  parts.push(element("p", span));
  for (const one of list(report.conditions)) {
    const verdict = one.fails ? "Failed" : "Passed";
    parts.push(element("p", `${verdict}: ${one.condition}, it is ${one.figure}`, one.fails ? "over" : "note"));
  }
  const classes = list(report.classes).map((of) => [of.class, of]);
  parts.push(reportTable("Simulated requests", "class", [["all", report.total], ...classes]));
  const tried = list(report.rules).filter((of) => of.trial).map((of) => [`${of.domain}.${of.rule}`, of.trial]);
  if (tried.length) parts.push(reportTable("Simulated trials", "rule", tried));
  const who = list(report.who).filter((of) => of.new_refused + of.old_refused > 0);
  if (who.length) parts.push(reportTable("Hit hardest", "who", who.map((of) => [of.who, of])));
  if (report.worst && report.worst.new_refused > 0) {
    const { t, requests, new_refused: refused } = report.worst;
    parts.push(element("p", `Worst ${report.step_seconds} s: from ${time(t)}, ${number.format(refused)} of ${number.format(requests)} refused.`));
  }
  for (const note of list(report.notes)) parts.push(element("p", note, "note"));
  byId("report").replaceChildren(...parts);
}

function reportFails(problem) {
  byId("report").replaceChildren(element("p", problem, "over"));
}

byId("report-file").addEventListener("change", async (event) => {
  const file = event.target.files[0];
  if (!file) return;
  if (file.size > REPORT_BYTES_MAX) return reportFails("The file is larger than 64 MiB.");
  try {
    const report = JSON.parse(await file.text());
    if (!report || typeof report.total !== "object" || report.total === null) throw new Error("it has no totals");
    showReport(report);
  } catch (error) {
    reportFails(`This is no report of simulate --format json: ${error.message}`);
  }
});
