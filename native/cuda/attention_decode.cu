/**
 * Attention of at most eight query tokens over a long cache, with memories (legend: attention.h): what a model does for each
 * token that it writes.
 *
 * It is bound by memory: the context's keys and values, 4·B·Tk·K·D bytes, are read once, for 4·B·H·T·Tk·D FLOPs, G·T for each
 * byte. So the G query heads of a key-value head and their T tokens go together, as rows of one tile of the tensor cores,
 * and what of its 16 rows is padding costs nothing that counts; beyond 16 rows (G = 5: from four tokens on) blocks side by
 * side read the same keys, all but one of them from the L2 cache. To have enough reads under way the context is cut into
 * parts (flash-decoding): a block of one warp takes each, 64 keys at a time while the next 64 are on their way, which keeps
 * half of a multiprocessor's shared memory in flight. The memories are one more part. A second kernel adds the parts of each
 * row in their order, so that results do not depend on which block was faster, only on the number of multiprocessors, by
 * which the parts are cut. Parts cost 8·(D + 2) bytes for each row and part, written and read through the L2 cache.
 *
 * ptxas for sm_90a: 202 registers for D = 80, at most 254, nothing spilled. Shared memory for D = 80 48 KB, four blocks in
 * a multiprocessor; for D = 128 74 KB, three.
 */

#include "attention_softmax.cuh"

namespace memory3 {
namespace {

constexpr int kThreads = kWarpSize, kRows = 16;
constexpr int kMergeThreads = 128;

/** Where parts are left, [B, K, T·G, parts, …], rows by token. */
struct Parts {
  float* out;    // sums relative to `top`, [D]
  float* state;  // top and sum, [2]
  int count;     // parts of a row: those of the context and, with memories, one for them
  int context;

  __device__ int64_t at(const AttentionShape& s, int batch, int kvHead, int row) const {
    return ((batch * s.kvHeads + kvHead) * (s.tokens * s.group()) + row) * count;
  }
};

template <int D>
struct SharedTiles {
  Bf16 queries[tileElements<D>(kRows)];
  Bf16 keys[2][tileElements<D>(kTileKeys)];
  Bf16 values[2][tileElements<D>(kTileKeys)];
  int32_t slotOf[2][kTileKeys];
};

/** A warp's part of the keys of 16 rows of a key-value head, from `firstRow` on. */
template <int D>
struct Part {
  const AttentionInputs<Bf16>& in;
  SharedTiles<D>& shared;
  int batch, kvHead, firstRow;
  int group, rows, behind;  // G, T·G, Tk − T
  int begin, end;           // keys of the context, none in the part of memories
  ChunkRange chunks;        // none in the parts of the context
  int partsOfAChunk;

  __device__ Part(const AttentionInputs<Bf16>& in_, SharedTiles<D>& shared_, const Parts& parts, int batch_, int kvHead_,
                  int firstRow_, int part)
      : in(in_), shared(shared_), batch(batch_), kvHead(kvHead_), firstRow(firstRow_), begin(0), end(0) {
    const AttentionShape& s = in.shape;
    group = static_cast<int>(s.group());
    rows = static_cast<int>(s.tokens) * group;
    behind = static_cast<int>(s.keyTokens - s.tokens);
    partsOfAChunk = partsOfChunk(s);
    const int firstToken = tokenOf(0), lastToken = tokenOf(kRows - 1);
    if (part == parts.context) {
      chunks = chunksOf(s, firstToken, lastToken + 1);
      return;
    }
    // The keys that are seen are cut anew for each row, so that no part is idle because of documents.
    const int first = firstVisibleTo(in, batch, firstToken), last = lastToken + behind + 1;
    const int tiles = (last - first + kTileKeys - 1) / kTileKeys;
    const int share = (tiles + parts.context - 1) / parts.context * kTileKeys;
    begin = first + part * share;
    end = min(begin + share, last);
  }

  /** The token of a row; behind the last row that of the last. */
  __device__ int tokenOf(int row) const { return min(firstRow + row, rows - 1) / group; }
  __device__ int items() const {
    return max((end - begin + kTileKeys - 1) / kTileKeys, 0) + chunks.count * partsOfAChunk;
  }

  __device__ void copyQueries() const {
    const AttentionShape& s = in.shape;
    const auto offsetOf = [&](int i) -> int64_t {
      const int row = firstRow + i;
      return row >= rows ? -1 : (row / group * s.heads + row % group) * D;
    };
    const Bf16* from = in.q + (batch * s.tokens * s.heads + kvHead * group) * D;
    copyTiles<D, kThreads, kRows>(offsetOf, TileSource{shared.queries, from});
  }

  __device__ MemoryPart memoryPart(int item) const {
    return {in.shape, chunks.first + item / partsOfAChunk, item % partsOfAChunk};
  }

  __device__ void copyItem(int item, int stage) const {
    if (chunks.count > 0) {
      const MemoryPart part = memoryPart(item);
      const auto find = [&](int slot) { return memorySlot(in, batch, part.chunk, slot); };
      copyMemories<D, kThreads>(in, part, kvHead, find, shared.keys[stage], shared.values[stage], shared.slotOf[stage]);
      return;
    }
    const int64_t at = (batch * in.shape.room * in.shape.kvHeads + kvHead) * D, step = in.shape.kvHeads * D;
    const int first = begin + item * kTileKeys;
    const auto offsetOf = [&](int row) -> int64_t { return first + row < end ? (first + row) * step : -1; };
    copyTiles<D, kThreads, kTileKeys>(offsetOf, TileSource{shared.keys[stage], in.k + at},
                                      TileSource{shared.values[stage], in.v + at});
  }

  __device__ void hideContext(Scores<1>& scores, int item) const {
    const int first = begin + item * kTileKeys, lane = static_cast<int>(threadIdx.x);
    const bool whole = first + kTileKeys <= end && first + kTileKeys - 1 <= tokenOf(0) + behind &&
                       first >= firstVisibleTo(in, batch, tokenOf(kRows - 1));
    if (whole) return;
    int from[2], to[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int token = tokenOf(lane / 4 + 8 * half);
      from[half] = firstVisibleTo(in, batch, token) - first;
      to[half] = min(token + behind, end - 1) - first;
    }
    hideKeys(scores, 0, [&](int half, int column) { return column >= from[half] && column <= to[half]; });
  }
};

/** The parts of each row, and of those of memories the shares as addShares leaves them. */
template <int D>
__global__ void __launch_bounds__(kThreads, 4)
    attendPartsKernel(AttentionInputs<Bf16> in, float* share, Parts parts, int rowBlocks, float scale) {
  const AttentionShape& s = in.shape;
  const int block = static_cast<int>(blockIdx.x) / rowBlocks, of = block / parts.count, partNumber = block % parts.count;
  const int batch = of / static_cast<int>(s.kvHeads), kvHead = of % static_cast<int>(s.kvHeads);
  const int firstRow = static_cast<int>(blockIdx.x) % rowBlocks * kRows, lane = static_cast<int>(threadIdx.x);
  SharedTiles<D>& shared = *sharedMemory<SharedTiles<D>>();
  const Part<D> part(in, shared, parts, batch, kvHead, firstRow, partNumber);
  const int items = part.items();
  part.copyQueries();
  if (items > 0) part.copyItem(0, 0);
  copyCommit();
  copyWait<0>();
  __syncthreads();
  QueryFragments<D, 1, true> queries{shared.queries, 0, 0, {}};
  queries.hold();
  AttendedRows<D, 1> rows;
  rows.clear();
  for (int item = 0; item < items; item++) {
    const int stage = item % 2;
    copyWait<0>();
    // All copies are there, and the warp is done with the tiles that the next copies replace.
    __syncthreads();
    if (item + 1 < items) part.copyItem(item + 1, 1 - stage);
    copyCommit();
    // Lanes copy different numbers of rows; tensor cores want them together.
    __syncwarp();
    Scores<1> scores;
    if (part.chunks.count == 0) {
      scoreKeys<0, 1, true>(scores, queries, shared.keys[stage], kTileKeys);
      part.hideContext(scores, item);
      takeScores<0, 1, true>(rows, scores, scale, kTileKeys);
      addValues<0, 1, true>(rows, scores, shared.values[stage], kTileKeys);
      continue;
    }
    const MemoryPart memories = part.memoryPart(item);
    const int32_t* slotOf = shared.slotOf[stage];
    const auto reads = [&](int half) {
      return firstRow + lane / 4 + 8 * half < part.rows &&
             isOfChunk(s, part.tokenOf(lane / 4 + 8 * half), memories.chunk);
    };
    const bool sees[2] = {reads(0), reads(1)};
    scoreKeys<0, 1, false>(scores, queries, shared.keys[stage], memories.count());
    hideKeys(scores, 0, [&](int half, int column) { return sees[half] && slotOf[column] >= 0; });
    takeScores<0, 1, false>(rows, scores, scale, memories.count());
    addValues<0, 1, false>(rows, scores, shared.values[stage], memories.count());
    addShares(rows, scores, 0, memories, slotOf, [&](int half) -> float* {
      if (!sees[half]) return nullptr;
      const int row = firstRow + lane / 4 + 8 * half, head = kvHead * part.group + row % part.group;
      return share + ((batch * s.tokens + row / part.group) * s.heads + head) * s.slots;
    });
  }
  addSums(rows);
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int row = firstRow + lane / 4 + 8 * half;
    if (row >= part.rows) continue;
    const int64_t at = parts.at(s, batch, kvHead, row) + partNumber;
    if (lane % 4 == 0) {
      parts.state[2 * at] = rows.top[0][half];
      parts.state[2 * at + 1] = rows.sum[0][half];
    }
    // Of a part in which the row sees nothing only the state is read.
    if (rows.top[0][half] == -INFINITY) continue;
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
      float2* to = reinterpret_cast<float2*>(parts.out + at * D + 8 * n + 2 * (lane % 4));
      *to = make_float2(rows.out[0][n][2 * half], rows.out[0][n][2 * half + 1]);
    }
  }
}

/** out [B, T, H, D], share [B, T, H, R], lse [B, H, T] from the parts; a block a row. Shared: 32 floats and one for each part. */
__global__ void mergePartsKernel(AttentionInputs<Bf16> in, AttentionOutputs<Bf16> out, Parts parts) {
  const AttentionShape& s = in.shape;
  const int heads = static_cast<int>(s.heads), tokens = static_cast<int>(s.tokens), group = heads / static_cast<int>(s.kvHeads);
  const int head = static_cast<int>(blockIdx.x) % heads, of = static_cast<int>(blockIdx.x) / heads;
  const int token = of % tokens, batch = of / tokens, thread = static_cast<int>(threadIdx.x);
  const int64_t first = parts.at(s, batch, head / group, token * group + head % group);
  float* room = sharedMemory<float>();
  float* weights = room + kWarpSize;
  float top = -INFINITY, sum = 0;
  for (int i = thread; i < parts.count; i += kMergeThreads) top = fmaxf(top, parts.state[2 * (first + i)]);
  top = baseOf(blockMax(top, room));
  for (int i = thread; i < parts.count; i += kMergeThreads) {
    weights[i] = exp2Fast(parts.state[2 * (first + i)] - top);
    sum += weights[i] * parts.state[2 * (first + i) + 1];
  }
  sum = blockSum(sum, room);
  __syncthreads();
  // What is not a number stays so, for whoever looks for it.
  const float factor = sum == 0 ? 0.0f : 1.0f / sum, normaliser = top + log2f(sum);
  const int dim = static_cast<int>(s.dim);
  if (thread < dim) {
    float value = 0;
    for (int i = 0; i < parts.count; i++) {
      if (weights[i] > 0) value += weights[i] * parts.out[(first + i) * dim + thread];
    }
    out.out[static_cast<int64_t>(blockIdx.x) * dim + thread] = roundToBf16(value * factor);
  }
  if (thread == 0) out.lse[(batch * s.heads + head) * s.tokens + token] = normaliser * kLn2;
  const bool reads = s.chunks > 0 && token >= s.start;
  float* share = out.share + blockIdx.x * s.slots;
  for (int slot = thread; slot < s.slots; slot += kMergeThreads) {
    share[slot] = reads ? shareOfSum(share[slot], normaliser) : 0.0f;
  }
}

/** Parts of the context: enough to fill the device about four times, as many blocks as a multiprocessor holds. */
int contextParts(const Context& context, const AttentionShape& s, int64_t rowBlocks) {
  const int64_t groups = s.batch * s.kvHeads * rowBlocks, tiles = blocksFor(s.keyTokens, kTileKeys);
  const int64_t wanted = blocksFor(int64_t{4} * context.multiprocessors(), groups);
  // As many tiles for each but the last, so that no part is left without.
  return static_cast<int>(blocksFor(tiles, blocksFor(tiles, wanted < tiles ? wanted : tiles)));
}

}  // namespace

void attendDecode(Context& context, const AttentionInputs<Bf16>& given, const AttentionOutputs<Bf16>& out) {
  const AttentionInputs<Bf16> in = inputsForTiles(given);
  const AttentionShape& s = in.shape;
  const int64_t rows = s.tokens * s.group(), rowBlocks = blocksFor(rows, kRows);
  Parts parts{};
  parts.context = contextParts(context, s, rowBlocks);
  parts.count = parts.context + (s.slots > 0 && s.chunks > 0 ? 1 : 0);
  const int64_t states = s.batch * s.kvHeads * rows * parts.count, blocks = s.batch * s.kvHeads * parts.count * rowBlocks;
  expect(blocks < int64_t{1} << 31, "Attention: more rows than a grid has blocks for");
  const Scratch<float> outs(context, states * s.dim), state(context, states * 2);
  parts.out = outs.data();
  parts.state = state.data();
  withDimension(s.dim, [&](auto dim) {
    constexpr int D = decltype(dim)::value;
    context.launch(attendPartsKernel<D>, static_cast<unsigned>(blocks), kThreads, sizeof(SharedTiles<D>), in, out.share,
                   parts, static_cast<int>(rowBlocks), scaleOfScores(s));
  });
  context.launch(mergePartsKernel, static_cast<unsigned>(s.batch * s.tokens * s.heads), kMergeThreads,
                 (kWarpSize + static_cast<std::size_t>(parts.count)) * sizeof(float), in, out, parts);
}

}  // namespace memory3
