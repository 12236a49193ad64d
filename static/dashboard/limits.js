// Limits with their counters, and an override for a surge.

import { api } from "./api.js";
import { PERIODS, wire } from "./dialog.js";
import { byId, each, element, options, say, set } from "./dom.js";
import { count, moment, rate, relative } from "./format.js";
import { failed, notice } from "./notices.js";
import { refresh } from "./poll.js";
import { on, state } from "./state.js";

let surge;
let chosen = "";
/** What was limited at the last look, for how much a second that is. */
const before = new Map();

export function start() {
  surge = wire("surge", override);
  options(byId("surge-for"), [...PERIODS, ["", "until it is cleared"]]);
  for (const button of byId("surge-times").querySelectorAll("button")) button.addEventListener("click", () => times(Number(button.dataset.times)));
  on(["status"], ({ status }) => {
    const limits = Object.entries(status.limits);
    byId("no-limits").hidden = limits.length > 0;
    byId("limit-rows").closest(".scroll").hidden = limits.length === 0;
    each(byId("limit-rows"), limits, ([name]) => name, row);
  });
}

function row([name]) {
  const cell = kind => element("td", { class: kind });
  const inForce = cell("stack"), allowed = cell("number wide"), limited = cell("number"), queued = cell("number wide"), inFlight = cell("number wide"), keys = cell("number wide");
  const rateText = element("span"), note = element("small");
  inForce.append(rateText, note);
  const clear = element("button", { type: "button", "aria-label": `Clear the override of ${name}`, onclick: () => clearOverride(name) }, "Clear");
  const change = element("button", { type: "button", "aria-label": `Set limit ${name}`, onclick: () => open(name) }, "Set…");
  return {
    root: element("tr", {}, element("th", { scope: "row" }, name), inForce, allowed, limited, queued, inFlight, keys, element("td", { class: "actions" }, clear, change)),
    update([, limit]) {
      say(rateText, `${limit.rate}, burst ${count(limit.burst)}`);
      const { override } = limit;
      const end = override?.until ? `until ${moment(override.until)}, ${relative(override.until)}` : "until it is cleared";
      const notes = [override ? `overridden ${end}; configured ${limit.configured.rate}` : null, limit.shadow ? "shadow: counts, lets through" : null,
        limit.storeReachable === false ? "the shared store is out of reach" : null];
      say(note, notes.filter(Boolean).join(" · "));
      set(note, "data-tone", override || limit.storeReachable === false ? "warn" : null);
      const over = limit.limited + limit.shadowed;
      const perSecond = pace(name, over);
      say(allowed, count(limit.allowed));
      say(limited, perSecond > 0 ? `${count(over)} (${rate(perSecond)}/s)` : count(over));
      set(limited, "data-tone", perSecond > 0 ? "warn" : null);
      [[queued, limit.queued], [inFlight, limit.inFlight], [keys, limit.keys]].forEach(([node, value]) => say(node, count(value)));
      clear.hidden = !override;
    },
  };
}

function pace(name, total) {
  const now = Date.now(), last = before.get(name);
  if (last && now - last.at < 1_000) return last.pace;
  const seconds = last ? (now - last.at) / 1000 : 0;
  const found = last && seconds < 30 ? Math.max(0, total - last.total) / seconds : 0;
  before.set(name, { at: now, total, pace: found });
  return found;
}

function open(name) {
  const limit = state.status.limits[name];
  chosen = name;
  surge.form.reset();
  say(byId("surge-name"), name);
  say(byId("surge-configured"), `${limit.configured.rate}, burst ${limit.configured.burst}`);
  byId("surge-rate").value = limit.rate;
  byId("surge-for").value = "900";
  surge.open();
}

/** Both, rate and burst, of what is configured. */
function times(factor) {
  const { configured } = state.status.limits[chosen];
  const [number, period] = configured.rate.split("/");
  byId("surge-rate").value = `${Number(number) * factor}/${period}`;
  byId("surge-burst").value = configured.burst * factor;
}

async function override(form) {
  const { rate: wanted, burst, ttl } = form.elements;
  const body = { rate: wanted.value.trim() };
  if (burst.value) body.burst = Number(burst.value);
  if (ttl.value) body.ttlSeconds = Number(ttl.value);
  const limit = await api.post(`api/admin/limits/${encodeURIComponent(chosen)}`, body);
  notice(`limit ${chosen}`, `Limit ${chosen} is ${limit.rate}, burst ${limit.burst}.`);
  refresh();
}

async function clearOverride(name) {
  try {
    const limit = await api.remove(`api/admin/limits/${encodeURIComponent(name)}`);
    notice(`limit ${name}`, `Limit ${name} is ${limit.rate} again.`);
    refresh();
  } catch (error) { failed(`limit ${name}`, `Limit ${name} was not changed`, error); }
}
