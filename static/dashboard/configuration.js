// The configuration that serves, the last reload and what was wrong with it, and the process.

import { api } from "./api.js";
import { byId, each, element, facts, say, set } from "./dom.js";
import { bytes, moment, plural, relative, span, stamp } from "./format.js";
import { failed, notice } from "./notices.js";
import { refresh } from "./poll.js";
import { on } from "./state.js";

export function start() {
  byId("reload").addEventListener("click", reload);
  on(["status", "figures"], ({ status: { config, process }, figures }) => {
    const last = config.lastReload;
    facts(byId("configuration-facts"), [
      ["Generation", config.generation],
      ["Source", config.source ?? "the command line"],
      ["Loaded", `${moment(config.loadedAt)}, ${relative(config.loadedAt)}`],
      ["Last reload", last && `${last.success ? "accepted" : "refused"} at ${stamp(last.time)}`, last && !last.success ? "bad" : null],
      ["Process", `${process.version}, pid ${process.pid}, ${plural(process.workers, "worker")}`],
      ["Up for", span(process.uptimeSeconds)],
      ["Memory", figures.server?.residentBytes ? bytes(figures.server.residentBytes) : null],
    ]);
    problems(last?.errors ?? []);
  });
}

function problems(errors) {
  each(byId("reload-problems"), errors, error => JSON.stringify(error), error => {
    const place = [error.file, error.line].filter(Boolean).join(":");
    const text = element("p", {}, error.path ? element("code", {}, error.path) : null, error.path ? ": " : null, error.message);
    return { root: element("li", {}, element("small", { class: "mono" }, place), text, error.help ? element("p", { class: "quiet" }, error.help) : null) };
  });
}

async function reload() {
  const button = byId("reload");
  if (button.hasAttribute("aria-busy")) return;
  set(button, "aria-busy", "true");
  say(button, "Reloading…");
  try {
    const { generation, changes } = await api.post("api/admin/reload");
    notice("reload", `Generation ${generation} serves: ${changes.join(", ") || "nothing changed"}.`);
  } catch (error) {
    failed("reload", error.status === 422 ? "The configuration was refused" : "Nothing was reloaded", error);
  } finally {
    set(button, "aria-busy", null);
    say(button, "Reload");
    refresh();
  }
}
