// What is known, and who wants to know: panels subscribe, whoever learns something says so.

export const state = {
  /** `/api/status` */
  status: null,
  /** `/api/health` */
  health: null,
  /** `/api/metrics`, and every second the tick of the event stream. */
  figures: null,
  /** Entries of the block list. */
  blocked: null,
  /** The latest refused and failed requests. */
  refused: null,
};

const listeners = [];

/** `listener` is called with the state whenever one of `keys` is new. */
export function on(keys, listener) {
  listeners.push({ keys, listener });
}

export function learn(news) {
  Object.assign(state, news);
  for (const { keys, listener } of listeners) {
    if (keys.some(key => key in news) && keys.every(key => state[key] !== null)) listener(state);
  }
}
