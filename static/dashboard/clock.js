// The server's clock: all times that it tells are by that, and the reader's may be off by minutes.

/** `Date` tells whole seconds, and answers are on their way for a while: less than this is no difference. */
const DOUBT_MS = 2_000;

let ahead = 0;

/** Learns from the `Date` of an answer to what was `asked` at that time of the reader's clock. */
export function learnClock(date, asked) {
  const told = Date.parse(date), answered = Date.now();
  if (Number.isNaN(told)) return;
  const difference = told + 500 - (asked + answered) / 2;
  ahead = Math.abs(difference) > DOUBT_MS + (answered - asked) / 2 ? difference : 0;
}

/** As `Date.now()`. */
export const now = () => Date.now() + ahead;
