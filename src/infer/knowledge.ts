/** Adding, editing and deleting knowledge: changes to the bank, no training. */

import { type Document, newCounters, readDocuments } from '../data/documents.ts';
import { cutReferences, type Reference } from '../data/references.ts';
import { UserError } from '../errors.ts';
import { sha256 } from '../io/files.ts';
import { Bank } from '../memory/bank.ts';
import { compileReferences } from '../memory/write.ts';
import type { Session } from './session.ts';

/** A text to be known. */
export interface Knowledge {
  text: string;
  title?: string;
  /** Id of the document; a hash of the text when left out. */
  document?: string;
}

/** A text given on the command line, as a document. */
function asDocument({ text, title, document }: Knowledge): Document {
  return { id: document ?? sha256(text).slice(0, 16), title, text, source: { path: '-', offset: 0 } };
}

/** The references that texts are cut into. @throws UserError input_empty when there are none */
export async function referencesOf(
  session: Session,
  documents: AsyncIterable<Document> | Iterable<Document>,
): Promise<Reference[]> {
  const references: Reference[] = [];
  async function* stream(): AsyncGenerator<Document> {
    yield* documents;
  }
  for await (const reference of cutReferences(stream(), session.tokenizer, session.config.memory.referenceTokens)) {
    references.push(reference);
  }
  if (references.length > 0) return references;
  throw new UserError('input_empty', {
    what: 'there is no text to add',
    action: 'give --text or a file with documents',
  });
}

/**
 * Writes texts into the bank with the session's model.
 * @returns the ids of the new memories
 */
export async function addKnowledge(session: Session, knowledge: Knowledge | { path: string }): Promise<string[]> {
  const documents = 'path' in knowledge ? documentsOf(knowledge.path) : [asDocument(knowledge)];
  return await changeBank(session, [], await referencesOf(session, documents));
}

/**
 * Replaces the memory `id` by what the new text says, in one version of the bank.
 * @returns the ids of the new memories
 * @throws UserError memory_unknown
 */
export async function editKnowledge(session: Session, id: string, text: string): Promise<string[]> {
  const { title, document } = await session.bank.get(id);
  return await changeBank(session, [id], await referencesOf(session, [asDocument({ text, title, document })]));
}

/** Removes memories. @throws UserError memory_unknown; nothing is removed then */
export async function deleteKnowledge(session: Session, ids: readonly string[]): Promise<void> {
  await changeBank(session, ids, []);
}

/** Goes back to an earlier version of the bank; later ones are dropped. */
export async function restoreBank(session: Session, version: number): Promise<void> {
  await Bank.openForWriting(session.folder.bank, { version });
  await session.openBank();
}

async function changeBank(session: Session, remove: readonly string[], add: readonly Reference[]): Promise<string[]> {
  const writer = await Bank.openForWriting(session.folder.bank);
  const memories = compileReferences(session.model, add, {
    prefix: session.tokenizer.referencePrefix,
    memory: session.config.memory,
    encoder: session.encoder,
  });
  await writer.edit(remove, memories, session.weightsHash);
  await session.openBank();
  return add.map(({ id }) => id);
}

async function* documentsOf(path: string): AsyncGenerator<Document> {
  const source = { path, format: 'auto', textField: 'text', idField: 'id', titleField: 'title' } as const;
  yield* readDocuments([source], newCounters());
}
