// Shows the states that the service sends once a second. Text goes in as text, never as markup.
"use strict";

const number = new Intl.NumberFormat("en");
const byId = (id) => document.getElementById(id);
let last = null;
let history = new Map();
let page = 1;

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function sum(counts) {
  return Object.values(counts).reduce((all, count) => all + count, 0);
}

function plural(count, name) {
  return `${number.format(count)} ${name}${count === 1 ? "" : "s"}`;
}

function duration(seconds) {
  if (seconds < 120) return `${Math.max(0, seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

function time(seconds) {
  return new Date(seconds * 1000).toISOString().replace("T", " ").slice(0, 19) + " UTC";
}

function sparkline(points) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  // A young history would be a sliver of an hour: it begins with ten minutes.
  const span = Math.max(60, points.length);
  made.setAttribute("viewBox", `0 0 ${span} 28`);
  made.setAttribute("preserveAspectRatio", "none");
  made.setAttribute("role", "img");
  const most = Math.max(1, ...points.map(([admitted, refused]) => Math.max(admitted, refused)));
  const total = points.reduce(([a, r], [admitted, refused]) => [a + admitted, r + refused], [0, 0]);
  made.setAttribute("aria-label", `last hour: ${total[0]} admitted, ${total[1]} refused`);
  ["admitted", "refused"].forEach((kind, at) => {
    const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
    const from = span - points.length;
    // A line of one point would show nothing.
    const drawn = points.length === 1 ? [...points, ...points] : points;
    const path = drawn.map((point, x) => `${from + Math.min(x, points.length - 1)},${(27 - (point[at] / most) * 26).toFixed(1)}`);
    line.setAttribute("points", path.join(" "));
    line.setAttribute("class", `line-${kind}`);
    made.append(line);
  });
  return made;
}

function showClasses(state) {
  const before = new Map((last ? last.classes : []).map((of) => [of.name, of]));
  const seconds = last ? Math.max(1, state.at - last.at) : 1;
  const rows = state.classes.map((of) => {
    const was = before.get(of.name);
    const rate = (kind) => (was ? Math.max(0, sum(of[kind]) - sum(was[kind])) / seconds : 0);
    const row = element("tr");
    const name = element("th", of.name);
    name.scope = "row";
    const reasons = Object.entries(of.refused).map(([reason, count]) => `${reason} ${number.format(count)}`);
    const refused = rate("refused");
    row.append(
      name,
      element("td", number.format(Math.round(rate("admitted"))), "number"),
      element("td", number.format(Math.round(refused)), refused > 0 ? "number over" : "number"),
      element("td", reasons.join(", ") || "none"),
    );
    const hour = element("td");
    hour.append(sparkline(history.get(of.name) || []));
    row.append(hour, element("td", of.outage || "class of an earlier version"));
    return row;
  });
  byId("classes").tBodies[0].replaceChildren(...rows);
}

// A bar of parts of one, which people who do not see it are told in percent.
function bar(parts, isFull) {
  const made = element("div", undefined, isFull ? "bar full" : "bar");
  made.setAttribute("role", "img");
  const words = [];
  for (const [kind, part] of Object.entries(parts)) {
    const fill = element("span", undefined, kind);
    fill.style.width = `${(part * 100).toFixed(1)}%`;
    made.append(fill);
    if (part > 0) words.push(`${kind} ${Math.round(part * 100)} %`);
  }
  made.setAttribute("aria-label", words.join(", ") || "nothing taken");
  made.title = words.join(", ");
  return made;
}

function showDescriptors(count, nearest, at) {
  const rows = nearest.map((of) => {
    const row = element("tr");
    const gone = of.capacity ? Math.min(1, 1 - of.left / of.capacity) : 1;
    const reserved = of.capacity ? Math.min(gone, of.reserved / of.capacity) : 0;
    const leased = of.capacity ? Math.min(1 - gone, (of.leased || 0) / of.capacity) : 0;
    const taken = element("td");
    taken.append(bar({ used: gone - reserved, reserved, leased }, gone >= 1), `${Math.floor(gone * 100)} %`);
    row.append(
      element("td", of.entries, "wrap"),
      taken,
      element("td", number.format(of.left), of.left === 0 ? "number over" : "number"),
      element("td", number.format(of.reserved), "number"),
      element("td", of.leased === null ? "–" : number.format(of.leased), "number"),
      element("td", of.limit),
      element("td", duration(of.until - at), "number"),
      element("td", number.format(of.admitted), "number"),
      element("td", number.format(of.refused), of.refused > 0 ? "number over" : "number"),
      element("td", of.class),
      element("td", of.domain),
    );
    return row;
  });
  if (rows.length === 0) {
    const empty = element("td", "Nothing was asked since this page was opened.");
    empty.colSpan = 11;
    const row = element("tr");
    row.append(empty);
    rows.push(row);
  }
  byId("descriptors").tBodies[0].replaceChildren(...rows);
  const pages = Math.max(1, Math.ceil(count / 25));
  page = Math.min(page, pages);
  byId("page").textContent = `page ${page} of ${pages}, ${number.format(count)} descriptors`;
  byId("previous").disabled = page <= 1;
  byId("next").disabled = page >= pages;
}

function showTrials(trials) {
  byId("trials-part").hidden = trials.length === 0;
  const rows = trials.map((of) => {
    const row = element("tr");
    const name = element("th", `${of.domain}.${of.rule}`);
    name.scope = "row";
    row.append(name, element("td", of.limit), element("td", of.trial));
    for (const figure of ["requests", "refused", "trial_refused", "newly_refused", "newly_admitted"]) {
      const bad = figure === "newly_refused" && of[figure] > 0;
      row.append(element("td", number.format(of[figure]), bad ? "number over" : "number"));
    }
    return row;
  });
  byId("trials").tBodies[0].replaceChildren(...rows);
}

function definitions(list, pairs) {
  const made = [];
  for (const [name, value, isBad] of pairs) {
    made.push(element("dt", name), element("dd", String(value), isBad ? "lost-value" : ""));
  }
  list.replaceChildren(...made);
}

function leasePairs(leases) {
  const largest = leases.largest.map((of) => `${of.rule || "a rule"}: ${plural(of.held, "hit")} of ${plural(of.counters, "counter")}`);
  return [
    ["leased counters", number.format(leases.counters)],
    ["hits claimed ahead and not spent", number.format(leases.held)],
    ["most of them", largest.join("; ") || "none"],
    ["claims", leases.holding ? "held back, until what was lost is restored" : "made as they fall due", leases.holding],
    ["counters to be restored after a loss", number.format(leases.unrestored), leases.unrestored > 0],
  ];
}

function showStore(store) {
  if (store.kind === "memory") {
    definitions(byId("store"), [["counters", "in the memory of this replica, shared with nobody"]]);
    return;
  }
  const servers = store.servers.map((of) => {
    const parts = { main: "windows but seconds", per_second: "windows of a second" };
    const holds = [of.part && parts[of.part], of.slots !== null && `${number.format(of.slots)} slots`].filter(Boolean);
    const name = `server ${of.at || "not found yet"}${holds.length ? ` (${holds.join(", ")})` : ""}`;
    const isLost = of.lost_seconds !== null;
    return [name, isLost ? `out of reach for ${duration(of.lost_seconds)}` : "in reach", isLost];
  });
  const pairs = [
    ["Redis", store.in_reach ? "in reach, breaker closed" : "out of reach, breaker open: classes are answered by their outage policy", !store.in_reach],
    ...servers,
    ["replicas that share limits in an outage", store.share_replicas],
    ["counters to be repaid to Redis", store.owed_counters, store.owed_counters > 0],
  ];
  if (store.leases) pairs.push(...leasePairs(store.leases));
  definitions(byId("store"), pairs);
}

function showQuotas(state) {
  const config = state.config;
  const pairs = Object.entries(config.quotas || {})
    .filter(([, value]) => value !== null)
    .map(([name, value]) => {
      const isTime = name.endsWith("at_seconds");
      return [name.replaceAll("_", " ").replace(" seconds", ""), isTime ? time(value) : value, name.includes("error")];
    });
  for (const [domain, rules] of Object.entries(config.rules_by_domain || {})) pairs.push([`rules of ${domain}`, rules]);
  if (config.source_error) pairs.push(["source", config.source_error, true]);
  definitions(byId("quotas"), pairs);
  byId("errors").replaceChildren(...(config.errors || []).map((error) => element("li", error)));
  byId("changes").replaceChildren(
    ...state.changes.map((version) => {
      const item = element("li", `${time(version.at)}: ${version.changes === 0 ? "loaded" : plural(version.changes, "change")}, ${plural(version.refused, "request")} refused while in force`);
      const words = element("ul");
      words.append(...version.words.map((text) => element("li", text)));
      if (version.changes > version.words.length) words.append(element("li", `and ${version.changes - version.words.length} more`));
      if (words.children.length) item.append(words);
      return item;
    }),
  );
}

let token = sessionStorage.getItem("token");

// Asks the service, with the token where it wants one.
async function ask(path, options = {}) {
  const sent = token;
  const headers = sent ? { authorization: `Bearer ${sent}` } : {};
  const answer = await fetch(path, { ...options, headers, cache: "no-store" });
  // An answer to a token that was replaced meanwhile says nothing of the one that is in use.
  if (answer.status === 401 && sent === token) needToken();
  return answer;
}

function needToken() {
  const wasWrong = token !== null;
  token = null;
  sessionStorage.removeItem("token");
  byId("token-form").hidden = false;
  // Several requests may be refused at once; the first of them knows that there was a token.
  if (wasWrong) byId("token-problem").textContent = "This is not the token.";
}

byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token").value.trim();
  sessionStorage.setItem("token", token);
  byId("token").value = "";
  byId("token-problem").textContent = "";
  byId("token-form").hidden = true;
  readHistory();
  watch();
});

async function show(state) {
  showClasses(state);
  if (page === 1) {
    showDescriptors(state.descriptors.count, state.descriptors.nearest, state.at);
  } else {
    const answer = await (await ask(`/console/descriptors?page=${page}`)).json();
    showDescriptors(answer.count, answer.nearest, state.at);
  }
  showTrials(state.trials);
  showStore(state.store);
  showQuotas(state);
  last = state;
  const status = byId("status");
  status.textContent = `Live, ${time(state.at)}`;
  status.classList.remove("lost");
}

async function readHistory() {
  try {
    const answer = await (await ask("/console/history")).json();
    history = new Map(answer.classes.map((of) => [of.class, of.points]));
  } catch {
    // The next one comes in ten seconds, and the state of the connection is shown by the stream.
  }
}

byId("previous").addEventListener("click", () => { page = Math.max(1, page - 1); });
byId("next").addEventListener("click", () => { page += 1; });

byId("explain-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const descriptors = byId("explain-descriptors").value.split("\n");
  const domain = byId("explain-domain").value.trim();
  const explained = byId("explained");
  explained.hidden = false;
  try {
    const answer = await ask("/console/explain", { method: "POST", body: JSON.stringify({ domain, descriptors }) });
    explained.textContent = await answer.text();
    explained.classList.toggle("over", !answer.ok);
  } catch {
    explained.textContent = "No answer from the service.";
    explained.classList.add("over");
  }
});

const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

// How long after a stream the next one is asked for, which the stream says.
let pauseAfter = 500;

// Reads one stream of states to its end; whether it was one.
async function readStream() {
  const answer = await ask("/console/events");
  if (!answer.ok) return answer.status;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return answer.status;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      if (event.startsWith("data: ")) await show(JSON.parse(event.slice(6)));
      if (event.startsWith("retry: ")) pauseAfter = Number(event.slice(7));
    }
  }
}

// A stream ends after some states, and the next one begins.
async function watch() {
  for (;;) {
    let status = 0;
    try {
      status = await readStream();
    } catch {
      // Shown below.
    }
    if (status === 401) return;
    if (status !== 200) {
      byId("status").textContent = status === 503 ? "A hundred people watch already" : "No answer from the service; what is shown is old";
      byId("status").classList.add("lost");
    }
    if (status === 200 && pauseAfter > 1000) byId("status").textContent = "Many people watch: this page is shown again in some seconds";
    await pause(status === 200 ? pauseAfter : 3000);
  }
}

readHistory();
setInterval(() => { if (byId("token-form").hidden) readHistory(); }, 10000);
watch();
