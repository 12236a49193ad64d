// Maintenance: what holds, and switching it. The switch shows what the process says, never what was merely asked for.

import { api } from "./api.js";
import { PERIODS, wire } from "./dialog.js";
import { byId, each, element, facts, options, say, set } from "./dom.js";
import { count, moment, plural, relative } from "./format.js";
import { notice } from "./notices.js";
import { refresh } from "./poll.js";
import { learn, on, state } from "./state.js";

const MODES = { full: "every request is blocked", read_only: "writes are blocked, reads pass", emergency: "emergency: every request is blocked" };
const AT_A_TIME = "at";

export function start() {
  const [switchOn, switchOff] = [wire("switch-on", enable), wire("switch-off", disable)];
  options(byId("on-ends"), [["", "when somebody switches it off"], ...PERIODS.map(([value, text]) => [value, `in ${text}`]), [AT_A_TIME, "at a time…"]]);
  byId("on-ends").addEventListener("change", showEnd);
  byId("maintenance-switch").addEventListener("click", () => {
    const { is_active, blocked_requests } = state.status?.maintenance ?? {};
    if (is_active) {
      say(byId("switch-off-text"), `Visitors reach the site again at once. ${plural(blocked_requests, "request")} blocked so far.`);
      switchOff.open();
    } else {
      switchOn.form.reset();
      showEnd();
      switchOn.open();
    }
  });
  startEmergency();
  on(["status"], ({ status }) => show(status.maintenance));
}

function show(maintenance) {
  const isOn = maintenance.is_active;
  const isEverything = isOn && maintenance.routes.length === 0;
  set(byId("maintenance"), "data-tone", isOn ? (maintenance.mode === "emergency" || maintenance.overdue ? "bad" : "warn") : "ok");
  set(byId("maintenance-switch"), "aria-checked", String(isOn));
  const words = isEverything ? "The site is in maintenance" : `In maintenance: ${maintenance.routes.join(", ")}`;
  say(byId("maintenance-state"), isOn ? words : "The site is open");
  const end = maintenance.estimated_completion;
  facts(byId("maintenance-facts"), isOn ? [
    ["Reason", maintenance.reason],
    ["Mode", MODES[maintenance.mode] ?? maintenance.mode],
    ["Since", maintenance.started_at && `${moment(maintenance.started_at)}, ${relative(maintenance.started_at)}`],
    ["Ends", endOf(end, maintenance.overdue), maintenance.overdue ? "bad" : null],
    ["By", maintenance.by],
    ["Blocked", plural(maintenance.blocked_requests, "request")],
    ["In flight", count(maintenance.in_flight)],
  ] : [["In flight", plural(maintenance.in_flight, "request")]]);
  planned(maintenance.upcoming);
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
  if (ends === AT_A_TIME && !until.value) until.value = localInput(new Date(Date.now() + 3_600_000));
}

/** A time as `datetime-local` wants it: the reader's own zone, to the minute. */
function localInput(time) {
  const shifted = new Date(time.getTime() - time.getTimezoneOffset() * 60_000);
  return shifted.toISOString().slice(0, 16);
}

async function enable(form) {
  const { reason, ends, until, auto_end, mode, grace, terminate } = form.elements;
  const body = { mode: mode.value };
  if (reason.value.trim()) body.reason = reason.value.trim();
  const end = ends.value === AT_A_TIME ? new Date(until.value) : ends.value && new Date(Date.now() + ends.value * 1000);
  if (end) {
    if (end <= new Date()) throw new Error("The end is in the past.");
    body.until = end.toISOString();
    body.auto_end = auto_end.checked;
  }
  if (grace.value) body.grace = `${grace.value}s`;
  if (terminate.checked) body.terminate = true;
  await change("api/admin/maintenance/enable", body, true);
}

const disable = () => change("api/admin/maintenance/disable", {}, false);

/** Says what came of it, which may differ from what was asked: a route may have a flag of its own. */
async function change(path, body, wanted) {
  const maintenance = await api.post(path, body);
  learn({ status: { ...state.status, maintenance } });
  if (maintenance.is_active === wanted) notice(wanted ? "Maintenance is on." : "Maintenance is off.");
  else notice(`Maintenance is still ${wanted ? "off" : `on: ${maintenance.routes.join(", ") || "look at the flag file"}`}.`, "bad");
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
    await change("api/maintenance/emergency", body, true);
    return true;
  });
  byId("emergency").addEventListener("click", () => {
    dialog.form.reset();
    step(false);
    dialog.open();
  });
}
