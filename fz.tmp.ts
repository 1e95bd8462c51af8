import { writeFileSync, appendFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import * as S from './test/data/sources/support.ts';
const ROWS = S.rowsOf(['one', 'zwei 你好', 'three and a half', 'vier', 'five', 'six', 'seven', 'eight']); const JSONL = S.toJsonl(ROWS);
const FILES: Record<string, Buffer> = { 'a.jsonl.gz': gzipSync(JSONL), 'a.jsonl.zst': S.storedZstd(JSONL, 100), 'snappy.parquet': S.toParquet(ROWS), 'gz.parquet': S.toParquet(ROWS, {codec: 'GZIP'}),'groups.parquet': S.toParquet(ROWS, { rowGroupSize: 3, codec: 'ZSTD' }), 'stream.arrow': S.toArrow(ROWS, { batchRows: 3 }), 'file.arrow': S.toArrow(ROWS, { batchRows: 3, kind: 'file' }), 'dictionary.arrow': S.toArrow(ROWS, { type: S.TEXT_TYPES.dictionary!() }), 'view.arrow': S.toArrow(ROWS, { type: S.TEXT_TYPES.Utf8View!(), kind: 'file' }),'real.jsonl.zst': Buffer.from('KLUv/WQ4BA0FANQGeyJpZCI6IDAsICJ0ZXh0IjogIlJvdyAwOiB0aGUgcml2ZXIgcnVucyBieXZpbGxhZ2UsIGFuZCBieS4g5rKz5rC05rWB6L+H5p2R5bqE44CCIn0KMTEyMjMzNDQ1NTY2Nzc4ODk5MSAxMDExMRqoENhanz3WkCPlHBASARESARHN/P/PA9QE07sW925W7C52NrZW8KxMrtS6Rl/2CqAUE6vYGQ==','base64') };
let seed = Number(process.argv[2] ?? 1); const rnd = (n: number) => { seed = (seed * 1103515245 + 12345) % 2147483648; return Math.floor(seed / 2147483648 * n); };
const only = process.argv[4];
const stats: Record<string, number> = {};
const end = Date.now() + Number(process.argv[3] ?? 20) * 1000; let n = 0;
while (Date.now() < end) {
  for (const [name, whole] of Object.entries(FILES)) {
    if (only && name !== only) continue;
    const b = Buffer.from(whole); const d: number[][] = [];
    for (let k = rnd(3) + 1; k > 0; k--) { const at = rnd(b.length), v = rnd(3) === 0 ? 255 : rnd(256); b[at] = v; d.push([at, v]); }
    writeFileSync('/tmp/fz-' + name, b); writeFileSync('/tmp/fz.last', JSON.stringify([name, d]));
    const t = performance.now(); const r0 = process.memoryUsage().rss;
    const { counters } = await S.read('/tmp/fz-' + name).catch((e) => { console.log(name, JSON.stringify(d), e); return { counters: { skipped: { THROWN: 1 } } } });
    const ms = performance.now() - t; const grown = process.memoryUsage().rss - r0;
    if (ms > 300 || grown > 3e8) console.log(name, JSON.stringify(d), ms.toFixed(0), 'ms', (grown / 1e6).toFixed(0), 'MB', JSON.stringify(counters.skipped));
    for (const k of Object.keys(counters.skipped)) stats[`${name} ${k}`] = (stats[`${name} ${k}`] ?? 0) + 1; n++;
  }
}
console.log(n, stats);
