/** The text of single tokens. */

import { Tokenizer } from '../data/tokenizer.ts';
import { damaged } from './refused.ts';
import { withFile } from './run_file.ts';

const LARGEST_TOKENIZER = 128 * 2 ** 20;

let last: { name: string; tokenizer: Tokenizer } | undefined;

/**
 * The text of `tokens`, a token a piece; joined they are the whole. Tokens are bytes: a character of several tokens stands in
 * the piece of the last, and a space that a tokenizer puts between words with the word that it belongs to.
 * @throws UserError, Refused when there is no tokenizer
 */
export async function piecesOf(path: string, within: string, tokens: readonly number[]): Promise<string[]> {
  const tokenizer = await tokenizerAt(path, within);
  const pieces: string[] = [];
  let told = 0;
  for (let count = 1; count <= tokens.length; count++) {
    const text = await tokenizer.decode(tokens.slice(0, count));
    const whole = count === tokens.length ? text : text.replace(/\uFFFD+$/, '');
    pieces.push(whole.slice(told));
    told = Math.max(told, whole.length);
  }
  return pieces;
}

async function tokenizerAt(path: string, within: string): Promise<Tokenizer> {
  const name = withFile(path, within, (file) => {
    if (file.size > LARGEST_TOKENIZER) throw damaged('tokenizer.json is too large');
    return `${path} ${file.size} ${file.mtimeMs}`;
  });
  if (name === undefined) throw damaged('the run has no tokenizer.json');
  if (last?.name !== name) last = { name, tokenizer: await Tokenizer.load(path) };
  return last.tokenizer;
}
