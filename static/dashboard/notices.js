// Short words on what an action came to, and what a screen reader is told of events.

import { byId, element, say } from "./dom.js";

const NOTICE_MS = 6_000;
const NOTICES_MAX = 4;

/**
 * Says what `action` came to, in place of what it came to before. Good news goes away by itself; a failure stays until it
 * is read, or until the action comes to something else.
 */
export function notice(action, text, tone = "ok") {
  done(action);
  const list = byId("notices");
  const root = element("div", { class: "notice", "data-tone": tone, "data-action": action }, element("p", {}, text));
  const close = element("button", { type: "button", "aria-label": "Dismiss", onclick: () => root.remove() }, "×");
  root.append(close);
  list.append(root);
  while (list.childElementCount > NOTICES_MAX) list.firstElementChild.remove();
  if (tone === "ok") setTimeout(() => root.remove(), NOTICE_MS);
}

export const failed = (action, what, error) => notice(action, `${what}: ${error.message}`, "bad");

/** What was said of this action holds no longer. */
export function done(action) {
  for (const told of [...byId("notices").children]) if (told.dataset.action === action) told.remove();
}

/** For screen readers only. */
export function announce(text) {
  say(byId("announcer"), text);
}
