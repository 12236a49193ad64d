// Three charts over the last 15 minutes, drawn by uPlot, each with its newest figures beside its name.

import { byId, element, say, set } from "./dom.js";
import { millis, percent, rate } from "./format.js";

const HEIGHT = 150;
const STEPS = 900;

const CHARTS = [
  { title: "Requests per second", series: [{ column: "requests", label: "requests", colour: "--chart-1", fill: "--chart-1-fill" }], format: rate, least: 1 },
  {
    title: "Response time", format: millis, least: 1,
    series: [
      { column: "p99", label: "p99", colour: "--chart-3" },
      { column: "p95", label: "p95", colour: "--chart-2" },
      { column: "p50", label: "p50", colour: "--chart-1" },
    ],
  },
  { title: "Error rate", series: [{ column: "errorRate", label: "5xx", colour: "--chart-bad", fill: "--chart-bad-fill" }], format: percent, least: 0.01 },
];

let drawn = [];
let columns = null;

export function start() {
  const host = byId("charts");
  drawn = CHARTS.map(chart => figure(host, chart));
  const redraw = () => { drawn.forEach(({ draw }) => draw()); };
  // The canvas knows no style sheet: its colours and its width are read again when they change.
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  new ResizeObserver(() => drawn.forEach(({ resize }) => resize())).observe(host);
}

/** `history` is columns of equal length, as `/api/metrics/history` has them. */
export function show(history, latest) {
  columns = derived(history);
  for (const { update } of drawn) update(latest);
}

/** One chart: a name, the figures of the last minute, the drawing. */
function figure(host, chart) {
  const values = chart.series.map(({ label, colour }) => {
    // Another figure every second is nothing to read out.
    const value = element("output", { "aria-live": "off" }, "–");
    const swatch = element("i", { "aria-hidden": "true", class: `swatch ${colour.slice(2)}` });
    const name = chart.series.length > 1 ? element("span", {}, label) : null;
    return { value, root: element("span", { class: "value" }, chart.series.length > 1 ? swatch : null, name, value) };
  });
  const canvas = element("div", { class: "canvas", role: "img" });
  const heading = element("figcaption", {}, element("h3", {}, chart.title), element("p", { class: "values" }, ...values.map(({ root }) => root)));
  host.append(element("figure", {}, heading, canvas));
  let plot = null;

  function draw() {
    plot?.destroy();
    plot = new uPlot(settings(chart, canvas.clientWidth), data(chart), canvas);
  }
  return {
    draw,
    resize() {
      if (plot && canvas.clientWidth > 0) plot.setSize({ width: canvas.clientWidth, height: HEIGHT });
    },
    update(latest) {
      values.forEach(({ value }, index) => say(value, latest ? chart.format(latest[chart.series[index].column] ?? 0) : "–"));
      set(canvas, "aria-label", `${chart.title}, the last 15 minutes. ${described(chart)}`);
      if (plot) plot.setData(data(chart));
      else if (canvas.clientWidth > 0) draw();
    },
  };
}

function described(chart) {
  return chart.series.map(({ column, label }) => {
    const known = columns[column].filter(value => value !== null);
    return known.length ? `${label}: at most ${chart.format(Math.max(...known))}` : `${label}: nothing`;
  }).join(", ");
}

function data(chart) {
  return columns ? [columns.time, ...chart.series.map(({ column }) => columns[column])] : [[], ...chart.series.map(() => [])];
}

/** A share of errors, and gaps instead of zeros where nothing was measured. */
function derived(history) {
  const measured = column => history[column].map((value, index) => (history.requests[index] > 0 ? value : null));
  return {
    time: history.time,
    requests: history.requests,
    errorRate: history.requests.map((requests, index) => (requests > 0 ? history.errors[index] / requests : 0)),
    p50: measured("p50"), p95: measured("p95"), p99: measured("p99"),
  };
}

function settings(chart, width) {
  const style = getComputedStyle(document.body);
  const colour = name => style.getPropertyValue(name).trim();
  const axis = { stroke: colour("--quiet"), font: `12px ${style.fontFamily}`, ticks: { show: false }, grid: { stroke: colour("--line"), width: 1 } };
  return {
    width, height: HEIGHT,
    legend: { show: false },
    cursor: { y: false, sync: { key: "traffic" }, drag: { x: false, y: false }, points: { size: 6 } },
    padding: [8, 20, 0, 0],
    scales: {
      x: { time: true, range: (_, __, max) => { const end = max ?? Date.now() / 1000; return [end - STEPS, end]; } },
      y: { range: (_, __, max) => [0, Math.max(chart.least, (max ?? 0) * 1.1)] },
    },
    axes: [
      { ...axis, size: 24, space: 70, values: (_, times) => times.map(clock), grid: { show: false } },
      { ...axis, size: 56, space: 36, values: (_, values) => values.map(value => (value === 0 ? "0" : chart.format(value))) },
    ],
    series: [{}, ...chart.series.map(series => ({
      label: series.label,
      stroke: colour(series.colour),
      fill: series.fill && colour(series.fill),
      width: 1.5,
      spanGaps: false,
      points: { show: false, size: 5, width: 0, fill: colour(series.colour), filter: alone },
    }))],
    hooks: { setCursor: [plot => tell(plot, chart)] },
  };
}

/** Seconds with nothing measured before and after them: no line goes there. */
function alone(plot, index) {
  const values = plot.data[index];
  const isKnown = at => values[at] !== null && values[at] !== undefined;
  const all = [...values.keys()].filter(at => isKnown(at) && !isKnown(at - 1) && !isKnown(at + 1));
  return all.length > 0 ? all : null;
}

/** Under the pointer: the second and its values, in place of the last minute's. */
function tell(plot, chart) {
  const at = plot.cursor.idx;
  const tip = plot.root.parentElement.parentElement;
  const time = at === null || at === undefined ? null : plot.data[0][at];
  if (!time || plot.cursor.left < 0) return set(tip, "data-at", null);
  const values = chart.series.map((series, index) => {
    const value = plot.data[index + 1][at];
    const text = value === null || value === undefined ? "–" : chart.format(value);
    return chart.series.length > 1 ? `${series.label} ${text}` : text;
  });
  set(tip, "data-at", `${new Date(time * 1000).toLocaleTimeString("en-GB")}  ${values.join("  ")}`);
}

const clock = seconds => new Date(seconds * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
