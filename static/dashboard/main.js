// The dashboard: panels, each in a file of its own, over one state that is asked for now and then and told of live.

import { api } from "./api.js";
import * as attention from "./attention.js";
import * as blocked from "./blocked.js";
import * as certificates from "./certificates.js";
import * as configuration from "./configuration.js";
import * as connection from "./connection.js";
import { byId, say, set } from "./dom.js";
import * as events from "./events.js";
import * as features from "./features.js";
import * as feed from "./feed.js";
import * as limits from "./limits.js";
import * as login from "./login.js";
import * as maintenance from "./maintenance.js";
import * as poll from "./poll.js";
import * as refused from "./refused.js";
import { learn, state } from "./state.js";
import * as traffic from "./traffic.js";
import * as upstreams from "./upstreams.js";

/** Events come in bursts: the status is asked for once after each. */
const SETTLE_MS = 200;

let settling = 0;

const handlers = {
  tick(tick) {
    traffic.tick(tick.second);
    // What the tick leaves out stays as it was.
    learn({ figures: { ...state.figures, ...tick } });
    traffic.refreshRoute();
  },
  event(event) {
    if (!events.add(event)) return;
    clearTimeout(settling);
    settling = setTimeout(poll.refresh, SETTLE_MS);
  },
  missed: events.missed,
};

function begin() {
  login.show(false);
  login.offerLogout();
  connection.pause(false);
  traffic.load();
  poll.start();
  feed.open(handlers);
}

function end() {
  connection.pause(true);
  poll.stop();
  feed.close();
}

function logIn() {
  end();
  set(byId("live"), "data-tone", "none");
  say(byId("live"), "Not logged in");
  // Behind a dialog nobody could write the token.
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  login.show(true);
}

for (const panel of [attention, blocked, certificates, configuration, events, features, limits, maintenance, refused, traffic, upstreams]) panel.start();
login.start(begin);
say(byId("host"), location.host);
connection.watch({ unauthorized: logIn, back: traffic.load });
// A page that nobody looks at holds no stream: browsers allow six to a host.
document.addEventListener("visibilitychange", () => {
  if (!byId("login").hidden) return;
  if (document.hidden) end();
  else begin();
});
const beginIfSeen = () => { if (!document.hidden) begin(); };
api.get("api/maintenance/status").then(beginIfSeen, error => (error.status === 401 ? logIn() : beginIfSeen()));
