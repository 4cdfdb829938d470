// Small helpers to make elements. Styles go through the CSSOM and classes: the
// page's policy allows no style attributes.

type Child = Node | string | number | null | undefined | false;
type Attributes = Record<string, string | number | boolean | null | undefined | ((event: any) => void)>;

export function h<K extends keyof HTMLElementTagNameMap>(tag: K, attributes: Attributes = {}, ...children: Child[]): HTMLElementTagNameMap[K] {
  return fill(document.createElement(tag), attributes, children);
}

export function svg<K extends keyof SVGElementTagNameMap>(tag: K, attributes: Attributes = {}, ...children: Child[]): SVGElementTagNameMap[K] {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill<E extends Element>(element: E, attributes: Attributes, children: Child[]): E {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...present(children));
  return element;
}

function present(children: Child[]): (Node | string)[] {
  return children.filter((c) => c !== null && c !== undefined && c !== false).map((c) => (c instanceof Node ? c : String(c)));
}

/** Puts children in place of all that is in element. */
export function refill(element: Element, ...children: Child[]): void {
  element.replaceChildren(...present(children));
}

/** Sets text only where it differs, so that nothing is laid out anew for nothing. */
export function say(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

let numbered = 0;

/** An id that no other element has. */
export function fresh(prefix: string): string {
  return `${prefix}-${++numbered}`;
}

/** Radio buttons that look like one control. */
export function choice(legend: string, options: { value: string; label: string; title?: string }[], chosen: string, onChange: (value: string) => void): HTMLFieldSetElement {
  const name = fresh("choice");
  return h("fieldset", { class: "choice" }, h("legend", { class: "hidden" }, legend),
    ...options.map(({ value, label, title }) =>
      h("label", { title }, h("input", { type: "radio", name, value, checked: value === chosen, change: () => onChange(value) }), h("span", {}, label))));
}
