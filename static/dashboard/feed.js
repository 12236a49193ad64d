// The event stream: log lines as they are written and a metrics tick a second. It opens again by itself, whatever ended it.

import { heard, trouble } from "./connection.js";
import { api } from "./api.js";

/** Without a tick for this long the stream is dead, whatever the browser believes. */
const SILENCE_MS = 5_000;
const RETRY_MS = 1_500;
/** Of what has been, for a fresh page. */
const RECENT = 300;

let source = null;
let watchdog = 0;
let handlers = { tick() {}, event() {}, missed() {} };
/** The last event, by the id that the process gave it. */
let last = { process: "", number: 0 };

export function open(given) {
  handlers = given;
  connect();
}

export function close() {
  clearTimeout(watchdog);
  source?.close();
  source = null;
}

function connect() {
  close();
  source = new EventSource(`api/events?recent=${RECENT}`);
  source.addEventListener("metrics", ({ data }) => { alive(); handlers.tick(JSON.parse(data)); });
  source.addEventListener("log", ({ data, lastEventId }) => {
    alive();
    const skipped = skippedBefore(lastEventId);
    if (skipped > 0) handlers.missed(skipped);
    handlers.event({ ...JSON.parse(data), key: lastEventId });
  });
  source.addEventListener("error", lost);
  wait(SILENCE_MS);
}

/** Events of one process are numbered in a row. A fresh stream begins with some that are known, or with a gap. */
function skippedBefore(id) {
  const at = id.lastIndexOf("-");
  const now = { process: id.slice(0, at), number: Number(id.slice(at + 1)) };
  const isSame = now.process === last.process;
  const skipped = isSame ? now.number - last.number - 1 : 0;
  if (!isSame || skipped >= 0) last = now;
  return skipped;
}

function alive() {
  heard();
  wait(SILENCE_MS);
}

function wait(ms) {
  clearTimeout(watchdog);
  watchdog = setTimeout(connect, ms);
}

/** The browser retries when a connection breaks, but not after an answer such as 401 or 503, and does not say which. */
function lost() {
  if (source?.readyState !== EventSource.CLOSED) return;
  wait(RETRY_MS);
  api.get("api/maintenance/status").catch(trouble);
}
