/** `memory3 doctor`. */

import type { CommandModule } from 'yargs';

export const doctorCommand: CommandModule = {
  command: 'doctor',
  describe:
    'Say which engines are here, which one `engine: auto` takes, and why the others are not available; what the driver of GPUs says; and whether Faiss is here',
  builder: (yargs) => yargs.example('$0 doctor', 'look before a long run'),
  handler: async () => {
    const { openEngine } = await import('../engine/engine.ts');
    const { name, available } = await openEngine('auto', 0);
    const say = (line: string): void => void process.stdout.write(`${line}\n`);
    say(`Node ${process.version} on ${process.platform}-${process.arch}`);
    for (const engine of available) {
      const mark = engine.name === name ? '*' : engine.ok ? '+' : ' ';
      say(`${mark} ${engine.name.padEnd(12)}${engine.why}`);
    }
    say('* what `engine: auto` takes, + also available');
    const { describeGpus } = await import('../engine/cuda/find.ts');
    for (const line of describeGpus()) say(line);
    const { faissAvailable } = await import('../engine/native/faiss.ts');
    const faiss = faissAvailable();
    say(
      faiss.ok
        ? 'Faiss: there; large banks are searched with an index of its'
        : `Faiss: ${faiss.why}; every query is compared with every memory, which takes long for a large bank of other vectors than lexical ones`,
    );
  },
};
