/** What the readers of markup (HTML, reStructuredText, man, POD) make of a file: plain paragraphs. */

export interface Page {
  title: string;
  /** Headings and paragraphs with an empty line between, items of a list one a line. */
  text: string;
}

interface Block {
  kind: 'heading' | 'paragraph' | 'item';
  text: string;
}

/** Collects the headings and paragraphs of a page. */
export class PageBuilder {
  readonly #blocks: Block[] = [];

  /** Text may have line breaks and runs of blanks; empty text is left out. */
  add(kind: Block['kind'], text: string): void {
    const flowing = flowingText(text);
    if (flowing !== '') this.#blocks.push({ kind, text: kind === 'item' ? `- ${flowing}` : flowing });
  }

  /**
   * The page; undefined when it has no sentence besides headings.
   * @param title the first heading when left out; given, it is put in front of the text
   */
  page(title?: string): Page | undefined {
    const blocks = this.#blocks;
    const heading = title ?? blocks.find(({ kind }) => kind === 'heading')?.text ?? '';
    if (blocks.every(({ kind }) => kind === 'heading')) return undefined;
    if (title !== undefined && blocks[0]?.text !== title) blocks.unshift({ kind: 'heading', text: title });
    const text = blocks.map((block, i) => {
      const isNextItem = block.kind === 'item' && blocks[i - 1]?.kind === 'item';
      return `${i === 0 ? '' : isNextItem ? '\n' : '\n\n'}${block.text}`;
    });
    return { title: heading, text: text.join('') };
  }
}

const HAN = '[\\p{Script=Han}\\u3000-\\u303f\\uff00-\\uffef]';
const BREAK_IN_HAN = new RegExp(`(?<=${HAN})\\s*\\n\\s*(?=${HAN})`, 'gu');

/** One line: a line break is a blank, and nothing between two Chinese characters. */
export function flowingText(text: string): string {
  return text.replace(BREAK_IN_HAN, '').replace(/\s+/g, ' ').trim();
}

/** Share of the letters that are Chinese. */
export function chineseShare(text: string): number {
  const letters = text.match(/\p{L}/gu)?.length ?? 0;
  const chinese = text.match(/\p{Script=Han}/gu)?.length ?? 0;
  return letters === 0 ? 0 : chinese / letters;
}
