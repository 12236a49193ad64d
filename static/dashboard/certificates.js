// Certificates and how long they hold.

import { byId, each, element, say, set } from "./dom.js";
import { count, dateOf } from "./format.js";
import { on } from "./state.js";

export function start() {
  on(["status"], ({ status: { certificates } }) => {
    byId("no-certificates").hidden = certificates.length > 0;
    byId("certificate-rows").closest(".scroll").hidden = certificates.length === 0;
    const soonest = [...certificates].sort((a, b) => a.daysLeft - b.daysLeft);
    each(byId("certificate-rows"), soonest, one => `${one.domain} ${one.issuer} ${one.notAfter}`, row);
  });
}

function row({ domain, names, issuer, notAfter }) {
  const days = element("td", { class: "number" });
  const others = names.length > 1 ? element("small", {}, `and ${names.slice(1).join(", ")}`) : null;
  return {
    root: element("tr", {}, element("th", { scope: "row", class: "stack break" }, element("span", {}, domain), others), element("td", { class: "wide break" }, issuer),
      element("td", {}, dateOf(notAfter)), days),
    update({ daysLeft, status }) {
      say(days, status === "OK" ? count(daysLeft) : `${count(daysLeft)} ${status.toLowerCase()}`);
      set(days, "data-tone", status === "OK" ? null : status === "EXPIRING" ? "warn" : "bad");
    },
  };
}
