// Making and updating elements. Data becomes text nodes and attributes, never markup.

export const byId = id => document.getElementById(id);

/** `element("button", { type: "button", onclick: … }, "Reset")`; `true` is an empty attribute, `false` and `null` none. */
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else set(node, name, value);
  }
  node.append(...children.filter(child => child !== null && child !== undefined));
  return node;
}

/** Sets an attribute when it differs: an unchanged one wakes no screen reader and no style. */
export function set(node, name, value) {
  const wanted = value === true ? "" : value;
  if (wanted === false || wanted === null || wanted === undefined) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(wanted)) node.setAttribute(name, wanted);
}

/** Sets the text when it differs, so that a selection in it survives. */
export function say(node, text) {
  const wanted = String(text ?? "");
  if (node.textContent !== wanted) node.textContent = wanted;
}

const parts = new WeakMap();

/**
 * Gives `parent` one child for each item, in their order. `create(item)` makes `{ root, update(item) }`; it is kept for
 * as long as an item with that key is there, so that focus, selection and open details survive.
 */
export function each(parent, items, keyOf, create) {
  const known = parts.get(parent) ?? new Map();
  const next = new Map();
  for (const item of items) {
    const key = keyOf(item);
    const part = known.get(key) ?? create(item);
    part.update?.(item);
    next.set(key, part);
  }
  for (const [key, part] of known) if (!next.has(key)) part.root.remove();
  let cursor = parent.firstElementChild;
  for (const { root } of next.values()) {
    if (root === cursor) cursor = cursor.nextElementSibling;
    else parent.insertBefore(root, cursor);
  }
  parts.set(parent, next);
}

/** Rows of a `dl`: `[["Generation", "7"], …]`; an empty value leaves its row out. */
export function facts(list, rows) {
  const shown = rows.filter(([, value]) => value !== null && value !== undefined && value !== "");
  each(list, shown, ([term]) => term, ([term]) => {
    const value = element("dd");
    const root = element("div", {}, element("dt", {}, term), value);
    return { root, update: ([, text, tone]) => { say(value, text); set(value, "data-tone", tone); } };
  });
}

/** `<option>`s from `[[value, text], …]`. */
export function options(select, choices) {
  select.replaceChildren(...choices.map(([value, text]) => element("option", { value }, text)));
}
