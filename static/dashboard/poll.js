// Asks for what does not come by itself: the status every other second, the lists less often, nothing while nobody looks.

import { api } from "./api.js";
import { heard, trouble } from "./connection.js";
import { learn } from "./state.js";

const STATUS_MS = 2_000;
const LISTS_MS = 10_000;
/** Of refused and failed requests, the latest so many. */
const REFUSED = 200;

let timers = [];
let asking = null;
let again = false;

export function start() {
  stop();
  refresh();
  timers = [setInterval(refreshStatus, STATUS_MS), setInterval(refreshLists, LISTS_MS)];
}

export function stop() {
  timers.forEach(clearInterval);
  timers = [];
}

/** After something has happened. */
export function refresh() {
  return Promise.all([refreshStatus(), refreshLists()]);
}

/** One question at a time; who asks meanwhile gets an answer that is newer than the question. */
function refreshStatus() {
  if (asking) { again = true; return asking; }
  asking = attempt(async () => {
    do {
      again = false;
      const [status, health, figures] = await Promise.all(["api/status", "api/health", "api/metrics"].map(api.get));
      learn({ status, health, figures });
      heard();
    } while (again);
  }).finally(() => { asking = null; });
  return asking;
}

function refreshLists() {
  return attempt(async () => {
    const [blocked, refused] = await Promise.all([api.get("api/admin/blocklist"), api.get(`api/requests?limit=${REFUSED}`)]);
    learn({ blocked: blocked.entries, refused: refused.requests });
  });
}

async function attempt(ask) {
  try { await ask(); } catch (error) { trouble(error); }
}
