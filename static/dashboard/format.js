// Numbers and times as people read them, in the reader's own zone.

import { now } from "./clock.js";

const LOCALE = "en-GB";
const whole = new Intl.NumberFormat(LOCALE, { maximumFractionDigits: 0 });

export const count = number => whole.format(number);

/** `0.42`, `7.3`, `1,204` */
export function rate(number) {
  if (number === 0) return "0";
  if (number < 1) return number.toFixed(2);
  return number < 10 ? number.toFixed(1) : whole.format(number);
}

/** Milliseconds: `0.42 ms`, `17 ms`, `2.4 s` */
export function millis(number) {
  if (number === null || number === undefined) return "–";
  if (number >= 1000) return `${(number / 1000).toFixed(number < 10000 ? 1 : 0)} s`;
  if (number >= 10) return `${Math.round(number)} ms`;
  return number >= 1 ? `${number.toFixed(1)} ms` : `${number.toFixed(2)} ms`;
}

/** A share from 0 to 1: `0 %`, `<0.01 %`, `0.4 %`, `12 %` */
export function percent(share) {
  const number = share * 100;
  if (number === 0) return "0 %";
  if (number < 0.01) return "<0.01 %";
  return `${number < 1 ? number.toFixed(2) : number < 10 ? number.toFixed(1) : Math.round(number)} %`;
}

/** `45 s`, `12 min`, `3 h 20 min`, `4 days` */
export function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  const minutes = Math.round(s / 60);
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 24 * 60) return minutes % 60 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min` : `${minutes / 60} h`;
  const days = Math.round(minutes / (24 * 60));
  return days === 1 ? "1 day" : `${days} days`;
}

/** `in 34 min`, `5 min ago` */
export function relative(time) {
  const seconds = (Date.parse(time) - now()) / 1000;
  return seconds >= 0 ? `in ${span(seconds)}` : `${span(-seconds)} ago`;
}

const clock = new Intl.DateTimeFormat(LOCALE, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const shortClock = new Intl.DateTimeFormat(LOCALE, { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat(LOCALE, { weekday: "short", day: "numeric", month: "short" });
const shortDay = new Intl.DateTimeFormat(LOCALE, { day: "numeric", month: "short" });
const date = new Intl.DateTimeFormat(LOCALE, { day: "numeric", month: "short", year: "numeric" });

/** `14:03:22` */
export const clockOf = time => clock.format(new Date(time));

const isToday = at => at.toDateString() === new Date(now()).toDateString();

/** `14:03` today, else `Sun 29 Nov, 03:00` */
export function moment(time) {
  const at = new Date(time);
  return isToday(at) ? shortClock.format(at) : `${day.format(at)}, ${shortClock.format(at)}`;
}

/** `14:03:22` today, else `29 Nov, 03:00:07` */
export function stamp(time) {
  const at = new Date(time);
  return isToday(at) ? clock.format(at) : `${shortDay.format(at)}, ${clock.format(at)}`;
}

/** `15 Dec 2026` */
export const dateOf = time => date.format(new Date(time));

export function bytes(number) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let value = number, unit = 0;
  while (value >= 1024 && unit < units.length - 1) { value /= 1024; unit++; }
  return `${unit && value < 10 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

/** `1 request`, `12 requests` */
export const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
