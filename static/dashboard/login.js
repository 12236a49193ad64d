// Logging in with the token. The admin side answers with a cookie that no script can read.

import { api } from "./api.js";
import { byId, say } from "./dom.js";

export function start(whenIn) {
  const form = byId("login"), field = byId("token"), error = byId("login-error");
  form.addEventListener("submit", async event => {
    event.preventDefault();
    say(error, "");
    try {
      await api.post("api/login", { token: field.value });
      form.reset();
      whenIn();
    } catch (failure) {
      say(error, failure.status === 401 ? "This is not the token." : failure.message);
      field.select();
    }
  });
}

/** Where there is a token, there is something to log out of. */
export async function offerLogout() {
  const button = byId("logout");
  const { config } = await api.get("api/config").catch(() => ({}));
  button.hidden = !config?.admin?.token;
  button.onclick = async () => {
    await api.post("api/logout").catch(() => {});
    location.reload();
  };
}

export function show(isShown) {
  const wasHidden = byId("login").hidden;
  byId("login").hidden = !isShown;
  byId("panels").hidden = isShown;
  byId("sections").hidden = isShown;
  byId("health").hidden = isShown;
  if (isShown) byId("logout").hidden = true;
  if (isShown && wasHidden) byId("token").focus();
  // The field goes away, and the focus must not be lost with it.
  if (!isShown && !wasHidden) byId("main").focus();
}
