// The block list.

import { api } from "./api.js";
import { PERIODS } from "./dialog.js";
import { byId, each, element, options, say } from "./dom.js";
import { count, moment, relative } from "./format.js";
import { failed, notice } from "./notices.js";
import { refresh } from "./poll.js";
import { on } from "./state.js";

/** Lists may be long: the rest is for the command line. */
const SHOWN = 200;

export function start() {
  options(byId("block-for"), [...PERIODS.slice(2), ["", "ever"]]);
  byId("block-form").addEventListener("submit", event => { event.preventDefault(); block(event.target); });
  on(["blocked"], ({ blocked }) => {
    byId("nobody-blocked").hidden = blocked.length > 0;
    each(byId("blocked-list"), blocked.slice(0, SHOWN), ({ cidr }) => cidr, row);
    byId("blocked-more").hidden = blocked.length <= SHOWN;
    say(byId("blocked-number"), count(blocked.length - SHOWN));
  });
}

function row({ cidr }) {
  const note = element("small");
  const button = element("button", { type: "button", "aria-label": `Unblock ${cidr}`, onclick: () => unblock(cidr) }, "Unblock");
  return {
    root: element("li", {}, element("span", { class: "stack" }, element("span", { class: "mono" }, cidr), note), button),
    update: ({ until }) => say(note, until ? `until ${moment(until)}, ${relative(until)}` : "until it is unblocked"),
  };
}

async function block(form) {
  const { cidr, ttl } = form.elements;
  const body = { cidr: cidr.value.trim() };
  if (ttl.value) body.ttlSeconds = Number(ttl.value);
  try {
    const entry = await api.post("api/admin/blocklist", body);
    notice("block", `${entry.cidr} is blocked.`);
    form.reset();
    refresh();
  } catch (error) { failed("block", "Nothing was blocked", error); }
}

async function unblock(cidr) {
  try {
    await api.remove(`api/admin/blocklist/${cidr}`);
    notice(`unblock ${cidr}`, `${cidr} is no longer blocked.`);
    refresh();
  } catch (error) { failed(`unblock ${cidr}`, `${cidr} is still blocked`, error); }
}
