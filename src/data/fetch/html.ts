/** Pages of HTML as paragraphs: without navigation, programs and listings. */

import { parseDocument } from 'htmlparser2';
import { flowingText, type Page, PageBuilder } from './page.ts';

type Node = ReturnType<typeof parseDocument>['children'][number];
type Element = Extract<Node, { attribs: object }>;

export interface HtmlLayout {
  /** Id or class of the element that holds the text; the whole document when left out. */
  content?: string;
  /** Ids and classes of elements that are left out with all that is in them. */
  without?: readonly string[];
  /** The title is the one of the document's head, and is put in front of the text. */
  titleOfHead?: boolean;
}

const DROPPED = new Set(
  'head script style noscript template nav header footer aside form select button textarea iframe svg math pre'.split(
    ' ',
  ),
);
const BLOCKS = new Set(
  'address article blockquote body caption center dd details div dl dt fieldset figcaption figure hr html legend li main ol p section summary table tbody td tfoot th thead tr ul'.split(
    ' ',
  ),
);

/** @returns undefined when the page has no text, or not the element that should hold it */
export function htmlPage(html: string, layout: HtmlLayout = {}): Page | undefined {
  const document = parseDocument(html);
  const { content, titleOfHead = false } = layout;
  const top = content === undefined ? document.children : elementNamed(document.children, content)?.children;
  if (!top) return undefined;
  const title = titleOfHead ? flowingText(textOf(firstElement(document.children, isTitle)?.children ?? [])) : '';
  const reader = new HtmlReader(layout.without ?? []);
  reader.read(top);
  return reader.builder.page(title === '' ? undefined : title);
}

class HtmlReader {
  readonly builder = new PageBuilder();
  readonly #without: readonly string[];
  /** Text since the last paragraph that ended. */
  #open = '';
  /** The next paragraph is the first of an item of a list. */
  #isItem = false;

  constructor(without: readonly string[]) {
    this.#without = without;
  }

  read(nodes: readonly Node[]): void {
    this.#walk(nodes);
    this.#end();
  }

  #walk(nodes: readonly Node[]): void {
    for (const node of nodes) {
      if (node.type === 'text') this.#open += node.data;
      else if (isElement(node)) {
        if (!this.#isDropped(node)) this.#element(node);
        else if (BLOCKS.has(node.name) || node.name === 'pre') this.#end();
      }
    }
  }

  #isDropped(element: Element): boolean {
    return DROPPED.has(element.name) || namesOf(element).some((name) => this.#without.includes(name));
  }

  #element(element: Element): void {
    const { name, children } = element;
    if (name === 'br') this.#open += '\n';
    else if (/^h[1-6]$/.test(name)) {
      this.#end();
      // The number of a section says nothing outside its book.
      this.builder.add('heading', this.#line(children).replace(/^(\d+\.)+\s+/, ''));
    } else if (name === 'tr' && !children.some((cell) => isElement(cell) && hasParts(cell))) this.#row(children);
    else if (BLOCKS.has(name)) {
      this.#end();
      if (name === 'li') this.#isItem = true;
      this.#walk(children);
      this.#end();
      this.#isItem = false;
    } else this.#walk(children);
  }

  /** A row of a table is one line. */
  #row(cells: readonly Node[]): void {
    this.#end();
    const texts = cells.filter(isElement).map(({ children }) => this.#line(inlined(children)));
    const [first = '', ...rest] = texts.filter((text) => text !== '');
    const isPair = rest.length === 1;
    this.builder.add('paragraph', [isPair ? `${first.replace(/:$/, '')}:` : first, ...rest].join(isPair ? ' ' : ', '));
  }

  /** The text of nodes, as one line of its own. */
  #line(nodes: readonly Node[]): string {
    this.#walk(nodes);
    const text = flowingText(this.#open);
    this.#open = '';
    return text;
  }

  /** Ends the open paragraph. */
  #end(): void {
    if (this.#open.trim() !== '') {
      this.builder.add(this.#isItem ? 'item' : 'paragraph', this.#open);
      this.#isItem = false;
    }
    this.#open = '';
  }
}

/** True when a cell holds more than paragraphs: a list, a table. */
function hasParts(element: Element): boolean {
  return firstElement(element.children, ({ name }) => BLOCKS.has(name) && name !== 'p') !== undefined;
}

/** The children with what is in paragraphs instead of the paragraphs. */
function inlined(nodes: readonly Node[]): Node[] {
  return nodes.flatMap((node) => (isElement(node) && node.name === 'p' ? inlined(node.children) : [node]));
}

function isElement(node: Node): node is Element {
  return 'attribs' in node;
}

function isTitle(element: Element): boolean {
  return element.name === 'title';
}

function namesOf({ attribs }: Element): string[] {
  return [attribs.id ?? '', ...(attribs.class ?? '').split(/\s+/)].filter((name) => name !== '');
}

function elementNamed(nodes: readonly Node[], name: string): Element | undefined {
  return firstElement(nodes, (element) => namesOf(element).includes(name));
}

function firstElement(nodes: readonly Node[], fits: (element: Element) => boolean): Element | undefined {
  for (const node of nodes) {
    if (!isElement(node)) continue;
    const found = fits(node) ? node : firstElement(node.children, fits);
    if (found) return found;
  }
  return undefined;
}

function textOf(nodes: readonly Node[]): string {
  return nodes
    .map((node) => (node.type === 'text' ? node.data : isElement(node) ? textOf(node.children) : ''))
    .join('');
}
