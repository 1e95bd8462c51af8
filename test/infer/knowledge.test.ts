import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { addKnowledge, deleteKnowledge, editKnowledge, withBankCopy } from '../../src/infer/knowledge.ts';
import { Session } from '../../src/infer/session.ts';
import { userErrorOf } from '../data/support.ts';
import { filesOf } from '../memory/fixtures.ts';
import { randomRun, writeBank } from './random_run.ts';

let session: Session;
beforeEach(async () => {
  const run = await randomRun();
  await writeBank(run);
  run.model.dispose();
  session = await Session.open(run.config, run.folder);
});
afterEach(() => session.close());

const textOf = async (id: string): Promise<string> => (await session.bank.get(id)).text;

describe('the bank of a session', () => {
  it('holds what is added, is found at once, and knows who wrote it', async () => {
    const [id = ''] = await addKnowledge(session, { text: 'Quva has color rulo.', title: 'Quva' });
    expect(await session.bank.get(id)).toMatchObject({ text: 'Quva has color rulo.', title: 'Quva' });
    expect(session.bank.writer(id)).toBe(session.weightsHash);
    const [found = []] = await session.retriever.search([await session.tokenizer.encode('Quva has color')], 1);
    expect(found[0]!.id).toBe(id);
    expect((await userErrorOf(addKnowledge(session, { text: 'Quva has color rulo.' }))).code).toBe('input_invalid');
  });

  it('takes files, and names those that it cannot use', async () => {
    const path = join(session.folder.root, 'more.jsonl');
    writeFileSync(path, '{"id": "n1", "text": "Nene has home Vovo."}\n{"id": "n2", "text": "Nini has home Vuvu."}\n');
    const ids = await addKnowledge(session, { path });
    expect(await Promise.all(ids.map(textOf))).toEqual(['Nene has home Vovo.', 'Nini has home Vuvu.']);
    expect((await userErrorOf(addKnowledge(session, { path: `${path}.not` }))).code).toBe('input_missing');
    expect((await userErrorOf(addKnowledge(session, { text: ' \n' }))).code).toBe('input_empty');
  });

  it('edits a memory in one version and keeps its document', async () => {
    const [old = ''] = session.bank.ids();
    const { document, title } = await session.bank.get(old);
    const { size, version } = session.bank;
    const [id = ''] = await editKnowledge(session, old, 'bada has color nothing.');
    expect(await session.bank.get(id)).toMatchObject({ document, title, text: 'bada has color nothing.' });
    expect([session.bank.size, session.bank.version, session.bank.has(old)]).toEqual([size, version + 1, false]);
  });

  it('edits one memory of a document to a text as long as another one of it', async () => {
    const sentence = (end: string): string => `kyky has color and color and has color ${end}.`;
    const text = `${sentence('sosa')} ${sentence('mumu')}`;
    const [first = '', second = ''] = await addKnowledge(session, { text });
    expect(await textOf(first)).toBe(sentence('sosa'));
    const [edited = ''] = await editKnowledge(session, second, sentence('tota'));
    expect([await textOf(first), await textOf(edited)]).toEqual([sentence('sosa'), sentence('tota')]);
  });

  it('deletes all or none', async () => {
    const [a = '', b = ''] = session.bank.ids();
    const { size } = session.bank;
    expect((await userErrorOf(deleteKnowledge(session, [a, 'nobody']))).code).toBe('memory_unknown');
    expect(session.bank.size).toBe(size);
    await deleteKnowledge(session, [a, b]);
    expect([session.bank.size, session.bank.has(a)]).toEqual([size - 2, false]);
    expect((await userErrorOf(editKnowledge(session, a, 'x'))).code).toBe('memory_unknown');
  });
});

describe('withBankCopy', () => {
  it('changes a copy; the bank stays as it is, byte by byte, also after an error', async () => {
    const { bank } = session.folder;
    const before = await filesOf(bank);
    const [id = ''] = session.bank.ids();
    const { size } = session.bank;
    const work = withBankCopy(session, async () => {
      await deleteKnowledge(session, [id]);
      await addKnowledge(session, { text: 'Quva has color rulo.' });
      await editKnowledge(session, session.bank.ids()[0]!, 'other');
      expect(session.bank.has(id)).toBe(false);
      expect(session.bank.folder).not.toBe(bank);
      expect(await filesOf(bank)).toEqual(before);
      throw new Error('stopped');
    });
    await expect(work).rejects.toThrow('stopped');
    expect(await filesOf(bank)).toEqual(before);
    expect([session.bank.folder, session.bank.size, session.bank.has(id)]).toEqual([bank, size, true]);
    expect([...(await filesOf(session.folder.root)).keys()].filter((path) => path.includes('.tmp'))).toEqual([]);
  });
});

describe('Session.open', () => {
  it('says what is missing', async () => {
    const { config, folder } = session;
    const run = await randomRun();
    run.model.dispose();
    const noBank = await userErrorOf(Session.open(run.config, run.folder));
    expect(noBank).toMatchObject({ code: 'artefact_missing', message: expect.stringContaining(run.folder.bank) });
    const plain = await Session.open(run.config, run.folder, { memory: false });
    expect(plain.hasMemory).toBe(false);
    await plain.close();
    const foreign = { ...config, memory: { ...config.memory, keptTokens: 3 } };
    expect((await userErrorOf(Session.open(foreign, folder))).code).toBe('artefact_mismatch');
  });
});
