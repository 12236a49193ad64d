// What is not as it should be, in one list, and how the machine is doing.

import { byId, each, element, facts, say, set } from "./dom.js";
import { count, moment, percent, plural, relative } from "./format.js";
import { on } from "./state.js";

const HEALTH = { healthy: ["Healthy", "ok"], degraded: ["Degraded", "warn"], unhealthy: ["Unhealthy", "bad"] };

const STANDINGS = { EXPIRED: "has expired", INVALID: "is not valid yet" };

export function start() {
  on(["status", "health", "figures"], ({ status, health, figures }) => {
    const [word, tone] = HEALTH[health.status] ?? [health.status, "none"];
    say(byId("health"), word);
    set(byId("health"), "data-tone", tone);
    document.title = `${health.status === "healthy" ? "" : `${word} · `}${status.maintenance.is_active ? "Maintenance · " : ""}Flagstone`;
    each(byId("attention"), [...concerns(status, health)], one => one.text, item);
    machine(figures);
  });
}

function item({ tone, href }) {
  const link = href ? element("a", { href }) : element("span");
  return {
    root: element("li", { "data-tone": tone }, element("i", { class: "dot", "data-tone": tone, "aria-hidden": "true" }), link),
    update: ({ text }) => say(link, text),
  };
}

function* concerns(status, health) {
  const { maintenance, circuitBreakers, certificates, limits, config, process } = status;
  if (maintenance.overdue) yield { tone: "bad", href: "#maintenance", text: `Maintenance should have ended ${relative(maintenance.estimated_completion)}` };
  if (config.lastReload && !config.lastReload.success) yield { tone: "bad", href: "#configuration", text: "The last reload was refused; the old configuration serves on" };
  const { dropping, error } = process.accessLog;
  if (dropping) yield { tone: "bad", text: `The access log is losing lines${error ? `: ${error}` : ""}` };
  let endpoints = 0;
  for (const [name, check] of Object.entries(health.checks)) {
    const down = Object.values(check.endpoints ?? {}).filter(endpoint => endpoint.status === "unhealthy");
    endpoints += Object.keys(check.endpoints ?? {}).length - down.length;
    if (check.percentage !== undefined && check.error) yield { tone: "warn", text: `${name}: ${check.error}` };
    else if (check.status === "unhealthy") yield { tone: check.critical ? "bad" : "warn", href: "#upstreams", text: `${name} is down${check.error ? `: ${check.error}` : ""}` };
    else if (down.length) yield { tone: "warn", href: "#upstreams", text: `${name}: ${down.length} of ${plural(Object.keys(check.endpoints).length, "endpoint")} down` };
  }
  for (const [name, { state }] of Object.entries(circuitBreakers)) {
    if (state === "HALF_OPEN") yield { tone: "warn", href: "#upstreams", text: `The breaker of ${name} is half-open` };
  }
  for (const { domain, daysLeft, status: standing } of certificates) {
    if (standing !== "OK") yield { tone: standing === "EXPIRING" ? "warn" : "bad", href: "#certificates", text: `The certificate of ${domain} ${STANDINGS[standing] ?? `expires in ${plural(daysLeft, "day")}`}` };
  }
  for (const [name, { override, storeReachable }] of Object.entries(limits)) {
    if (override) yield { tone: "warn", href: "#limits", text: `Limit ${name} is overridden${override.until ? ` until ${moment(override.until)}` : ""}` };
    if (storeReachable === false) yield { tone: "warn", href: "#limits", text: `Limit ${name}: the shared store is out of reach` };
  }
  const closed = Object.values(circuitBreakers).filter(({ state }) => state === "CLOSED").length;
  if (health.status === "healthy") yield { tone: "ok", text: `Everything that is checked is healthy: ${plural(endpoints, "endpoint")}, ${plural(closed, "closed breaker")}` };
}

function machine(figures) {
  const share = number => (number === null || number === undefined ? null : percent(number / 100));
  facts(byId("machine"), [
    ["In flight", count(figures.activeRequests)],
    ["Connections", count(figures.activeConnections)],
    ["CPU", share(figures.server?.cpu)],
    ["Memory", share(figures.server?.memory)],
    ["Disk", share(figures.server?.disk)],
  ]);
}
