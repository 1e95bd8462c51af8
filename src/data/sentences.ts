/** Places where a text may be cut. Spans are [start, end) in code units of the text, without white space at their ends. */

export interface Span {
  start: number;
  end: number;
}

/** A full stop and its kin (with closing quotes) before white space, their CJK forms anywhere, or an empty line. */
const SENTENCE_END = /[.!?…]+["'”’)\]]*(?=\s|$)|[。！？]+["”’」』）]*|\n\s*\n/gu;

/** The sentences of `text` in order; together they hold everything visible. */
export function sentences(text: string): Span[] {
  const spans: Span[] = [];
  let start = 0;
  const add = (end: number) => {
    const span = trimSpan(text, { start, end });
    if (span.end > span.start) spans.push(span);
    start = end;
  };
  for (const match of text.matchAll(SENTENCE_END)) add(match.index + match[0].length);
  add(text.length);
  return spans;
}

/** Moves both ends past white space; an invisible span becomes empty. */
export function trimSpan(text: string, { start, end }: Span): Span {
  const visible = text.slice(start, end);
  const from = start + visible.length - visible.trimStart().length;
  return { start: from, end: Math.max(from, start + visible.trimEnd().length) };
}

/**
 * Cuts a span in two near its middle: at a line end, else at white space in its middle half, else between two characters.
 * @returns undefined for a single character, which cannot be cut
 */
export function halve(text: string, { start, end }: Span): [Span, Span] | undefined {
  const inner = text.slice(start, end);
  const cut = start + (nearestToMiddle(inner, '\n') ?? nearestToMiddle(inner, ' ') ?? middle(inner));
  if (cut <= start || cut >= end) return undefined;
  return [trimSpan(text, { start, end: cut }), trimSpan(text, { start: cut, end })];
}

function nearestToMiddle(text: string, separator: string): number | undefined {
  const center = text.length >> 1;
  const found = [text.lastIndexOf(separator, center), text.indexOf(separator, center)];
  const near = found.filter((at) => at > 0 && Math.abs(at - center) <= text.length / 4);
  return near.sort((a, b) => Math.abs(a - center) - Math.abs(b - center))[0];
}

function middle(text: string): number {
  const center = text.length >> 1;
  const splitsPair = (text.charCodeAt(center) & 0xfc00) === 0xdc00;
  return splitsPair ? center + 1 : center;
}
