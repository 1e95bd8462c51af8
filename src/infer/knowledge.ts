/** Adding, editing and deleting knowledge: changes to the bank, no training. */

import { rm, stat } from 'node:fs/promises';
import { type SourceConfig, sourceSchema } from '../config/schema.ts';
import { type DataCounters, type Document, listSourceFiles, newCounters, readDocuments } from '../data/documents.ts';
import { cutReferences, inContext, type Reference } from '../data/references.ts';
import { UserError } from '../errors.ts';
import { linkFolder, sha256, temporaryName } from '../io/files.ts';
import { Bank } from '../memory/bank.ts';
import { readmit, withdraw } from '../memory/withdrawn.ts';
import { compileReferences } from '../memory/write.ts';
import type { Session } from './session.ts';

/** A text to be known. */
export interface Knowledge {
  text: string;
  title?: string;
  /** Id of the document; a hash of the text when left out. */
  document?: string;
}

export interface AddOptions {
  /** Counts documents of a file, and those that cannot be used. */
  counters?: DataCounters;
  /** Called after each batch: memories written, bytes of the file read so far and in all. */
  onProgress?: (progress: { memories: number; bytes: number; totalBytes: number }) => void;
}

/**
 * Writes texts into the bank with the session's model, in one version. A text longer than a reference becomes several
 * memories; a file is streamed.
 * @returns the ids of the new memories
 * @throws UserError input_missing, input_empty (no text), input_invalid (what is there already), disk_full; the bank
 * stays as it was then
 */
export async function addKnowledge(
  session: Session,
  knowledge: Knowledge | { path: string },
  { counters = newCounters(), onProgress }: AddOptions = {},
): Promise<string[]> {
  if (!('path' in knowledge)) return await changeBank(session, [], await referencesOf(session, knowledge));
  const source = sourceSchema.parse({ path: knowledge.path });
  const totalBytes = await sizeOf(source);
  let bytes = 0;
  async function* documents(): AsyncGenerator<Document> {
    for await (const document of readDocuments([source], counters, { uniqueIds: true })) {
      bytes = counters.bytes;
      yield document;
    }
  }
  const references = cutReferences(documents(), session.tokenizer, session.config.memory.referenceTokens);
  const ids = await changeBank(session, [], references, (memories) => onProgress?.({ memories, bytes, totalBytes }));
  if (ids.length === 0) throw nothingToAdd(knowledge.path);
  return ids;
}

/**
 * Replaces the memory `id` by what the new text says, in one version of the bank.
 * @returns the ids of the new memories
 * @throws UserError memory_unknown, input_empty; the bank stays as it was then
 */
export async function editKnowledge(session: Session, id: string, text: string): Promise<string[]> {
  const { title, document } = await session.bank.get(id);
  const references = await referencesOf(session, { text, title, document });
  return await changeBank(session, [id], references.map(editedReference));
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

/** The references that one text is cut into. @throws UserError input_empty */
async function referencesOf(session: Session, { text, title, document }: Knowledge): Promise<Reference[]> {
  const id = document ?? sha256(text).slice(0, 16);
  async function* one(): AsyncGenerator<Document> {
    if (text.trim() !== '') yield { id, title, text, source: { path: '-', offset: 0 } };
  }
  const references: Reference[] = [];
  for await (const reference of cutReferences(one(), session.tokenizer, session.config.memory.referenceTokens)) {
    references.push(reference);
  }
  if (references.length === 0) throw nothingToAdd();
  return references;
}

function nothingToAdd(where?: string): UserError {
  const action = 'give --text or a file with documents';
  return new UserError('input_empty', { where, what: 'there is no text to add', action });
}

/** Named by what it says: the span that names other references may be that of another one of the same document. */
function editedReference(reference: Reference): Reference {
  const { document, span, text } = reference;
  return { ...reference, id: sha256(`${document}\0${span.join(':')}\0${text}`).slice(0, 16) };
}

async function changeBank(
  session: Session,
  remove: readonly string[],
  add: AsyncIterable<Reference> | Iterable<Reference>,
  onProgress?: (done: number) => void,
): Promise<string[]> {
  // A change builds on the version that the session reads; a killed run may have left later ones of other weights.
  const writer = await Bank.openForWriting(session.bank.folder, { version: session.bank.version });
  const ids: string[] = [];
  async function* named(): AsyncGenerator<Reference> {
    for await (const reference of add) {
      ids.push(reference.id);
      yield reference;
    }
  }
  const memories = compileReferences(session.model, inContext(named(), session.config.memory.contextTokens), {
    prefix: session.tokenizer.referencePrefix,
    memory: session.config.memory,
    encoder: session.encoder,
    onProgress,
  });
  await withdraw(writer, remove);
  await writer.edit(remove, memories, session.weightsHash);
  await readmit(writer.folder, ids);
  await session.openBank();
  return ids;
}

async function sizeOf(source: SourceConfig): Promise<number> {
  let bytes = 0;
  for (const { path } of await listSourceFiles([source], undefined, { strict: true })) bytes += (await stat(path)).size;
  return bytes;
}
