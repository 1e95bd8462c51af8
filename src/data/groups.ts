/** Documents in groups, so that a tokenizer call has enough to do and memory stays bounded. */

import type { Document } from './documents.ts';

const GROUP_DOCUMENTS = 4096;
const GROUP_CHARACTERS = 2 ** 17;

/** Groups of up to 4,096 documents and about 131,000 characters (more only for a single longer document). */
export async function* inGroups(documents: AsyncIterable<Document>): AsyncGenerator<Document[]> {
  let group: Document[] = [];
  let characters = 0;
  for await (const document of documents) {
    group.push(document);
    characters += document.text.length;
    if (group.length < GROUP_DOCUMENTS && characters < GROUP_CHARACTERS) continue;
    yield group;
    group = [];
    characters = 0;
  }
  if (group.length > 0) yield group;
}
