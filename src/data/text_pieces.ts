/** Long texts in pieces that tokenize as the whole does. */

const isVisible = (character: string | undefined) => character !== undefined && character.trim() !== '';

/**
 * Cuts `text` into pieces of at most `maxLength` code units (at least 2), where possible between a word and the single
 * space or line feed that separates it from the next: byte-level word patterns always cut there. Never inside a
 * surrogate pair.
 */
export function* textPieces(text: string, maxLength: number): Generator<string> {
  for (let start = 0; start < text.length; ) {
    const end = pieceEnd(text, start, maxLength);
    yield text.slice(start, end);
    start = end;
  }
}

function pieceEnd(text: string, start: number, maxLength: number): number {
  const limit = start + maxLength;
  if (limit >= text.length) return text.length;
  for (let at = limit - 1; at > start + maxLength / 2; at--) {
    if (!isVisible(text[at - 1]) || !isVisible(text[at + 1])) continue;
    if (text[at] === ' ') return at;
    if (text[at] === '\n') return at + 1;
  }
  const splitsPair = (text.charCodeAt(limit) & 0xfc00) === 0xdc00 && (text.charCodeAt(limit - 1) & 0xfc00) === 0xd800;
  return splitsPair ? limit - 1 : limit;
}
