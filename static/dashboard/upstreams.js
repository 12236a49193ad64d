// Upstreams with their endpoints, health and breaker; probes beside them.

import { api } from "./api.js";
import { confirm } from "./dialog.js";
import { byId, each, element, say, set } from "./dom.js";
import { count, millis, plural, relative } from "./format.js";
import { failed, notice } from "./notices.js";
import { refresh } from "./poll.js";
import { on, state } from "./state.js";

/** Of a long list, so many are shown; those that are down come first. */
const ENDPOINTS_SHOWN = 8;
const TONES = { healthy: "ok", unhealthy: "bad", unknown: "none" };
const BREAKERS = { CLOSED: ["closed", "ok"], HALF_OPEN: ["half-open", "warn"], OPEN: ["open", "bad"] };

export function start() {
  on(["status", "health"], ({ status, health }) => {
    // What is measured in percent is the machine's own.
    const all = Object.entries(health.checks).filter(([, check]) => check.percentage === undefined);
    const isUpstream = ([name, check]) => name in status.circuitBreakers || check.endpoints !== undefined;
    const sorted = [...all.filter(isUpstream), ...all.filter(one => !isUpstream(one))];
    const items = sorted.map(([name, check]) => ({ name, check, breaker: status.circuitBreakers[name], isUpstream: isUpstream([name, check]) }));
    byId("no-upstreams").hidden = items.length > 0;
    each(byId("upstream-list"), items, item => item.name, tile);
  });
}

function tile({ name, isUpstream }) {
  const pill = element("span", { class: "pill" });
  const about = element("p", { class: "quiet" });
  const endpoints = element("ul", { class: "plain-list endpoints", "aria-label": `Endpoints of ${name}` });
  const more = element("p", { class: "quiet" });
  const breaker = breakerPart(name);
  const root = element("article", { class: "tile", "aria-label": name },
    element("div", { class: "heading" }, element("h3", {}, name), pill), about, endpoints, more, breaker.root);
  return {
    root,
    update({ check, breaker: view }) {
      set(pill, "data-tone", TONES[check.status] === "bad" && !check.critical ? "warn" : TONES[check.status]);
      say(pill, check.status);
      const kind = isUpstream ? null : "probe";
      const words = [kind, check.critical ? null : "not critical", check.latencyMs === null ? null : `check ${millis(check.latencyMs)}`];
      say(about, [...words, check.endpoints ? null : check.error].filter(Boolean).join(" · "));
      const all = Object.entries(check.endpoints ?? {}).sort(([, a], [, b]) => rank(a) - rank(b));
      each(endpoints, all.slice(0, ENDPOINTS_SHOWN), ([label]) => label, endpoint);
      say(more, all.length > ENDPOINTS_SHOWN ? `and ${plural(all.length - ENDPOINTS_SHOWN, "more endpoint")}` : "");
      breaker.update(view);
    },
  };
}

const rank = ({ status }) => ["unhealthy", "unknown", "healthy"].indexOf(status);

function endpoint([label]) {
  const dot = element("i", { class: "dot", "aria-hidden": "true" });
  const word = element("span", { class: "quiet" });
  return {
    root: element("li", {}, dot, element("span", { class: "mono" }, label), word),
    update([, { status, latencyMs, error }]) {
      set(dot, "data-tone", TONES[status]);
      say(word, [status === "healthy" ? null : status, latencyMs === null ? null : millis(latencyMs), error].filter(Boolean).join(" · ") || "healthy");
    },
  };
}

function breakerPart(name) {
  const word = element("strong");
  const numbers = element("span", { class: "quiet" });
  const reset = element("button", { type: "button", "aria-label": `Reset the breaker of ${name}`, onclick: () => change(name, "reset", "closed") }, "Reset");
  const open = element("button", { type: "button", "aria-label": `Open the breaker of ${name}`, onclick: () => ask(name) }, "Open…");
  const root = element("div", { class: "breaker" }, element("p", {}, "Breaker ", word, element("br"), numbers), element("div", { class: "buttons" }, reset, open));
  return {
    root,
    update(view) {
      root.hidden = !view;
      if (!view) return;
      const [state, tone] = BREAKERS[view.state] ?? [view.state, "none"];
      say(word, state);
      set(word, "data-tone", tone);
      const { totalCalls, failedCalls, rejectedCalls } = view.statistics;
      const next = view.nextAttemptTime ? `next try ${relative(view.nextAttemptTime)}` : view.state === "OPEN" ? "until it is reset" : null;
      say(numbers, [next, `${count(totalCalls)} calls`, `${count(failedCalls)} failed`, `${count(rejectedCalls)} ${view.shadow ? "let through in shadow" : "rejected"}`].filter(Boolean).join(" · "));
      reset.disabled = view.state === "CLOSED" && view.failures === 0;
      open.disabled = view.state === "OPEN" && !view.nextAttemptTime;
    },
  };
}

function ask(name) {
  confirm({
    title: `Open the breaker of ${name}?`,
    text: state.status.circuitBreakers[name]?.shadow
      ? `Requests for ${name} go on: its breaker is in shadow, and counts what it would refuse until you reset it.`
      : `Requests for ${name} are refused, or go to its fallback, until you reset the breaker.`,
    button: "Open the breaker",
  }, () => post(name, "open", "open"));
}

async function change(name, how, state) {
  try { await post(name, how, state); } catch (error) { failed(`breaker ${name}`, `The breaker of ${name} was not changed`, error); }
}

async function post(name, how, state) {
  await api.post(`api/admin/circuit-breakers/${encodeURIComponent(name)}/${how}`);
  notice(`breaker ${name}`, `The breaker of ${name} is ${state}.`);
  refresh();
}
