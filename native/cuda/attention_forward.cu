#include "attention_softmax.cuh"

namespace memory3 {
namespace {

constexpr int kWarps = 4, kThreads = kWarps * kWarpSize;
/** Queries of a block: two halves, of each of which a warp has 16 rows. */
constexpr int kHalfRows = 16 * kWarps, kBlockRows = 2 * kHalfRows;
/** Slots of memories that a block looks up once, at its start; further ones are looked up as they are needed. */
constexpr int kKnownSlots = 64;

/** Up to which head dimension the registers hold the fragments of the queries beside all else. */
constexpr int kMostHeldDim = 80;

/** What a block works on: 128 queries of one head from `first` on, which may begin before the first token and end behind the last. */
struct BlockPlan {
  int batch, head, kvHead, first;
  int tokens, behind;    // T, Tk − T: a query's own key is that many behind its token
  int secondVisible;     // the first key that the first query of the second half sees
  int contextSkipped;    // tiles at the end that nobody sees, since the second half is empty
  int contextTiles;      // tiles from the last one down, those skipped included
  ChunkRange chunks[2];  // of each half
  int firstChunk;        // the one with the first of the known slots
  int parts;             // of the memories of a chunk
  int items;             // tiles of the context that are read, then parts of memories

  /** Tiles of the context end with the last query's key and count down from there: the diagonals fill whole tiles. */
  __device__ int keysEnd(int tile) const { return first + kBlockRows + behind - tile * kTileKeys; }
  /** A token, for those before the first and behind the last the nearest that is there. */
  __device__ int real(int token) const { return min(max(token, 0), tokens - 1); }

  __device__ int contextItems() const { return contextTiles - contextSkipped; }

  __device__ void make(const AttentionInputs<Bf16>& in, unsigned block, unsigned blocks, int origin) {
    const AttentionShape& s = in.shape;
    const auto heads = static_cast<unsigned>(s.heads), rows = static_cast<unsigned>(s.batch) * heads;
    head = static_cast<int>(block % heads);
    kvHead = head / static_cast<int>(s.group());
    batch = static_cast<int>(block % rows / heads);
    first = origin + static_cast<int>(blocks / rows - 1 - block / rows) * kBlockRows;
    tokens = static_cast<int>(s.tokens);
    behind = static_cast<int>(s.keyTokens - s.tokens);
    secondVisible = firstVisibleTo(in, batch, real(first + kHalfRows));
    contextSkipped = first + kHalfRows >= tokens ? 1 : 0;
    // One tile at least, also where `firstVisible` is wrong, which is told elsewhere.
    const int seen = keysEnd(0) - firstVisibleTo(in, batch, real(first));
    contextTiles = max((seen + kTileKeys - 1) / kTileKeys, contextSkipped + 1);
    chunks[0] = chunksOf(s, first, min(first + kHalfRows, tokens));
    chunks[1] = chunksOf(s, first + kHalfRows, min(first + kBlockRows, tokens));
    firstChunk = chunks[0].count > 0 ? chunks[0].first : chunks[1].first;
    parts = partsOfChunk(s);
    items = contextItems() + (chunks[0].count + chunks[1].count) * parts;
  }
};

/** Shared memory of a block; tiles first, so that all of them are aligned to 16 bytes. */
template <int D>
struct SharedTiles {
  Bf16 queries[tileElements<D>(kBlockRows)];  // at the end the rows of the result
  Bf16 keys[2][tileElements<D>(kTileKeys)];
  Bf16 values[2][tileElements<D>(kTileKeys)];
  int32_t slotOf[2][kTileKeys];
  MemorySlot slots[kKnownSlots];
  BlockPlan plan;  // here and not in registers, of which tiles leave few
};

template <int D>
struct Block {
  const AttentionInputs<Bf16>& in;
  const AttentionOutputs<Bf16>& out;
  SharedTiles<D>& shared;

  __device__ const BlockPlan& plan() const { return shared.plan; }

  __device__ void copyQueries() const {
    const int first = plan().first, tokens = plan().tokens;
    const int64_t step = in.shape.heads * D;
    const auto offsetOf = [&](int row) -> int64_t {
      const int token = first + row;
      return token < 0 || token >= tokens ? -1 : token * step;
    };
    copyTiles<D, kThreads, kBlockRows>(
        offsetOf,
        TileSource{shared.queries, in.q + (plan().batch * in.shape.tokens * in.shape.heads + plan().head) * D});
  }

  __device__ void copyContext(int tile, int stage) const {
    const int keyTokens = plan().tokens + plan().behind, begin = plan().keysEnd(tile) - kTileKeys;
    const int64_t at = (plan().batch * in.shape.room * in.shape.kvHeads + plan().kvHead) * D;
    const int64_t step = in.shape.kvHeads * D;
    const auto offsetOf = [&](int row) -> int64_t {
      const int key = begin + row;
      return key < 0 || key >= keyTokens ? -1 : key * step;
    };
    copyTiles<D, kThreads, kTileKeys>(offsetOf, TileSource{shared.keys[stage], in.k + at},
                                      TileSource{shared.values[stage], in.v + at});
  }

  /** The half and the part of memories of an item behind those of the context. */
  __device__ MemoryPart memoryPart(int item, int* half) const {
    const ChunkRange first = plan().chunks[0], second = plan().chunks[1];
    const int part = item - plan().contextItems(), chunk = part / plan().parts;
    *half = chunk < first.count ? 0 : 1;
    return {in.shape, *half == 0 ? first.first + chunk : second.first + chunk - first.count, part % plan().parts};
  }

  __device__ void findSlots() const {
    const int slots = static_cast<int>(in.shape.slots), firstChunk = plan().firstChunk;
    const ChunkRange last = plan().chunks[plan().chunks[1].count > 0 ? 1 : 0];
    const int count = min((last.first + last.count - firstChunk) * slots, kKnownSlots);
    for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) {
      shared.slots[i] = memorySlot(in, plan().batch, firstChunk + i / slots, i % slots);
    }
  }

  __device__ void copyItem(int item, int stage) const {
    const int tile = item + plan().contextSkipped;
    if (tile < plan().contextTiles) return copyContext(tile, stage);
    int half;
    const MemoryPart part = memoryPart(item, &half);
    const int batch = plan().batch, known = (part.chunk - plan().firstChunk) * static_cast<int>(in.shape.slots);
    const auto find = [&](int slot) {
      return known + slot < kKnownSlots ? shared.slots[known + slot] : memorySlot(in, batch, part.chunk, slot);
    };
    copyMemories<D, kThreads>(in, part, plan().kvHead, find, shared.keys[stage], shared.values[stage],
                              shared.slotOf[stage]);
  }

  /** Waits for the tiles of an item and begins to copy those of the next. */
  __device__ __forceinline__ void turnTo(int item) const {
    copyWait<0>();
    // All copies are there, and all warps are done with the tiles that the next copies replace.
    __syncthreads();
    if (item + 1 < plan().items) copyItem(item + 1, (item + 1) % 2);
    copyCommit();
  }
};

/** What a warp does: 16 rows of each half, one tile of AttendedRows each. */
template <int D>
struct Warp {
  const Block<D>& block;
  float scale;
  AttendedRows<D, 2> rows;
  QueryFragments<D, 2, (D <= kMostHeldDim)> queries;

  __device__ __forceinline__ Warp(const Block<D>& block_, float scale_)
      : block(block_), scale(scale_), queries{block_.shared.queries, number() * 16, kHalfRows, {}} {
    rows.clear();
    queries.hold();
  }
  __device__ const BlockPlan& plan() const { return block.shared.plan; }
  __device__ static int number() { return static_cast<int>(threadIdx.x) / kWarpSize; }
  __device__ static int lane() { return static_cast<int>(threadIdx.x) % kWarpSize; }
  /** The first token of the warp's rows of a half, and that of a row of this lane. */
  __device__ int firstToken(int tile) const { return plan().first + tile * kHalfRows + number() * 16; }
  __device__ int token(int tile, int half) const { return firstToken(tile) + lane() / 4 + 8 * half; }

  /** Causal mask, and that of documents, where a tile needs one. */
  __device__ __forceinline__ void hideContext(Scores<2>& scores, int tile, int begin) const {
    const int firstQuery = plan().real(firstToken(tile)), lastQuery = plan().real(firstToken(tile) + 15);
    const bool whole = begin + kTileKeys - 1 <= firstQuery + plan().behind &&
                       begin >= firstVisibleTo(block.in, plan().batch, lastQuery);
    if (whole) return;
    int from[2], to[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int query = plan().real(token(tile, half));
      from[half] = firstVisibleTo(block.in, plan().batch, query) - begin;
      to[half] = query + plan().behind - begin;
    }
    hideKeys(scores, tile, [&](int half, int column) { return column >= from[half] && column <= to[half]; });
  }

  template <int kFrom, int kTo, bool kWhole>
  __device__ __forceinline__ void attendTile(int contextTile, int stage) {
    Scores<2> scores;
    scoreKeys<kFrom, kTo, kWhole>(scores, queries, block.shared.keys[stage], kTileKeys);
#pragma unroll
    for (int tile = kFrom; tile < kTo; tile++) hideContext(scores, tile, plan().keysEnd(contextTile + 1));
    takeScores<kFrom, kTo>(rows, scores, scale);
    addValues<kFrom, kTo, kWhole>(rows, scores, block.shared.values[stage], kTileKeys);
  }

  /** The memories of a chunk of one half, for those of its rows that belong to the chunk. */
  template <int kTile>
  __device__ __forceinline__ void attendPart(const MemoryPart& part, int stage) {
    const int32_t* slotOf = block.shared.slotOf[stage];
    const bool reads[2] = {chunkOf(block.in.shape, token(kTile, 0)) == part.chunk,
                           chunkOf(block.in.shape, token(kTile, 1)) == part.chunk};
    Scores<2> scores;
    scoreKeys<kTile, kTile + 1, false>(scores, queries, block.shared.keys[stage], part.count());
    hideKeys(scores, kTile, [&](int half, int column) { return reads[half] && slotOf[column] >= 0; });
    takeScores<kTile, kTile + 1>(rows, scores, scale);
    addValues<kTile, kTile + 1, false>(rows, scores, block.shared.values[stage], part.count());
    addShares(rows, scores, kTile, part, slotOf, [&](int half) { return reads[half] ? share(kTile, half) : nullptr; });
  }

  __device__ __forceinline__ void attendContext(int item, int stage) {
    const int contextTile = item + plan().contextSkipped;
    const bool firstHalf = contextTile > 0;
    const bool secondHalf = plan().contextSkipped == 0 && plan().keysEnd(contextTile) > plan().secondVisible;
    if (firstHalf && secondHalf) return attendTile<0, 2, true>(contextTile, stage);
    if (secondHalf) return attendTile<1, 2, false>(contextTile, stage);
    attendTile<0, 1, false>(contextTile, stage);
  }

  __device__ __forceinline__ void attendMemories(int item, int stage) {
    int half;
    const MemoryPart part = block.memoryPart(item, &half);
    half == 0 ? attendPart<0>(part, stage) : attendPart<1>(part, stage);
  }

  /** Where the shares of a row's slots go, null where there is no such row. */
  __device__ float* share(int tile, int half) const {
    const int query = token(tile, half);
    if (query < 0 || query >= plan().tokens) return nullptr;
    const AttentionShape& s = block.in.shape;
    return block.out.share + ((plan().batch * s.tokens + query) * s.heads + plan().head) * s.slots;
  }

  __device__ __forceinline__ void write() {
    addSums(rows);
#pragma unroll
    for (int tile = 0; tile < 2; tile++) {
#pragma unroll
      for (int half = 0; half < 2; half++) writeRow(tile, half);
    }
    __syncwarp();
    writeOut();
  }

  /** A row's result into the tile of the queries, which no other warp reads, its normaliser and its shares. */
  __device__ __forceinline__ void writeRow(int tile, int half) {
    const float sum = rows.sum[tile][half], factor = sum > 0 ? 1.0f / sum : 0.0f;
    const float normaliser = rows.top[tile][half] + log2f(sum);
    const int t = lane() % 4, row = tile * kHalfRows + number() * 16 + lane() / 4 + 8 * half;
    auto* to = reinterpret_cast<uint32_t*>(block.shared.queries + row * kTileStride<D>) + t;
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
      to[4 * n] = packBf16(rows.out[tile][n][2 * half] * factor, rows.out[tile][n][2 * half + 1] * factor);
    }
    const int query = token(tile, half);
    if (query < 0 || query >= plan().tokens) return;
    const AttentionShape& s = block.in.shape;
    if (t == 0) block.out.lse[(plan().batch * s.heads + plan().head) * s.tokens + query] = normaliser * kLn2;
    const int slots = static_cast<int>(s.slots);
    const bool reads = chunkOf(s, query) >= 0;
    for (int base = 2 * t; base < slots; base += 8) {
      for (int slot = base; slot < min(base + 2, slots); slot++) {
        float* at = share(tile, half) + slot;
        *at = reads ? shareOfSum(*at, normaliser) : 0.0f;
      }
    }
  }

  /** The warp's rows of the result, 16 bytes at a time. */
  __device__ __forceinline__ void writeOut() const {
    const AttentionShape& s = block.in.shape;
    Bf16* to = block.out.out + (plan().batch * s.tokens * s.heads + plan().head) * D;
    for (int i = lane(); i < 32 * (D / 8); i += kWarpSize) {
      const int own = i / (D / 8), column = i % (D / 8) * 8;
      const int row = own / 16 * kHalfRows + number() * 16 + own % 16, query = plan().first + row;
      if (query < 0 || query >= plan().tokens) continue;
      storeVector(to + query * s.heads * D + column, loadVector(block.shared.queries + row * kTileStride<D> + column));
    }
  }
};

/** out [B, T, H, D], share [B, T, H, R], lse [B, H, T]; block x has the head x % H, the sequence x / H % B, the last rows first. */
template <int D>
__global__ void __launch_bounds__(kThreads, 2)
    attendTilesKernel(AttentionInputs<Bf16> in, AttentionOutputs<Bf16> out, int origin, float scale) {
  const Block<D> block{in, out, *sharedMemory<SharedTiles<D>>()};
  if (threadIdx.x == 0) block.shared.plan.make(in, blockIdx.x, gridDim.x, origin);
  __syncthreads();
  block.copyQueries();
  block.copyItem(0, 0);
  copyCommit();
  block.findSlots();
  copyWait<0>();
  __syncthreads();
  Warp<D> warp(block, scale);
  int item = 0;
  for (; item < block.plan().contextItems(); item++) {
    block.turnTo(item);
    warp.attendContext(item, item % 2);
  }
  for (; item < block.plan().items; item++) {
    block.turnTo(item);
    warp.attendMemories(item, item % 2);
  }
  warp.write();
}

}  // namespace

void attendTiles(Context& context, const AttentionInputs<Bf16>& given, const AttentionOutputs<Bf16>& out) {
  const AttentionInputs<Bf16> in = inputsForTiles(given);
  expect(isAligned(out.out), "Attention: the result does not begin at a multiple of 16 bytes");
  const AttentionShape& s = in.shape;
  // Rows count from the first query of a chunk, so that chunks of 64 tokens are halves of blocks.
  const auto origin = -(kHalfRows - s.start % kHalfRows) % kHalfRows;
  const int64_t blocks = blocksFor(s.tokens - origin, kBlockRows) * s.batch * s.heads;
  expect(blocks < int64_t{1} << 31, "Attention: more rows than a grid has blocks for");
  withDimension(s.dim, [&](auto dim) {
    constexpr int D = decltype(dim)::value;
    context.launch(attendTilesKernel<D>, static_cast<unsigned>(blocks), kThreads, sizeof(SharedTiles<D>), in, out,
                   static_cast<int>(origin), scaleOfScores(s));
  });
}

}  // namespace memory3
