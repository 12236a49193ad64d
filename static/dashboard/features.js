// Feature switches.

import { api } from "./api.js";
import { byId, each, element, say, set } from "./dom.js";
import { failed, notice } from "./notices.js";
import { refresh } from "./poll.js";
import { on } from "./state.js";

export function start() {
  on(["status"], ({ status: { featureFlags } }) => {
    const features = Object.entries(featureFlags);
    byId("no-features").hidden = features.length > 0;
    each(byId("feature-list"), features, ([key]) => key, row);
  });
}

function row([key]) {
  let value = false;
  const knob = element("button", { type: "button", class: "switch", role: "switch", "aria-label": key, onclick: () => flip(key, !value, knob) }, element("span"));
  const note = element("small");
  return {
    root: element("li", {}, element("span", { class: "stack" }, element("span", { class: "mono" }, key), note), knob),
    update([, feature]) {
      ({ value } = feature);
      set(knob, "aria-checked", String(value));
      say(note, feature.value === feature.default ? "" : `configured: ${feature.default ? "on" : "off"}`);
    },
  };
}

/** The knob moves when the process says so. */
async function flip(key, value, knob) {
  set(knob, "aria-busy", "true");
  try {
    await api.post("api/admin/feature-flags", { key, value });
    notice(`feature ${key}`, `${key} is ${value ? "on" : "off"}.`);
    await refresh();
  } catch (error) {
    failed(`feature ${key}`, `${key} was not changed`, error);
  } finally {
    set(knob, "aria-busy", null);
  }
}
