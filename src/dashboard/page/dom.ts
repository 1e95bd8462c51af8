/** Elements from code. Texts become text nodes and nothing else, so that no text of a corpus is ever markup. */

export type Child = Node | string | number | undefined | null | false | Child[];
type Handler = (event: Event) => void;
/** Attributes; one that is undefined or false is left out, and a function listens to the event of its name. */
export type Props = Record<string, string | number | boolean | undefined | Handler>;

export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  props: Props = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  apply(element, props);
  add(element, children);
  return element;
}

const SVG = 'http://www.w3.org/2000/svg';

export function svg<K extends keyof SVGElementTagNameMap>(
  tag: K,
  props: Props = {},
  ...children: Child[]
): SVGElementTagNameMap[K] {
  const element = document.createElementNS(SVG, tag);
  apply(element, props);
  add(element, children);
  return element;
}

function apply(element: Element, props: Props): void {
  for (const [name, value] of Object.entries(props)) {
    if (typeof value === 'function') element.addEventListener(name, value);
    else if (value !== undefined && value !== false) element.setAttribute(name, value === true ? '' : String(value));
  }
}

function add(parent: Node, children: Child[]): void {
  for (const child of children) {
    if (Array.isArray(child)) add(parent, child);
    else if (child instanceof Node) parent.appendChild(child);
    else if (child !== undefined && child !== null && child !== false) {
      parent.appendChild(document.createTextNode(String(child)));
    }
  }
}

/** Puts `children` in the place of all that `parent` holds. */
export function fill(parent: Element, ...children: Child[]): void {
  parent.replaceChildren();
  add(parent, children);
}

/** Sets the text if it is another: what is not touched is not announced again, and keeps its selection. */
export function say(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** A choice of one, with its label in front. */
export function select(
  label: string,
  options: readonly (readonly [value: string, text: string])[],
  value: string,
  change: (value: string) => void,
): HTMLLabelElement {
  const element = h(
    'select',
    { change: () => change(element.value) },
    options.map(([id, text]) => h('option', { value: id, selected: id === value }, text)),
  );
  return h('label', { class: 'field' }, label, element);
}

export function tick(label: string, isOn: boolean, change: (isOn: boolean) => void): HTMLLabelElement {
  const element = h('input', { type: 'checkbox', checked: isOn, change: () => change(element.checked) });
  return h('label', { class: 'tick' }, element, label);
}

/** A table whose first column names the rows; other columns hold numbers when `numeric`. */
export function table(
  caption: string,
  head: readonly string[],
  rows: readonly (readonly Child[])[],
  { numeric = true, showCaption = false }: { numeric?: boolean; showCaption?: boolean } = {},
): HTMLDivElement {
  const body = rows.map((row) =>
    h(
      'tr',
      {},
      row.map((cell, i) => (i === 0 ? h('th', { scope: 'row' }, cell) : h('td', {}, cell))),
    ),
  );
  return h(
    'div',
    { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': caption },
    h(
      'table',
      { class: numeric ? 'numbers' : '' },
      h('caption', { class: showCaption ? '' : 'unseen' }, caption),
      h(
        'thead',
        {},
        h(
          'tr',
          {},
          head.map((text) => h('th', { scope: 'col' }, text)),
        ),
      ),
      h('tbody', {}, body),
    ),
  );
}

/** A part of a page under its own heading. */
export function section(title: string, ...children: Child[]): HTMLElement {
  return h('section', {}, h('h2', {}, title), ...children);
}

/** What stands where nothing is. */
export function nothing(text: string): HTMLParagraphElement {
  return h('p', { class: 'nothing' }, text);
}

/** A link when it leads to a web page, else the text of it: other schemes may run code. */
export function webLink(address: string, text = address): HTMLElement {
  const isWeb = /^https?:\/\//i.test(address);
  return isWeb ? h('a', { href: address, target: '_blank', rel: 'noopener noreferrer' }, text) : h('span', {}, text);
}
