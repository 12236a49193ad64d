// Calls of the admin side.

import { learnClock } from "./clock.js";

/** How long an answer may take. */
const PATIENCE_MS = 10_000;

/** What went wrong, in words for the operator. */
export class CallError extends Error {
  constructor(status, detail, body = null) {
    super(detail);
    this.status = status;
    this.body = body;
  }
}

export const api = {
  get: path => call("GET", path),
  post: (path, body) => call("POST", path, body ?? {}),
  remove: path => call("DELETE", path),
};

async function call(method, path, body) {
  const asked = Date.now();
  let response, text;
  try {
    response = await fetch(path, {
      method,
      body: body === undefined ? undefined : JSON.stringify(body),
      headers: { "Flagstone-Dashboard": "1", ...(body !== undefined && { "Content-Type": "application/json" }) },
      cache: "no-store",
      credentials: "same-origin",
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    learnClock(response.headers.get("Date"), asked);
    text = await response.text();
  } catch {
    throw new CallError(0, "Flagstone does not answer");
  }
  const answer = parse(text);
  if (response.ok) return answer;
  throw new CallError(response.status, answer?.detail ?? `the answer was ${response.status}`, answer);
}

function parse(text) {
  try { return JSON.parse(text); } catch { return null; }
}
