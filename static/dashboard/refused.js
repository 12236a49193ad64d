// The latest requests that were refused or failed, and who decided so.

import { byId, each, element, say, set } from "./dom.js";
import { millis, stamp } from "./format.js";
import { on, state } from "./state.js";

/** What has no reason of ours was the app's answer, or the client's leaving. */
const OTHERS = { app: "answered by", client: "client left" };
const reasonOf = ({ reason, policy }) => reason ?? OTHERS[policy.kind] ?? policy.kind;
/** `rate_limited · per_ip`, `answered by app` */
const decided = one => [reasonOf(one), one.policy.name].filter(Boolean).join(one.reason ? " · " : " ");

export function start() {
  byId("reason").addEventListener("change", () => state.refused && show(state.refused));
  on(["refused"], ({ refused }) => show(refused));
}

function show(refused) {
  byId("refused").hidden = false;
  const select = byId("reason");
  for (const reason of new Set(refused.map(reasonOf))) {
    if (![...select.options].some(option => option.value === reason)) select.append(element("option", { value: reason }, reason));
  }
  const matching = refused.filter(one => !select.value || reasonOf(one) === select.value);
  const empty = byId("nothing-refused");
  empty.hidden = matching.length > 0;
  say(empty, select.value ? `None of the latest ${refused.length} has this reason.` : "No request has been refused or has failed.");
  byId("refused-rows").closest(".scroll").hidden = matching.length === 0;
  each(byId("refused-rows"), matching, one => `${one.time} ${one.requestId}`, row);
}

function row(one) {
  const status = element("td", {}, String(one.status));
  set(status, "data-tone", one.status >= 500 ? "bad" : "warn");
  const cell = (text, kind) => element("td", { class: kind }, text ?? "–");
  const time = cell("", "mono");
  return {
    root: element("tr", {}, time, status, cell(decided(one)), cell(`${one.method} ${one.target}`, "mono break"),
      cell(one.client, "mono wide"), cell(one.route, "wide"), cell(one.upstream, "wide"), cell(millis(one.durationMs), "number wide"), cell(one.requestId, "mono wide break")),
    update: () => say(time, stamp(one.time)),
  };
}
