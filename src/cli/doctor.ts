/** `memory3 doctor`. */

import type { CommandModule } from 'yargs';

export const doctorCommand: CommandModule = {
  command: 'doctor',
  describe:
    'Say which engines are here, which one `engine: auto` takes, and why the others are not available; and whether Faiss is here',
  builder: (yargs) => yargs.example('$0 doctor', 'look before a long run'),
  handler: async () => {
    const { openEngine } = await import('../engine/engine.ts');
    const { name, available } = await openEngine('auto', 0);
    process.stdout.write(`Node ${process.version} on ${process.platform}-${process.arch}\n`);
    for (const engine of available) {
      const mark = engine.name === name ? '*' : engine.ok ? '+' : ' ';
      process.stdout.write(`${mark} ${engine.name.padEnd(12)}${engine.why}\n`);
    }
    process.stdout.write('* what `engine: auto` takes, + also available\n');
    const { faissAvailable } = await import('../engine/native/faiss.ts');
    const faiss = faissAvailable();
    process.stdout.write(
      faiss.ok
        ? 'Faiss: there; large banks are searched with an index of its\n'
        : `Faiss: ${faiss.why}; every query is compared with every memory, which takes long for a large bank of other vectors than lexical ones\n`,
    );
  },
};
