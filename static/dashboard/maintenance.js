// Maintenance: what holds, and switching it. The switch shows what the process says, never what was merely asked for.

import { api } from "./api.js";
import { now } from "./clock.js";
import { confirm, PERIODS, wire } from "./dialog.js";
import { byId, each, element, facts, options, say, set } from "./dom.js";
import { moment, plural, relative } from "./format.js";
import { done, failed, notice } from "./notices.js";
import { refresh } from "./poll.js";
import { learn, on, state } from "./state.js";

const MODES = { full: "every request is blocked", read_only: "writes are blocked, reads pass", emergency: "emergency: every request is blocked" };
const AT_A_TIME = "at";

export function start() {
  const [switchOn, switchOff] = [wire("switch-on", enable), wire("switch-off", disable)];
  options(byId("on-ends"), [["", "when somebody switches it off"], ...PERIODS.map(([value, text]) => [value, `in ${text}`]), [AT_A_TIME, "at a time…"]]);
  byId("on-ends").addEventListener("change", showEnd);
  byId("maintenance-switch").addEventListener("click", () => {
    const { flags = [], blocked_requests } = state.status?.maintenance ?? {};
    if (flags.some(isGlobal)) {
      const own = flags.filter(flag => !isGlobal(flag)).map(flag => flag.route);
      const but = own.length ? `, but for ${own.join(", ")}` : "";
      say(byId("switch-off-text"), `Visitors reach the site again at once${but}. ${plural(blocked_requests, "request")} blocked so far.`);
      switchOff.open();
    } else {
      ask(switchOn, []);
    }
  });
  byId("maintenance-route").addEventListener("click", async () => {
    try {
      const routes = await routesToStop();
      done("routes");
      if (routes.length) ask(switchOn, routes);
      else notice("routes", "Every route is in maintenance, or exempt from it.");
    } catch (error) { failed("routes", "The routes are not known", error); }
  });
  startEmergency();
  on(["status"], ({ status }) => show(status.maintenance));
}

/** The flag of the whole, not of one route. */
const isGlobal = flag => flag.route === null;

/** Asks how; for one of `routes`, or with none for everything. */
function ask(dialog, routes) {
  dialog.form.reset();
  options(byId("on-route"), routes.map(name => [name, name]));
  for (const id of ["on-route", "on-route-label"]) byId(id).hidden = routes.length === 0;
  say(byId("switch-on-title"), routes.length ? "Maintenance of one route" : "Switch maintenance on");
  showEnd();
  dialog.open();
}

/** Those that can be, and are not yet. */
async function routesToStop() {
  const { config } = await api.get("api/config");
  const own = state.status.maintenance.flags.map(flag => flag.route);
  return config.route.filter(route => route.maintenance !== "exempt" && !own.includes(route.name)).map(route => route.name);
}

function show(maintenance) {
  const global = maintenance.flags.find(isGlobal), own = maintenance.flags.filter(flag => !isGlobal(flag));
  set(byId("maintenance"), "data-tone", maintenance.is_active ? (global?.mode === "emergency" || maintenance.overdue ? "bad" : "warn") : "ok");
  set(byId("maintenance-switch"), "aria-checked", String(Boolean(global)));
  const open = own.length ? `The site is open, but for ${plural(own.length, "route")}` : "The site is open";
  const part = global && partOf(global);
  const closed = part ? `In maintenance: ${part}` : "The site is in maintenance";
  say(byId("maintenance-state"), global ? closed : open);
  const flight = ["In flight", plural(maintenance.in_flight, "request")];
  const blocked = ["Blocked", plural(maintenance.blocked_requests, "request")];
  facts(byId("maintenance-facts"), global ? [
    ["Reason", global.reason],
    ["Mode", MODES[global.mode] ?? global.mode],
    ["Since", `${moment(global.started_at)}, ${relative(global.started_at)}`],
    ["Ends", endOf(global.estimated_completion, global.overdue), global.overdue ? "bad" : null],
    ["By", global.by],
    blocked,
    flight,
  ] : maintenance.is_active ? [blocked, flight] : [flight]);
  each(byId("maintenance-routes"), own, flag => flag.route, routeRow);
  planned(maintenance.upcoming);
}

/** What a flag is bound to, each of which must match: `shop.example · /cart, /checkout`; empty for everything. */
const partOf = ({ routes, hosts, paths }) => [routes, hosts, paths].filter(list => list.length).map(list => list.join(", ")).join(" · ");

function routeRow({ route }) {
  const note = element("small");
  const end = element("button", { type: "button", "aria-label": `End the maintenance of ${route}`, onclick: () => askToEnd(route) }, "End…");
  return {
    root: element("li", {}, element("span", { class: "stack" }, element("span", { class: "mono" }, route), note), end),
    update(flag) {
      const mode = flag.mode === "full" ? null : MODES[flag.mode] ?? flag.mode;
      const ends = flag.estimated_completion && `ends ${endOf(flag.estimated_completion, flag.overdue)}`;
      say(note, [flag.reason, mode, partOf({ ...flag, routes: [] }), `since ${moment(flag.started_at)}`, ends, flag.by && `by ${flag.by}`].filter(Boolean).join(" · "));
      set(note, "data-tone", flag.overdue ? "bad" : null);
    },
  };
}

function askToEnd(route) {
  confirm({ title: `Open ${route} again?`, text: `Visitors reach ${route} again at once.`, button: "Open the route", tone: "" },
    () => change("disable", {}, false, route));
}

function endOf(end, isOverdue) {
  if (!end) return "when somebody switches it off";
  return isOverdue ? `should have ended at ${moment(end)}, ${relative(end)}` : `${moment(end)}, ${relative(end)}`;
}

function planned(upcoming) {
  each(byId("maintenance-upcoming"), upcoming.slice(0, 3), one => one.name + one.start, () => {
    const root = element("li");
    return { root, update: one => say(root, `Planned: ${one.name}, ${moment(one.start)} to ${moment(one.end)}${one.reason ? ` (${one.reason})` : ""}`) };
  });
}

function showEnd() {
  const ends = byId("on-ends").value, until = byId("on-until");
  byId("on-until-label").hidden = ends !== AT_A_TIME;
  byId("on-auto-label").hidden = ends === "";
  until.required = ends === AT_A_TIME;
  if (ends === AT_A_TIME && !until.value) until.value = localInput(new Date(now() + 3_600_000));
}

/** A time as `datetime-local` wants it: the reader's own zone, to the minute. */
function localInput(time) {
  const shifted = new Date(time.getTime() - time.getTimezoneOffset() * 60_000);
  return shifted.toISOString().slice(0, 16);
}

async function enable(form) {
  const { route, reason, ends, until, auto_end, mode, grace, terminate } = form.elements;
  const body = { mode: mode.value };
  if (reason.value.trim()) body.reason = reason.value.trim();
  const end = ends.value === AT_A_TIME ? new Date(until.value) : ends.value && new Date(now() + ends.value * 1000);
  if (end) {
    if (end <= now()) throw new Error("The end is in the past.");
    body.until = end.toISOString();
    body.auto_end = auto_end.checked;
  }
  if (grace.value) body.grace = `${grace.value}s`;
  if (terminate.checked) body.terminate = true;
  await change("enable", body, true, route.value || null);
}

const disable = () => change("disable", {}, false, null);

/** Of one route, or with `null` of everything. Says what came of it, which may differ from what was asked. */
async function change(how, body, wanted, route) {
  const query = route === null ? "" : `?route=${encodeURIComponent(route)}`;
  tell(await api.post(`api/admin/maintenance/${how}${query}`, body), wanted, route);
}

function tell(maintenance, wanted, route) {
  learn({ status: { ...state.status, maintenance } });
  const what = route === null ? "Maintenance" : `Maintenance of ${route}`;
  const holds = maintenance.flags.some(flag => flag.route === route);
  if (holds === wanted) notice(what, `${what} is ${wanted ? "on" : "off"}.`);
  else notice(what, `${what} is still ${wanted ? "off" : "on"}: look at the flag file.`, "bad");
  refresh();
}

/** Two steps: what is to happen, then whether that is really meant. */
function startEmergency() {
  const ask = byId("emergency-ask"), sure = byId("emergency-sure"), confirmed = byId("emergency-confirmed"), go = byId("emergency-go");
  const step = isSecond => {
    ask.hidden = isSecond;
    sure.hidden = !isSecond;
    confirmed.required = isSecond;
    confirmed.checked = false;
    say(go, isSecond ? "Stop the site" : "Continue");
  };
  const dialog = wire("emergency-dialog", async form => {
    const { reason, terminate, grace } = form.elements;
    if (sure.hidden) {
      const inFlight = plural(state.status?.maintenance.in_flight ?? 0, "request");
      const cut = terminate.checked ? `${inFlight} in flight and all streams are cut after ${grace.value || 0} s.` : `${inFlight} in flight may finish.`;
      say(byId("emergency-summary"), `Every visitor gets a 503 at once. ${cut}`);
      step(true);
      confirmed.focus();
      return false;
    }
    const body = { terminate_jobs: terminate.checked };
    if (reason.value.trim()) body.reason = reason.value.trim();
    if (terminate.checked) body.grace_period = Number(grace.value || 0);
    tell(await api.post("api/maintenance/emergency", body), true, null);
    return true;
  });
  byId("emergency").addEventListener("click", () => {
    dialog.form.reset();
    step(false);
    dialog.open();
  });
}
