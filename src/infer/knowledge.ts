/** Adding, editing and deleting knowledge: changes to the bank, no training. */

import { rm } from 'node:fs/promises';
import { type Document, newCounters, readDocuments } from '../data/documents.ts';
import { cutReferences, type Reference } from '../data/references.ts';
import { UserError } from '../errors.ts';
import { linkFolder, sha256, temporaryName } from '../io/files.ts';
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
  const references = await referencesOf(session, [asDocument({ text, title, document })]);
  return await changeBank(session, [id], references.map(editedReference));
}

/** Named by what it says: the span that names other references may be that of another one of the same document. */
function editedReference(reference: Reference): Reference {
  const { document, span, text } = reference;
  return { ...reference, id: sha256(`${document}\0${span.join(':')}\0${text}`).slice(0, 16) };
}

/** Removes memories. @throws UserError memory_unknown; nothing is removed then */
export async function deleteKnowledge(session: Session, ids: readonly string[]): Promise<void> {
  await changeBank(session, ids, []);
}

/**
 * Lets `work` change a copy of the bank, so that the bank of the run stays as it is, whatever happens meanwhile. The copy
 * shares the files, which never change, and lies where the next process that uses the run removes it if this one is killed.
 */
export async function withBankCopy(session: Session, work: () => Promise<void>): Promise<void> {
  const { bank } = session.folder;
  const copy = temporaryName(bank);
  try {
    await linkFolder(bank, copy);
    await session.openBank(copy);
    await work();
  } finally {
    await session.openBank(bank);
    await rm(copy, { recursive: true, force: true });
  }
}

async function changeBank(session: Session, remove: readonly string[], add: readonly Reference[]): Promise<string[]> {
  // A change builds on the version that the session reads; a killed run may have left later ones of other weights.
  const writer = await Bank.openForWriting(session.bank.folder, { version: session.bank.version });
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
