// Requests, response times and errors: the charts, of all routes or one, and the table of the last minute by route.

import { api } from "./api.js";
import * as charts from "./charts.js";
import { heard, trouble } from "./connection.js";
import { byId, each, element, say, set } from "./dom.js";
import { millis, percent, rate } from "./format.js";
import { on, state } from "./state.js";

const STEPS = 900;
const COLUMNS = ["time", "requests", "errors", "p50", "p95", "p99"];

let all = null;
let asking = false;

export function start() {
  charts.start();
  const select = byId("route");
  select.addEventListener("change", () => show());
  on(["figures"], ({ figures }) => {
    routes(Object.entries(figures.routes));
    if (!select.value) show();
  });
}

/** The 15 minutes before this page was opened, or was away. */
export async function load() {
  try {
    all = await api.get("api/metrics/history");
    heard();
    show();
  } catch (error) { trouble(error); }
}

/** A second has gone by. What lies ahead of it was told before the clock was set back. */
export function tick(second) {
  if (!all || !second) return;
  while (all.time.at(-1) > second.time) for (const column of COLUMNS) all[column].pop();
  if (all.time.at(-1) === second.time) return;
  for (const column of COLUMNS) {
    all[column].push(second[column]);
    if (all[column].length > STEPS) all[column].shift();
  }
}

async function show() {
  const route = byId("route").value;
  const latest = route ? state.figures?.routes[route] : state.figures;
  const history = route ? await historyOf(route) : all;
  if (history && route === byId("route").value) charts.show(history, latest && minute(latest));
}

/** Called every second while a route is chosen. */
export function refreshRoute() {
  if (byId("route").value) show();
}

const minute = figures => ({
  requests: figures.requestsPerSecond, errorRate: figures.errorRate,
  p50: figures.responseTimeP50, p95: figures.responseTimeP95, p99: figures.responseTimeP99,
});

async function historyOf(route) {
  if (asking) return null;
  asking = true;
  try {
    return filled(await api.get(`api/metrics/history?route=${encodeURIComponent(route)}`));
  } catch (error) {
    // Taken out of the configuration: all are shown again.
    if (error.status === 404) optionOf(route)?.remove();
    else trouble(error);
  } finally { asking = false; }
  return null;
}

/** A route's history leaves out seconds without requests; a chart must not draw a line across them. */
function filled(history) {
  const end = all?.time.at(-1) ?? history.time.at(-1) ?? 0;
  const places = new Map(history.time.map((time, index) => [time, index]));
  const time = (all?.time.length ? all.time : history.time).filter(second => second <= end);
  const column = name => time.map(second => (places.has(second) ? history[name][places.get(second)] : 0));
  return { time, requests: column("requests"), errors: column("errors"), p50: column("p50"), p95: column("p95"), p99: column("p99") };
}

function routes(entries) {
  const busiest = entries.sort(([a], [b]) => a.localeCompare(b));
  const select = byId("route");
  const chosen = select.value;
  for (const option of [...select.options]) {
    if (option.value && option.value !== chosen && !entries.some(([name]) => name === option.value)) option.remove();
  }
  for (const [name] of busiest) {
    if (!optionOf(name)) select.append(element("option", { value: name }, nameOf(name)));
  }
  select.value = chosen;
  byId("no-traffic").hidden = busiest.length > 0;
  byId("routes").closest(".scroll").hidden = busiest.length === 0;
  each(byId("routes"), busiest, ([name]) => name, ([name]) => {
    const cells = ["number", "number wide", "number", "number wide", "number"].map(kind => element("td", { class: kind }));
    const button = element("button", { type: "button", class: "link", onclick: () => choose(name) }, nameOf(name));
    return {
      root: element("tr", {}, element("th", { scope: "row" }, button), ...cells),
      update([, figures]) {
        const { requests, errorRate, p50, p95, p99 } = minute(figures);
        [rate(requests), millis(p50), millis(p95), millis(p99), percent(errorRate)].forEach((text, index) => say(cells[index], text));
        set(cells[4], "data-tone", errorRate >= 0.05 ? "bad" : errorRate > 0 ? "warn" : null);
      },
    };
  });
}

const optionOf = route => [...byId("route").options].find(option => option.value === route);

const nameOf = route => (route === "-" ? "no route matched" : route);

function choose(name) {
  const select = byId("route");
  select.value = name;
  show();
  select.focus();
}
