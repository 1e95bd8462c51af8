/** Long texts in pieces that tokenize as the whole does. */

// JavaScript's own idea of white space (`trim`, `\s`) is not Unicode's.
const WHITE_SPACE = /\p{White_Space}/u;
const LETTER = /\p{L}/u;
// An apostrophe may begin a contraction, which some word patterns count to the word before it.
const PUNCTUATION = /(?!['’])\p{P}/u;

/**
 * Cuts `text` into pieces of at most `maxLength` code units (at least 2), where possible at a place where all byte-level word
 * patterns begin a word (those of GPT-2, GPT-4, Llama 3, Qwen): the last such place in the second half of the first `wanted`
 * code units, else the first one after them. Only a text without any such place in the rest of `maxLength` is cut elsewhere,
 * then never inside a surrogate pair.
 */
export function* textPieces(text: string, maxLength: number, wanted = maxLength): Generator<string> {
  for (let start = 0; start < text.length; ) {
    const end = pieceEnd(text, start, maxLength, Math.min(wanted, maxLength));
    yield text.slice(start, end);
    start = end;
  }
}

function pieceEnd(text: string, start: number, maxLength: number, wanted: number): number {
  if (start + wanted >= text.length) return text.length;
  for (let at = start + wanted; at > start + wanted / 2; at--) if (beginsWord(text, at)) return at;
  const limit = Math.min(start + maxLength, text.length);
  for (let at = start + wanted + 1; at <= limit; at++) if (beginsWord(text, at)) return at;
  const splitsPair = (text.charCodeAt(limit) & 0xfc00) === 0xdc00 && (text.charCodeAt(limit - 1) & 0xfc00) === 0xd800;
  return splitsPair ? limit - 1 : limit;
}

/** True where a cut before `at` is surely one between words, whatever follows or goes before. */
function beginsWord(text: string, at: number): boolean {
  const [before, here] = [text[at - 1], text[at]];
  if (before === undefined || here === undefined) return false;
  // A single space between two words belongs to the second, a single line feed to neither or to the first.
  if (here === ' ') return isVisible(before) && isVisible(text[at + 1]);
  if (before === '\n') return isVisible(text[at - 2]) && isVisible(here);
  return PUNCTUATION.test(here) && LETTER.test(before);
}

const isVisible = (character: string | undefined): boolean => character !== undefined && !WHITE_SPACE.test(character);
