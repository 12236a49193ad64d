// Short words on what an action came to, and what a screen reader is told of events.

import { byId, element, say } from "./dom.js";

const NOTICE_MS = 6_000;
const NOTICES_MAX = 4;

/** Good news goes away by itself; a failure stays until it is read. */
export function notice(text, tone = "ok") {
  const list = byId("notices");
  const root = element("div", { class: "notice", "data-tone": tone }, element("p", {}, text));
  const close = element("button", { type: "button", "aria-label": "Dismiss", onclick: () => root.remove() }, "×");
  root.append(close);
  list.append(root);
  while (list.childElementCount > NOTICES_MAX) list.firstElementChild.remove();
  if (tone === "ok") setTimeout(() => root.remove(), NOTICE_MS);
}

export const failed = (what, error) => notice(`${what}: ${error.message}`, "bad");

/** For screen readers only. */
export function announce(text) {
  say(byId("announcer"), text);
}
