// Dialogs: opening, submitting once at a time, and telling what went wrong inside them.

import { byId, say, set } from "./dom.js";

/**
 * Wires a `<dialog>` with a form. `submit(form)` does the work; when it returns, the dialog closes, unless it returned
 * `false`; when it throws, the dialog stays and says why.
 */
export function wire(id, submit) {
  const dialog = byId(id);
  const form = dialog.querySelector("form");
  const error = form.querySelector(".error");
  for (const button of form.querySelectorAll("[data-close]")) button.addEventListener("click", () => dialog.close());
  form.addEventListener("submit", async event => {
    event.preventDefault();
    if (dialog.hasAttribute("aria-busy")) return;
    say(error, "");
    set(dialog, "aria-busy", "true");
    try {
      if (await submit(form) !== false) dialog.close();
    } catch (failure) {
      say(error, failure.message);
    } finally {
      set(dialog, "aria-busy", null);
    }
  });
  return {
    form,
    open() {
      say(error, "");
      dialog.showModal();
    },
  };
}

let confirmed = () => {};
const confirmDialog = wire("confirm", () => confirmed());

/** Asks before doing something that hurts. */
export function confirm({ title, text, button, tone = "bad" }, action) {
  say(byId("confirm-title"), title);
  say(byId("confirm-text"), text);
  const go = byId("confirm-go");
  say(go, button);
  go.className = `primary ${tone}`;
  confirmed = action;
  confirmDialog.open();
}

/** How long something is to hold, for a `<select>`: seconds and words. */
export const PERIODS = [["300", "5 minutes"], ["900", "15 minutes"], ["3600", "1 hour"], ["14400", "4 hours"], ["86400", "1 day"]];
