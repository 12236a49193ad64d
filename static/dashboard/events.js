// The event log as it is written, newest first.

import { now } from "./clock.js";
import { byId, each, element, say } from "./dom.js";
import { stamp } from "./format.js";
import { announce } from "./notices.js";

const KEPT = 1_000;
const SHOWN = 200;
const RANKS = { ERROR: 2, WARN: 1, INFO: 0 };
const TONES = { ERROR: "bad", WARN: "warn" };
const NEWS_MS = 10_000;
const SPOKEN_AGAIN_MS = 60_000;

let events = [];
const known = new Set();
const spoken = new Map();
let isDrawing = false;

export function start() {
  byId("event-text").addEventListener("input", draw);
  byId("event-level").addEventListener("change", draw);
  draw();
}

/** True when it is news: after a reconnection some come again. */
export function add(event) {
  if (known.has(event.key)) return false;
  known.add(event.key);
  events.unshift({ ...event, fields: fieldsOf(event) });
  for (const dropped of events.splice(KEPT)) known.delete(dropped.key);
  // A flood of events is drawn once.
  if (!isDrawing) {
    isDrawing = true;
    requestAnimationFrame(() => { isDrawing = false; draw(); });
  }
  if (isSpoken(event)) announce(`${event.message} ${events[0].fields}`);
  return true;
}

/** What has a `count` comes every second while it lasts: it is told once a minute. */
function isSpoken({ time, level, message, count }) {
  const at = now();
  if (level === "INFO" || at - Date.parse(time) >= NEWS_MS) return false;
  if (count === undefined) return true;
  if (at - (spoken.get(message) ?? 0) < SPOKEN_AGAIN_MS) return false;
  spoken.set(message, at);
  return true;
}

export function missed(number) {
  add({ key: `missed-${Date.now()}`, time: new Date(now()).toISOString(), level: "WARN", message: "Events were missed by this page", count: number });
}

function fieldsOf(event) {
  const { time, level, message, id, key, ...fields } = event;
  return Object.entries(fields).map(([name, value]) => `${name}=${value}`).join("  ");
}

function draw() {
  const least = RANKS[byId("event-level").value];
  const words = byId("event-text").value.toLowerCase().split(/\s+/).filter(Boolean);
  const matches = event => (RANKS[event.level] ?? 0) >= least && words.every(word => `${event.message} ${event.fields}`.toLowerCase().includes(word));
  const shown = events.filter(matches).slice(0, SHOWN);
  const empty = byId("no-events");
  empty.hidden = shown.length > 0;
  empty.textContent = events.length ? "No event matches." : "No event so far.";
  each(byId("event-list"), shown, event => event.key, row);
}

function row(event) {
  const when = element("time", { datetime: event.time, class: "mono quiet", title: event.time });
  const level = element("span", { class: "level", "data-tone": TONES[event.level] ?? "none" }, event.level.toLowerCase());
  const root = element("li", {}, when, level, element("span", { class: "message" }, event.message), element("span", { class: "fields mono" }, event.fields));
  // A day that is over is named.
  return { root, update: () => say(when, stamp(event.time)) };
}
