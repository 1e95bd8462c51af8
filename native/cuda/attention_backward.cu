/**
 * The gradient of attention in tiles of bfloat16 on tensor cores, float32 sums (attention.h has the legend). With
 * P = exp(Q·Kᵀ/√D − lse) and δ = Σ_d dy·out of a query:
 *
 *   dS = P ∘ (dY·Vᵀ − δ)      dq = dS·K/√D      dk = dSᵀ·Q/√D      dv = Pᵀ·dY
 *
 * Four kernels, none of which two blocks write the same numbers of, so that nothing is atomic and each sum has one order:
 *   statistics   lse·log₂e and δ of each query and head; reads dy and out, 4·B·T·H·D bytes, bound by memory
 *   dq           a block has 64 queries of a head, up to D = 80 two times 64, a warp 16 of each half with q and dy as
 *                fragments in registers; it goes over the keys that they see, then over the memories of their chunks.
 *                3 products
 *   dk, dv       a block has 64 keys of a key-value head, a warp 16 of them; it goes over the queries that see them, those of
 *                all heads of the group in turn. It computes Sᵀ and dPᵀ, whose C fragments are the A fragments of the sums.
 *                4 products
 *   memories     the same for 16 tokens of a memory and key-value head, where its gradient is wanted, over the queries of
 *                each place of `index` where it stands, in order; the warps share the queries and add up at the end
 * That are 7 products of 2·D operations a pair of query and key, instead of the 5 of a kernel that computes dq along with dk
 * and dv. Its blocks would add to the same dq: with atomics the sum has no order; without, either the blocks of a head wait
 * for each other in turn, or each leaves a float32 dq of its own, T/64 times the memory of dq (over parts of the heads, one
 * after the other, that could be bounded). What bounds these kernels by design is the way from shared memory to the tensor
 * cores: with 16 rows a warp each byte serves 16 operations, which are 2,048 a cycle and multiprocessor. With 32 rows, for dq
 * up to D = 80, it serves 32, and keys and values come half as often from the second cache; for dk and dv, and for dq above,
 * the registers do not suffice.
 *
 * A stage of 2·64 rows is copied while the one before is worked on (cp.async, one barrier a turn). Rows take D + 8 elements
 * (attention_tiles.cuh), so that ldmatrix meets no bank twice; D = 80 is not padded. Halves begin at the borders of chunks
 * where these are multiples of 64, tiles of keys end at the diagonal: one tile for each half is cut, and of that a warp skips
 * what none of its rows sees. Memories are S keys for each slot of each chunk of the queries, rounded up to 16 in all: 5
 * memories of 8 tokens are 40 to 48 keys beside on average 1,056 at T = 2,048, in dq only, 3 of the 7 products.
 * A query that is not there has lse = ∞, so that it weighs nothing anywhere; a key that is not there, or not seen, has the
 * score −∞, or is a row that nobody stores.
 *
 * ptxas for sm_90a (sm_80 as many or up to 16 less): registers of dq | dk, dv | memories, shared memory; no spills, no stack.
 *   D = 16   116 |  80 |  78   13 KB      D =  80   243 | 168 | 208   46 KB
 *   D = 32   149 | 114 | 116   22 KB      D =  96   168 | 226 | 238   54 KB
 *   D = 48   183 | 144 | 152   30 KB      D = 112   190 | 244 | 250   62 KB
 *   D = 64   217 | 168 | 168   38 KB      D = 128   209 | 255 | 255   71 KB
 * So a multiprocessor holds at least 2 blocks of 4 warps of dq, of dk and dv 3 up to D = 80 and 2 above, on either
 * architecture.
 */

#include <cmath>

#include "attention_tiles.cuh"

namespace memory3 {
namespace {

constexpr int kWarps = 4, kThreads = kWarps * kWarpSize;
constexpr int kTile = 64;  // rows of a tile
constexpr int kStep = 16;  // rows of the other side that a warp takes at a time
constexpr float kLog2e = 1.44269504088896f;

/** What all kernels here work on. */
struct Backward {
  AttentionInputs<Bf16> in;
  AttentionGradients<Bf16> out;
  /** Of each row of queries lse·log₂e and δ = dy·out, [B·H, statisticsStride]; behind the last query ∞ and 0. */
  float2* statistics;
  int statisticsStride;
  float scale;
  int tiles;  // of what the kernel's blocks are dealt out by
  int shift;  // rows before the first query that its tile begins with

  __device__ int tokens() const { return static_cast<int>(in.shape.tokens); }
  __device__ int keyTokens() const { return static_cast<int>(in.shape.keyTokens); }
  __device__ int batch() const { return static_cast<int>(in.shape.batch); }
  __device__ int heads() const { return static_cast<int>(in.shape.heads); }
  __device__ int kvHeads() const { return static_cast<int>(in.shape.kvHeads); }
  __device__ int group() const { return heads() / kvHeads(); }
  /** Keys before the first query. */
  __device__ int past() const { return keyTokens() - tokens(); }
  /** Of a row of [B, T, H, D]; negative for one that is not there, for `copyTiles`. */
  __device__ int64_t queryAt(int b, int token, int head) const {
    if (token < 0 || token >= tokens()) return -1;
    return ((b * in.shape.tokens + token) * in.shape.heads + head) * in.shape.dim;
  }
  /** Of a row of [B, room, K, D]; negative for one that is not there or not real. */
  __device__ int64_t keyAt(int b, int key, int kvHead) const {
    if (key < 0 || key >= keyTokens()) return -1;
    return ((b * in.shape.room + key) * in.shape.kvHeads + kvHead) * in.shape.dim;
  }
  /** Of a row of [M, K, S, D] */
  __device__ int64_t memoryAt(int64_t memory, int kvHead, int token) const {
    return ((memory * in.shape.kvHeads + kvHead) * in.shape.kept + token) * in.shape.dim;
  }
  __device__ const float2* statisticsAt(int b, int token, int head) const {
    return statistics + (b * in.shape.heads + head) * statisticsStride + token;
  }
};

__device__ int warpNumber() { return static_cast<int>(threadIdx.x) / kWarpSize; }
/** Row and first column of what a lane holds of a C tile: g and 2t of mma.cuh. */
__device__ int laneRow() { return static_cast<int>(threadIdx.x) % kWarpSize / 4; }
__device__ int laneColumn() { return static_cast<int>(threadIdx.x) % 4 * 2; }

/** One of the two places in shared memory where the tiles of a turn lie: keys and values, or queries and dy. */
template <int D>
struct Stage {
  static constexpr int kNoteBytes = kTile * static_cast<int>(sizeof(float2));
  static constexpr int kBytes = 2 * tileElements<D>(kTile) * static_cast<int>(sizeof(Bf16)) + kNoteBytes;
  Bf16* left;
  Bf16* right;
  void* notes;  // statistics of queries, float2 [64]; or whose the keys of memories are, int32 [64]

  __device__ explicit Stage(int number) {
    left = reinterpret_cast<Bf16*>(sharedMemory<unsigned char>() + number * kBytes);
    right = left + tileElements<D>(kTile);
    notes = right + tileElements<D>(kTile);
  }
};

/** Copies a tile while it works on the one before. The stages are free again behind the next barrier. */
template <int D, class Copy, class Work>
__device__ __forceinline__ void forTiles(int count, const Copy& copy, const Work& work) {
#pragma unroll 1
  for (int i = 0; i <= count; i++) {
    copyWait<0>();
    __syncthreads();
    if (i < count) copy(i, Stage<D>(i % 2));
    copyCommit();
    // Not all threads of a warp copy, but all multiply.
    __syncwarp();
    if (i > 0) work(i - 1, Stage<D>((i - 1) % 2));
  }
}

/** A fragments of two tiles' rows `row` … + 15, brought through a stage: those of `left` and of `right`. */
template <int D>
__device__ __forceinline__ void loadFragments(uint32_t (&left)[D / 16][4], uint32_t (&right)[D / 16][4],
                                              const Stage<D>& stage, int row) {
#pragma unroll
  for (int i = 0; i < D / 16; i++) {
    loadRows<D>(left[i], stage.left, row, 16 * i);
    loadRows<D>(right[i], stage.right, row, 16 * i);
  }
}

/** Writes the two rows that a lane holds of C tiles [16, D]; null for one that is not wanted. */
template <int D>
__device__ __forceinline__ void storeRows(const float (&sums)[D / 8][4], float scale, Bf16* upper, Bf16* lower) {
#pragma unroll
  for (int i = 0; i < D / 8; i++) {
    const int column = 8 * i + laneColumn();
    if (upper != nullptr) {
      *reinterpret_cast<uint32_t*>(upper + column) = packBf16(sums[i][0] * scale, sums[i][1] * scale);
    }
    if (lower != nullptr) {
      *reinterpret_cast<uint32_t*>(lower + column) = packBf16(sums[i][2] * scale, sums[i][3] * scale);
    }
  }
}

template <int D>
__device__ __forceinline__ void clear(float (&sums)[D / 8][4]) {
#pragma unroll
  for (int i = 0; i < D / 8; i++) {
#pragma unroll
    for (int j = 0; j < 4; j++) sums[i][j] = 0;
  }
}

/**
 * Of scores [16, 16] those that are not visible become −∞, so that their weights are 0; `visible(r, column)` of row r. Lanes
 * may go their own ways there; they come together again for the next product.
 */
template <class Visible>
__device__ __forceinline__ void hide(float (&scores)[2][4], const Visible& visible) {
#pragma unroll
  for (int half = 0; half < 2; half++) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      if (!visible(i / 2, 8 * half + laneColumn() + i % 2)) scores[half][i] = -INFINITY;
    }
  }
  __syncwarp();
}

/** 16 lanes a query and head, heads side by side as in memory. */
__global__ void __launch_bounds__(kThreads) statisticsKernel(Backward given) {
  constexpr int kLanes = 16;
  const AttentionShape& s = given.in.shape;
  const int64_t row = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / kLanes;
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const int64_t head = row % s.heads, token = row / s.heads % given.statisticsStride;
  const int64_t b = row / s.heads / given.statisticsStride;
  const bool isReal = b < s.batch && token < s.tokens;
  float delta = 0;
  if (isReal && lane * kVector<Bf16> < s.dim) {
    const int64_t at = ((b * s.tokens + token) * s.heads + head) * s.dim + lane * kVector<Bf16>;
    const auto dy = loadVector(given.out.dy + at), out = loadVector(given.out.out + at);
#pragma unroll
    for (int i = 0; i < kVector<Bf16>; i++) delta += toFloat(dy.at[i]) * toFloat(out.at[i]);
  }
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) delta += __shfl_xor_sync(kAllLanes, delta, offset);
  if (b >= s.batch || lane != 0) return;
  const float lse = isReal ? given.out.lse[(b * s.heads + head) * s.tokens + token] * kLog2e : INFINITY;
  given.statistics[(b * s.heads + head) * given.statisticsStride + token] = make_float2(lse, delta);
}

/** Halves of a block's queries, 64 each; a warp has 16 of each, so that it reads keys and values once for both. */
template <int D>
constexpr int kHalves = D <= 80 ? 2 : 1;

/** 16 queries of each half for a warp, and the gradients that gather in them. */
template <int D>
struct QueryRows {
  uint32_t q[kHalves<D>][D / 16][4], dy[kHalves<D>][D / 16][4];
  float dq[kHalves<D>][D / 8][4];
  float2 statistics[kHalves<D>][2];  // of the two rows of a lane

  /**
   * Adds what 16 keys from row `key` of a stage give to halves kFirst … kEnd − 1; if `masked`, of those keys that
   * `visible(half, r, column)` of a lane's row r, 0 or 1.
   */
  template <int kFirst, int kEnd, class Visible>
  __device__ __forceinline__ void addKeys(const Stage<D>& stage, int key, float factor, bool masked,
                                          const Visible& visible) {
    float p[kHalves<D>][2][4] = {}, ds[kHalves<D>][2][4] = {};
#pragma unroll
    for (int i = 0; i < D / 16; i++) {
      uint32_t b[4];
      loadAsColumns<D>(b, stage.left, key, 16 * i);
#pragma unroll
      for (int half = kFirst; half < kEnd; half++) multiplyPair(p[half][0], p[half][1], q[half][i], b);
      loadAsColumns<D>(b, stage.right, key, 16 * i);
#pragma unroll
      for (int half = kFirst; half < kEnd; half++) multiplyPair(ds[half][0], ds[half][1], dy[half][i], b);
    }
    uint32_t gradients[kHalves<D>][4];
#pragma unroll
    for (int half = kFirst; half < kEnd; half++) {
      if (masked) hide(p[half], [&](int row, int column) { return visible(half, row, key + column); });
#pragma unroll
      for (int i = 0; i < 8; i++) {
        const float2 own = statistics[half][i % 4 / 2];
        const float weight = exp2Fast(p[half][i / 4][i % 4] * factor - own.x);
        ds[half][i / 4][i % 4] = weight * (ds[half][i / 4][i % 4] - own.y);
      }
      packRows(gradients[half], ds[half][0], ds[half][1]);
    }
#pragma unroll
    for (int i = 0; i < D / 16; i++) {
      uint32_t b[4];
      loadAsRows<D>(b, stage.left, key, 16 * i);
#pragma unroll
      for (int half = kFirst; half < kEnd; half++) {
        multiplyPair(dq[half][2 * i], dq[half][2 * i + 1], gradients[half], b);
      }
    }
  }

  /** The same to those halves for which `sees(half)`. */
  template <class Sees, class Visible>
  __device__ __forceinline__ void addKeysWhere(const Sees& sees, const Stage<D>& stage, int key, float factor,
                                               bool masked, const Visible& visible) {
    const bool first = sees(0);
    if constexpr (kHalves<D> == 2) {
      const bool second = sees(1);
      if (first && second) return addKeys<0, 2>(stage, key, factor, masked, visible);
      if (second) return addKeys<1, 2>(stage, key, factor, masked, visible);
    }
    if (first) addKeys<0, 1>(stage, key, factor, masked, visible);
  }
};

/**
 * The tiles of keys that a block's queries see: those of the context, then those of memories. It lies in shared memory behind
 * the stages, since registers are what these kernels are short of.
 */
struct KeyTiles {
  int batch, head;
  int begin, end;     // queries; the first ones may not be there
  int contextBegin;   // key of the first tile, may not be there either
  int full, context;  // tiles that the diagonal does not cut, and all of the context
  int firstChunk;     // of the queries
  int memoryKeys;     // S for each slot of each chunk of the queries, there or not

  __device__ int tiles() const { return context + (memoryKeys + kTile - 1) / kTile; }
  /** Tiles of the context end with the last key of the last query, so that the diagonal cuts one of them for each half. */
  __device__ void set(const Backward& given, int block, int rows) {
    const AttentionShape& s = given.in.shape;
    head = block % given.heads();
    batch = block / given.heads() % given.batch();
    // The last queries have the most keys; they go first.
    begin = (given.tiles - 1 - block / given.heads() / given.batch()) * rows - given.shift;
    end = min(begin + rows, given.tokens());
    const int first = max(begin, 0), diagonal = begin + given.past();
    full = max(diagonal - firstVisibleTo(given.in, batch, first) + kTile - 1, 0) / kTile;
    context = full + (end - begin + kTile - 1) / kTile;
    contextBegin = diagonal - full * kTile;
    const ChunkRange chunks = chunksOf(s, first, end);
    firstChunk = chunks.first;
    memoryKeys = chunks.count * static_cast<int>(s.slots * s.kept);
  }
};

/** What lies in shared memory behind the stages. */
template <int D, class What>
__device__ What* behindStages() {
  return reinterpret_cast<What*>(sharedMemory<unsigned char>() + 2 * Stage<D>::kBytes);
}

/** What a block does for dq of 64 queries of a head, or two times 64: its tiles of keys, and what a warp adds of each. */
template <int D>
struct QueryGradient {
  static constexpr int kRows = kTile * kHalves<D>;
  const Backward& given;
  const KeyTiles& keys;
  QueryRows<D> rows;

  /** The first of the warp's 16 queries of a half, and the one of a lane's row, 0 or 1. */
  __device__ int ownQuery(int half) const { return keys.begin + half * kTile + kStep * warpNumber(); }
  __device__ int token(int half, int row) const { return ownQuery(half) + laneRow() + 8 * row; }
  __device__ bool isThere(int half) const { return ownQuery(half) < keys.end && ownQuery(half) + kStep > 0; }
  __device__ int firstSeen(int query) const {
    return firstVisibleTo(given.in, keys.batch, min(max(query, 0), given.tokens() - 1));
  }
  __device__ int kvHead() const { return keys.head / given.group(); }

  /** Brings the queries, dy and statistics of the warp's rows into registers, through the stages. */
  __device__ __forceinline__ void load() {
#pragma unroll
    for (int half = 0; half < kHalves<D>; half++) {
      const Stage<D> stage(half);
      const int first = keys.begin + half * kTile;
      copyTiles<D, kThreads, kTile>([&](int row) { return given.queryAt(keys.batch, first + row, keys.head); },
                                    TileSource{stage.left, given.in.q}, TileSource{stage.right, given.out.dy});
      clear<D>(rows.dq[half]);
#pragma unroll
      for (int row = 0; row < 2; row++) {
        const int query = token(half, row);
        const bool isReal = query >= 0 && query < given.tokens();
        rows.statistics[half][row] =
            isReal ? *given.statisticsAt(keys.batch, query, keys.head) : make_float2(INFINITY, 0);
      }
    }
    copyCommit();
    copyWait<0>();
    __syncthreads();
#pragma unroll
    for (int half = 0; half < kHalves<D>; half++) {
      loadFragments<D>(rows.q[half], rows.dy[half], Stage<D>(half), kStep * warpNumber());
    }
  }

  /** Where row `key` of the memories lies, negative for none; and the chunk that it belongs to. */
  __device__ __forceinline__ int64_t memoryKey(int key, int* chunk) const {
    if (key >= keys.memoryKeys) return -1;
    const AttentionShape& s = given.in.shape;
    const int kept = static_cast<int>(s.kept), slots = static_cast<int>(s.slots), place = key / kept;
    *chunk = keys.firstChunk + place / slots;
    const MemorySlot slot = memorySlot(given.in, keys.batch, *chunk, place % slots);
    return key % kept < slot.length ? given.memoryAt(slot.memory, kvHead(), key % kept) : -1;
  }

  /** Begins to copy tile i: of the context, then of the memories, with the chunk of each key or −2. */
  __device__ __forceinline__ void copy(int i, const Stage<D>& stage) const {
    if (i < keys.context) {
      const int first = keys.contextBegin + i * kTile;
      copyTiles<D, kThreads, kTile>([&](int row) { return given.keyAt(keys.batch, first + row, kvHead()); },
                                    TileSource{stage.left, given.in.k}, TileSource{stage.right, given.in.v});
      return;
    }
    const int from = (i - keys.context) * kTile;
    int chunk = 0;
    copyTiles<D, kThreads, kTile>([&](int row) { return memoryKey(from + row, &chunk); },
                                  TileSource{stage.left, given.in.memoryKeys},
                                  TileSource{stage.right, given.in.memoryValues});
    if (threadIdx.x < kTile) {
      const int64_t at = memoryKey(from + static_cast<int>(threadIdx.x), &chunk);
      static_cast<int32_t*>(stage.notes)[threadIdx.x] = at < 0 ? -2 : chunk;
    }
  }

  __device__ __forceinline__ void addContext(int i, const Stage<D>& stage, float factor) {
    const int tile = keys.contextBegin + i * kTile, past = given.past();
    const bool masked = i >= keys.full || tile < firstSeen(keys.begin + kRows - 1);
#pragma unroll 1
    for (int key = 0; key < kTile; key += kStep) {
      const auto sees = [&](int half) {
        const int own = ownQuery(half);
        return isThere(half) && (!masked || (tile + key < own + kStep + past && tile + key + kStep > firstSeen(own)));
      };
      rows.addKeysWhere(sees, stage, key, factor, masked, [&](int half, int row, int column) {
        const int query = token(half, row);
        return tile + column <= query + past && tile + column >= firstSeen(query);
      });
    }
  }

  __device__ __forceinline__ void addMemories(int from, const Stage<D>& stage, float factor) {
    const AttentionShape& s = given.in.shape;
#pragma unroll 1
    for (int key = 0; key < kTile && from + key < keys.memoryKeys; key += kStep) {
      const int keysOfChunk = static_cast<int>(s.slots * s.kept);
      const int firstChunk = keys.firstChunk + (from + key) / keysOfChunk;
      const int lastChunk = keys.firstChunk + (from + key + kStep - 1) / keysOfChunk;
      const auto sees = [&](int half) {
        return isThere(half) && chunkOf(s, max(ownQuery(half), 0)) <= lastChunk &&
               chunkOf(s, min(ownQuery(half) + kStep, keys.end) - 1) >= firstChunk;
      };
      rows.addKeysWhere(sees, stage, key, factor, true, [&](int half, int row, int column) {
        return static_cast<const int32_t*>(stage.notes)[column] == chunkOf(s, token(half, row));
      });
    }
  }

  __device__ __forceinline__ void store() const {
#pragma unroll
    for (int half = 0; half < kHalves<D>; half++) {
      const int64_t upper = given.queryAt(keys.batch, token(half, 0), keys.head);
      const int64_t lower = given.queryAt(keys.batch, token(half, 1), keys.head);
      storeRows<D>(rows.dq[half], given.scale, upper < 0 ? nullptr : given.out.dq + upper,
                   lower < 0 ? nullptr : given.out.dq + lower);
    }
  }
};

/** dq */
template <int D>
__global__ void __launch_bounds__(kThreads, 2) queryGradKernel(Backward given) {
  KeyTiles& keys = *behindStages<D, KeyTiles>();
  if (threadIdx.x == 0) keys.set(given, static_cast<int>(blockIdx.x), QueryGradient<D>::kRows);
  __syncthreads();
  QueryGradient<D> gradient{given, keys, {}};
  gradient.load();
  const float factor = given.scale * kLog2e;
  forTiles<D>(
      keys.tiles(), [&](int i, const Stage<D>& stage) { gradient.copy(i, stage); },
      [&](int i, const Stage<D>& stage) {
        if (i < keys.context) return gradient.addContext(i, stage, factor);
        gradient.addMemories((i - keys.context) * kTile, stage, factor);
      });
  gradient.store();
}

/** The tiles of queries that see some keys, those of each head of the group in turn; in shared memory like KeyTiles. */
struct QueryTiles {
  int batch, firstHead;
  int begin, end;  // queries; begin is even, for the statistics
  int tiles;       // of a head
  int first;       // of the keys of the block, or of the queries that see its memory

  __device__ int query(int i) const { return begin + i % tiles * kTile; }
  __device__ int head(int i) const { return firstHead + i / tiles; }
  /** Queries from `from` up to, without, `to`. */
  __device__ void setQueries(int from, int to) {
    begin = from / 2 * 2;
    end = to;
    tiles = max(end - begin + kTile - 1, 0) / kTile;
  }
};

constexpr int kWindow = 4096;  // places of `index` that are looked at together

/** What memoryGradKernel has behind the stages. */
struct PlacesAndTiles {
  uint32_t marks[kWindow / kWarpSize];
  QueryTiles queries;
};

/** Begins to copy tile i of queries, with dy and statistics. */
template <int D>
__device__ __forceinline__ void copyQueries(const Backward& given, const QueryTiles& queries, int i,
                                            const Stage<D>& stage) {
  const int b = queries.batch, token = queries.query(i), head = queries.head(i);
  copyTiles<D, kThreads, kTile>([&](int row) { return given.queryAt(b, token + row, head); },
                                TileSource{stage.left, given.in.q}, TileSource{stage.right, given.out.dy});
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < kTile / 2) {
    copyAsync16(static_cast<float2*>(stage.notes) + 2 * thread, given.statisticsAt(b, token, head) + 2 * thread);
  }
}

/** 16 keys of a warp with their values, and the gradients that gather in them. */
template <int D>
struct KeyRows {
  uint32_t keys[D / 16][4], values[D / 16][4];
  float dKeys[D / 8][4], dValues[D / 8][4];

  /** Adds what 16 queries from row `query` of a stage give; if `masked`, to those keys that `visible(r, column)` tells. */
  template <class Visible>
  __device__ __forceinline__ void addQueries(const Stage<D>& stage, int query, float factor, bool masked,
                                             const Visible& visible) {
    float p[2][4] = {}, ds[2][4] = {};
#pragma unroll
    for (int i = 0; i < D / 16; i++) {
      uint32_t b[4];
      loadAsColumns<D>(b, stage.left, query, 16 * i);
      multiplyPair(p[0], p[1], keys[i], b);
      loadAsColumns<D>(b, stage.right, query, 16 * i);
      multiplyPair(ds[0], ds[1], values[i], b);
    }
    if (masked) hide(p, [&](int row, int column) { return visible(row, query + column); });
#pragma unroll
    for (int half = 0; half < 2; half++) {
      // lse and δ of two queries
      const float4 pair = *reinterpret_cast<const float4*>(static_cast<const float2*>(stage.notes) + query + 8 * half +
                                                           laneColumn());
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const float weight = exp2Fast(p[half][i] * factor - (i % 2 == 0 ? pair.x : pair.z));
        p[half][i] = weight;
        ds[half][i] = weight * (ds[half][i] - (i % 2 == 0 ? pair.y : pair.w));
      }
    }
    uint32_t weights[4], gradients[4];
    packRows(weights, p[0], p[1]);
    packRows(gradients, ds[0], ds[1]);
#pragma unroll
    for (int i = 0; i < D / 16; i++) {
      uint32_t b[4];
      loadAsRows<D>(b, stage.right, query, 16 * i);
      multiplyPair(dValues[2 * i], dValues[2 * i + 1], weights, b);
      loadAsRows<D>(b, stage.left, query, 16 * i);
      multiplyPair(dKeys[2 * i], dKeys[2 * i + 1], gradients, b);
    }
  }
};

/** The first query that sees none of the keys before `keyEnd`: its document begins there or later. */
__device__ inline int endOfQueries(const Backward& given, int b, int keyEnd) {
  int low = 0, high = given.tokens();
  if (given.in.firstVisible == nullptr) return high;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (firstVisibleTo(given.in, b, middle) >= keyEnd) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

/** dk and dv; a block takes 64 keys of a key-value head. */
template <int D>
__global__ void __launch_bounds__(kThreads, D <= 80 ? 3 : 2) keyGradKernel(Backward given) {
  const AttentionInputs<Bf16>& in = given.in;
  QueryTiles& queries = *behindStages<D, QueryTiles>();
  if (threadIdx.x == 0) {
    const int block = static_cast<int>(blockIdx.x), kvHead = block % given.kvHeads();
    const int b = block / given.kvHeads() % given.batch();
    // The first keys have the most queries; they go first.
    const int begin = block / given.kvHeads() / given.batch() * kTile;
    const int end = min(begin + kTile, given.keyTokens());
    queries.batch = b;
    queries.firstHead = kvHead * given.group();
    queries.first = begin;
    queries.setQueries(max(begin - given.past(), 0), begin < end ? endOfQueries(given, b, end) : 0);
  }
  __syncthreads();
  const auto kvHead = [&] { return queries.firstHead / given.group(); };
  const auto ownKey = [&] { return queries.first + kStep * warpNumber(); };

  KeyRows<D> rows;
  clear<D>(rows.dKeys);
  clear<D>(rows.dValues);
  copyTiles<D, kThreads, kTile>([&](int row) { return given.keyAt(queries.batch, queries.first + row, kvHead()); },
                                TileSource{Stage<D>(0).left, in.k}, TileSource{Stage<D>(0).right, in.v});
  copyCommit();
  copyWait<0>();
  __syncthreads();
  loadFragments<D>(rows.keys, rows.values, Stage<D>(0), kStep * warpNumber());

  const float factor = given.scale * kLog2e;
  const auto copy = [&](int i, const Stage<D>& stage) { copyQueries<D>(given, queries, i, stage); };
  const auto work = [&](int i, const Stage<D>& stage) {
    const int query = queries.query(i), past = given.past();
    const auto firstSeen = [&](int token) { return firstVisibleTo(in, queries.batch, min(token, given.tokens() - 1)); };
    const bool masked = queries.first + kTile - 1 > query + past || firstSeen(query + kTile - 1) > queries.first;
#pragma unroll 1
    for (int step = 0; step < kTile; step += kStep) {
      const int own = ownKey();
      if (masked && (query + step + kStep - 1 + past < own || firstSeen(query + step) >= own + kStep)) continue;
      rows.addQueries(stage, step, factor, masked, [&](int row, int column) {
        const int key = own + laneRow() + 8 * row;
        return key <= query + column + past && firstSeen(query + column) <= key;
      });
    }
  };
  forTiles<D>(queries.tiles * given.group(), copy, work);

  const int upper = ownKey() + laneRow(), lower = upper + 8;
  // Of keys that there is only room for nothing was computed that counts.
#pragma unroll
  for (int i = 0; i < D / 8; i++) {
#pragma unroll
    for (int j = 0; j < 4; j++) {
      if ((j < 2 ? upper : lower) >= given.keyTokens()) rows.dKeys[i][j] = rows.dValues[i][j] = 0;
    }
  }
  const auto rowOf = [&](Bf16* gradients, int key) {
    const AttentionShape& s = in.shape;
    return key < s.room ? gradients + ((queries.batch * s.room + key) * s.kvHeads + kvHead()) * D : nullptr;
  };
  storeRows<D>(rows.dKeys, given.scale, rowOf(given.out.dk, upper), rowOf(given.out.dk, lower));
  storeRows<D>(rows.dValues, 1, rowOf(given.out.dv, upper), rowOf(given.out.dv, lower));
}

/** The first set bit from `at` on, kWindow where there is none. */
__device__ inline int nextMark(const uint32_t* marks, int at) {
  if (at >= kWindow) return kWindow;
  int word = at / kWarpSize;
  uint32_t bits = marks[word] & kAllLanes << at % kWarpSize;
  while (bits == 0) {
    if (++word == kWindow / kWarpSize) return kWindow;
    bits = marks[word];
  }
  return word * kWarpSize + __ffs(static_cast<int>(bits)) - 1;
}

/** Calls `body(place)` for all places of `index` where a memory stands, in their order. `marks` are kWindow bits. */
template <class Body>
__device__ __forceinline__ void forPlaces(const AttentionInputs<Bf16>& in, int memory, uint32_t* marks,
                                          const Body& body) {
  const int places = static_cast<int>(in.shape.batch * in.shape.chunks * in.shape.slots);
#pragma unroll 1
  for (int window = 0; window < places; window += kWindow) {
    __syncthreads();
    for (int word = warpNumber(); word < kWindow / kWarpSize; word += kWarps) {
      const int lane = static_cast<int>(threadIdx.x) % kWarpSize, place = window + word * kWarpSize + lane;
      const uint32_t found = __ballot_sync(kAllLanes, place < places && in.index[place] == memory);
      if (lane == 0) marks[word] = found;
    }
    __syncthreads();
#pragma unroll 1
    for (int at = nextMark(marks, 0); at < kWindow; at = nextMark(marks, at + 1)) body(window + at);
  }
}

/** The 16 tokens of a memory and key-value head that a block takes. */
struct MemoryTokens {
  const Backward& given;

  __device__ int block() const { return static_cast<int>(blockIdx.x); }
  __device__ int first() const { return block() % given.tiles * kStep; }
  __device__ int kvHead() const { return block() / given.tiles % given.kvHeads(); }
  __device__ int memory() const { return block() / given.tiles / given.kvHeads(); }
  /** Valid tokens of the memory. */
  __device__ int length() const {
    return min(max(given.in.lengths[memory()], 0), static_cast<int32_t>(given.in.shape.kept));
  }
  __device__ int64_t at(int token) const { return given.memoryAt(memory(), kvHead(), token); }
};

/** Adds up what the warps have of the tokens, [4, 2, 16, D] in place of the stages, and writes it. */
template <int D>
__device__ __forceinline__ void storeMemoryRows(const MemoryTokens& own, const KeyRows<D>& rows) {
  const Backward& given = own.given;
  auto* sums = sharedMemory<float>();
  __syncthreads();
#pragma unroll
  for (int i = 0; i < D / 8; i++) {
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const int at = (laneRow() + j / 2 * 8) * D + 8 * i + laneColumn() + j % 2;
      sums[(2 * warpNumber()) * kStep * D + at] = rows.dKeys[i][j];
      sums[(2 * warpNumber() + 1) * kStep * D + at] = rows.dValues[i][j];
    }
  }
  __syncthreads();
  const int length = own.length();
  for (int at = static_cast<int>(threadIdx.x); at < kStep * D; at += kThreads) {
    const int token = own.first() + at / D;
    if (token >= given.in.shape.kept) break;
    float dKey = 0, dValue = 0;
    for (int warp = 0; warp < kWarps && token < length; warp++) {
      dKey += sums[2 * warp * kStep * D + at];
      dValue += sums[(2 * warp + 1) * kStep * D + at];
    }
    const int64_t to = own.at(token) + at % D;
    given.out.dMemoryKeys[to] = fromFloat<Bf16>(dKey * given.scale);
    given.out.dMemoryValues[to] = fromFloat<Bf16>(dValue);
  }
}

/**
 * Gradients of a memory's keys and values; a block takes 16 tokens of a memory and key-value head, whose fragments all of its
 * warps hold: of each tile of queries every warp takes 16, and their sums are added at the end, in order.
 */
template <int D>
__global__ void __launch_bounds__(kThreads, D <= 64 ? 3 : 2) memoryGradKernel(Backward given) {
  const AttentionInputs<Bf16>& in = given.in;
  const AttentionShape& s = in.shape;
  const MemoryTokens own{given};
  const int length = own.length();

  KeyRows<D> rows;
  clear<D>(rows.dKeys);
  clear<D>(rows.dValues);
  copyTiles<D, kThreads, kStep>(
      [&](int row) {
        const int token = own.first() + row;
        return token < length ? own.at(token) : int64_t{-1};
      },
      TileSource{Stage<D>(0).left, in.memoryKeys}, TileSource{Stage<D>(0).right, in.memoryValues});
  copyCommit();
  copyWait<0>();
  __syncthreads();
  loadFragments<D>(rows.keys, rows.values, Stage<D>(0), 0);

  const float factor = given.scale * kLog2e;
  auto& shared = *behindStages<D, PlacesAndTiles>();
  QueryTiles& queries = shared.queries;
  const auto addPlace = [&](int place) {
    __syncthreads();
    if (threadIdx.x == 0) {
      const int chunks = static_cast<int>(s.chunks), slots = static_cast<int>(s.slots);
      const int chunk = place / slots % chunks;
      queries.batch = place / slots / chunks;
      queries.firstHead = own.kvHead() * given.group();
      queries.first = static_cast<int>(min(s.start + chunk * s.chunkLength, s.tokens));
      const int behind = static_cast<int>(min(queries.first + s.chunkLength, s.tokens));
      queries.setQueries(queries.first, chunk == chunks - 1 ? given.tokens() : behind);
    }
    __syncthreads();
    forTiles<D>(
        queries.tiles * given.group(),
        [&](int i, const Stage<D>& stage) { copyQueries<D>(given, queries, i, stage); },
        [&](int i, const Stage<D>& stage) {
          const int query = queries.query(i), row = kStep * warpNumber();
          if (query + row >= queries.end) return;
          const bool masked = query < queries.first || query + kTile > queries.end;
          rows.addQueries(stage, row, factor, masked, [&](int, int column) {
            return query + column >= queries.first && query + column < queries.end;
          });
        });
  };
  if (own.first() < length) forPlaces(in, own.memory(), shared.marks, addPlace);

  storeMemoryRows<D>(own, rows);
}

template <int D>
void launchAll(Context& context, Backward given) {
  const AttentionShape& s = given.in.shape;
  const auto blocks = [](int64_t count) { return static_cast<unsigned>(count); };
  static_assert(kWarps * 2 * kStep * D * sizeof(float) <= 2 * Stage<D>::kBytes, "the sums do not fit into the stages");
  constexpr std::size_t kStages = 2 * Stage<D>::kBytes;
  const bool readsMemories = s.slots > 0 && s.chunks > 0;
  given.shift = readsMemories ? static_cast<int>((kTile - s.start % kTile) % kTile) : 0;
  given.tiles = static_cast<int>(blocksFor(s.tokens + given.shift, kTile * kHalves<D>));
  context.launch(queryGradKernel<D>, blocks(given.tiles * s.heads * s.batch), kThreads,
                 kStages + sizeof(KeyTiles), given);
  context.launch(keyGradKernel<D>, blocks(blocksFor(s.room, kTile) * s.kvHeads * s.batch), kThreads,
                 kStages + sizeof(QueryTiles), given);
  if (given.out.dMemoryKeys == nullptr) return;
  given.tiles = static_cast<int>(blocksFor(s.kept, kStep));
  context.launch(memoryGradKernel<D>, blocks(given.tiles * s.kvHeads * s.memories), kThreads,
                 kStages + sizeof(PlacesAndTiles), given);
}

}  // namespace

void attendTilesGrad(Context& context, const AttentionInputs<Bf16>& in, const AttentionGradients<Bf16>& out) {
  AttentionInputs<Bf16> checked = in;
  checked.shape = shapeForTiles(in.shape);
  const AttentionShape& s = checked.shape;
  expect(s.batch * s.chunks * s.slots < int64_t{1} << 30 && s.slots * s.kept < int64_t{1} << 24,
         "Attention: too many slots of memories for the kernels of tensor cores");
  for (const Bf16* rows : {in.q, in.k, in.v, in.memoryKeys, in.memoryValues, out.dy, out.out}) {
    expect(isAligned(rows), "Attention: an array does not lie at a multiple of 16 bytes");
  }
  // Tiles of queries begin at even tokens and may reach 63 behind the last one.
  const int64_t stride = s.tokens + s.tokens % 2 + kTile;
  const Scratch<float2> statistics(context, s.batch * s.heads * stride);
  const Backward given{checked, out, statistics.data(), static_cast<int>(stride),
                       1 / std::sqrt(static_cast<float>(s.dim)), 0, 0};
  constexpr int kRowsOfBlock = kThreads / 16;
  context.launch(statisticsKernel, static_cast<unsigned>(blocksFor(s.batch * s.heads * stride, kRowsOfBlock)), kThreads,
                 0, given);
  withDimension(s.dim, [&](auto dimension) { launchAll<decltype(dimension)::value>(context, given); });
}

}  // namespace memory3
