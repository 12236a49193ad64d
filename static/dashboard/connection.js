// Whether what is shown is fresh, and saying so when it is not.

import { byId, say, set } from "./dom.js";
import { clockOf, span } from "./format.js";

/** A tick comes every second; without anything for this long the figures are old. */
const STALE_MS = 4_000;

let heardAt = 0;
let isStale = false;
let isPaused = false;
let whenUnauthorized = () => {};
let whenBack = () => {};

export function watch({ unauthorized, back }) {
  whenUnauthorized = unauthorized;
  whenBack = back;
  setInterval(show, 1_000);
}

/** Something came: an answer or an event. */
export function heard() {
  heardAt = Date.now();
  show();
}

/** A call failed. Silence itself is noticed by the clock. */
export function trouble(error) {
  if (error.status === 401) whenUnauthorized();
  else if (!(error.status >= 0)) throw error;
  show();
}

/** While nobody looks, or nobody has logged in, silence means nothing. */
export function pause(paused) {
  isPaused = paused;
  if (!paused) heardAt = Date.now();
  show();
}

function show() {
  const silent = Date.now() - heardAt;
  const live = byId("live"), banner = byId("stale");
  if (isPaused || heardAt === 0) return;
  const wasStale = isStale;
  isStale = silent > STALE_MS;
  set(document.body, "data-stale", isStale);
  set(live, "data-tone", isStale ? "bad" : "ok");
  say(live, isStale ? `No answer for ${span(silent / 1000)}` : "Live");
  if (isStale === wasStale) return;
  banner.hidden = !isStale;
  // Only once: the age in the corner counts on, without a word to screen readers.
  say(banner, isStale ? `Connection lost. What is shown is from ${clockOf(heardAt)} and may be wrong by now. Trying again by itself.` : "");
  if (!isStale) whenBack();
}
