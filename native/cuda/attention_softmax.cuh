/**
 * The online softmax of the forward kernels: what a warp keeps of 16·kTiles rows of queries while it walks over tiles of keys
 * (FlashAttention-2, Dao 2023). A tile of 16 rows is a C tile of the tensor cores (mma.cuh): lane 4g + t holds of the rows
 * g and g + 8 the columns 2t and 2t + 1 of each 8. Scores are kept times log₂(e)/√D, so that exponentials are powers of 2.
 * Legend: attention.h. Functions work on the tiles of rows kFrom … kTo − 1 and are compiled for each such range; what is
 * decided at run time is the same for all lanes of a warp.
 */
#pragma once

#include <cmath>

#include "attention_tiles.cuh"

namespace memory3 {

/** log₂(e) and its inverse. */
constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

/** What products of queries and keys are multiplied by. */
inline float scaleOfScores(const AttentionShape& s) { return kLog2E / std::sqrt(static_cast<float>(s.dim)); }

/** Inputs whose shape is one for tiles; throws std::invalid_argument where they are not. */
inline AttentionInputs<Bf16> inputsForTiles(AttentionInputs<Bf16> in) {
  in.shape = shapeForTiles(in.shape);
  expect(isAligned(in.q) && isAligned(in.k) && isAligned(in.v) && isAligned(in.memoryKeys) && isAligned(in.memoryValues),
         "Attention: a tensor does not begin at a multiple of 16 bytes");
  return in;
}

/** Scores of a tile of keys, and then their exponentials. */
template <int kTiles>
using Scores = float[kTiles][kTileKeys / 8][4];

template <int D, int kTiles>
struct AttendedRows {
  float out[kTiles][D / 8][4];
  float top[kTiles][2];  // largest score of the rows g and g + 8
  float sum[kTiles][2];  // of the exponentials that this lane holds, relative to `top`

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int tile = 0; tile < kTiles; tile++) {
#pragma unroll
      for (int n = 0; n < D / 8; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) out[tile][n][i] = 0;
      }
#pragma unroll
      for (int half = 0; half < 2; half++) {
        top[tile][half] = -INFINITY;
        sum[tile][half] = 0;
      }
    }
  }
};

/** The A fragments of a warp's queries: held in registers where there is room for them, else read from the tile each time. */
template <int D, int kTiles, bool kHeld>
struct QueryFragments {
  const Bf16* tile;  // in shared memory
  int row, step;     // the first row of the warp, and from one of its tiles to the next
  uint32_t held[kHeld ? kTiles : 1][kHeld ? D / 16 : 1][4];

  __device__ __forceinline__ void hold() {
    if constexpr (kHeld) {
#pragma unroll
      for (int of = 0; of < kTiles; of++) {
#pragma unroll
        for (int k = 0; k < D / 16; k++) loadRows<D>(held[of][k], tile, row + of * step, 16 * k);
      }
    }
  }
  __device__ __forceinline__ void get(uint32_t (&a)[4], int of, int k) const {
    if constexpr (kHeld) {
#pragma unroll
      for (int i = 0; i < 4; i++) a[i] = held[of][k][i];
    } else {
      loadRows<D>(a, tile, row + of * step, 16 * k);
    }
  }
};

/** scores = queries · keysᵀ for the first `count` keys of a tile, a multiple of 16; with kWhole for all. */
template <int kFrom, int kTo, bool kWhole, int D, int kTiles, bool kHeld>
__device__ __forceinline__ void scoreKeys(Scores<kTiles>& scores, const QueryFragments<D, kTiles, kHeld>& queries,
                                          const Bf16* keys, int count) {
#pragma unroll
  for (int tile = kFrom; tile < kTo; tile++) {
#pragma unroll
    for (int n = 0; n < kTileKeys / 8; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) scores[tile][n][i] = 0;
    }
  }
  // Whole where the fragments of all k lie in registers; otherwise this many loads are enough to have under way.
#pragma unroll(kHeld ? D / 16 : 2)
  for (int k = 0; k < D / 16; k++) {
    uint32_t a[kTiles][4];
#pragma unroll
    for (int tile = kFrom; tile < kTo; tile++) queries.get(a[tile], tile, k);
#pragma unroll
    for (int n = 0; n < kTileKeys / 16; n++) {
      if (kWhole || 16 * n < count) {
        uint32_t b[4];
        loadAsColumns<D>(b, keys, 16 * n, 16 * k);
#pragma unroll
        for (int tile = kFrom; tile < kTo; tile++) {
          multiplyPair(scores[tile][2 * n], scores[tile][2 * n + 1], a[tile], b);
        }
      }
    }
  }
}

/** Hides the keys that `sees(half, column)` denies a row of a tile. */
template <int kTiles, class Sees>
__device__ __forceinline__ void hideKeys(Scores<kTiles>& scores, int tile, const Sees& sees) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
#pragma unroll
  for (int n = 0; n < kTileKeys / 8; n++) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      if (!sees(i / 2, 8 * n + 2 * (lane % 4) + i % 2)) scores[tile][n][i] = -INFINITY;
    }
  }
}

/** What exponentials are relative to: for a row that has seen nothing yet 0, so that they become 0 and not NaN. */
__device__ __forceinline__ float baseOf(float top) { return top == -INFINITY ? 0.0f : top; }

/** Turns scores into exponentials relative to the largest score so far, and what was summed until now likewise. */
template <int kFrom, int kTo, int D, int kTiles>
__device__ __forceinline__ void takeScores(AttendedRows<D, kTiles>& rows, Scores<kTiles>& scores, float scale) {
#pragma unroll
  for (int tile = kFrom; tile < kTo; tile++) {
    float correction[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float largest = -INFINITY;
#pragma unroll
      for (int n = 0; n < kTileKeys / 8; n++) {
        largest = fmaxf(largest, fmaxf(scores[tile][n][2 * half], scores[tile][n][2 * half + 1]));
      }
      largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 2));
      const float top = fmaxf(rows.top[tile][half], largest * scale);
      const float base = baseOf(top);
      correction[half] = exp2Fast(rows.top[tile][half] - base);
      rows.top[tile][half] = top;
      float sum = rows.sum[tile][half] * correction[half];
#pragma unroll
      for (int n = 0; n < kTileKeys / 8; n++) {
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; i++) {
          scores[tile][n][i] = exp2Fast(fmaf(scores[tile][n][i], scale, -base));
          sum += scores[tile][n][i];
        }
      }
      rows.sum[tile][half] = sum;
    }
    // Seldom after the first tiles.
    if (__any_sync(kAllLanes, correction[0] != 1.0f || correction[1] != 1.0f)) {
#pragma unroll
      for (int n = 0; n < D / 8; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) rows.out[tile][n][i] *= correction[i / 2];
      }
    }
  }
}

/** out += exponentials · values, of the first `count` keys. */
template <int kFrom, int kTo, bool kWhole, int D, int kTiles>
__device__ __forceinline__ void addValues(AttendedRows<D, kTiles>& rows, const Scores<kTiles>& scores, const Bf16* values,
                                          int count) {
#pragma unroll
  for (int k = 0; k < kTileKeys / 16; k++) {
    if (kWhole || 16 * k < count) {
      uint32_t a[kTiles][4];
#pragma unroll
      for (int tile = kFrom; tile < kTo; tile++) packRows(a[tile], scores[tile][2 * k], scores[tile][2 * k + 1]);
#pragma unroll
      for (int n = 0; n < D / 16; n++) {
        uint32_t b[4];
        loadAsRows<D>(b, values, 16 * k, 16 * n);
#pragma unroll
        for (int tile = kFrom; tile < kTo; tile++) {
          multiplyPair(rows.out[tile][2 * n], rows.out[tile][2 * n + 1], a[tile], b);
        }
      }
    }
  }
}

/** The sums of the lanes of a row, added up: all of them hold the whole sum then. */
template <int D, int kTiles>
__device__ __forceinline__ void addSums(AttendedRows<D, kTiles>& rows) {
#pragma unroll
  for (int tile = 0; tile < kTiles; tile++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      rows.sum[tile][half] += __shfl_xor_sync(kAllLanes, rows.sum[tile][half], 1);
      rows.sum[tile][half] += __shfl_xor_sync(kAllLanes, rows.sum[tile][half], 2);
    }
  }
}

/** A part of the memories of a chunk: their slots side by side, S keys each, from `firstKey` on; at most kTileKeys. */
struct MemoryPart {
  int chunk, firstKey, keys, slotKeys;

  __device__ MemoryPart(const AttentionShape& s, int chunk_, int part)
      : chunk(chunk_), firstKey(part * kTileKeys),
        keys(min(kTileKeys, static_cast<int>(s.slots * s.kept) - firstKey)), slotKeys(static_cast<int>(s.kept)) {}
  /** Keys to compute with, a multiple of 16. */
  __device__ int count() const { return (keys + 15) / 16 * 16; }
  __device__ int firstSlot() const { return firstKey / slotKeys; }
  __device__ int lastSlot() const { return (firstKey + keys - 1) / slotKeys; }
};
__device__ __forceinline__ int partsOfChunk(const AttentionShape& s) {
  return (static_cast<int>(s.slots * s.kept) + kTileKeys - 1) / kTileKeys;
}

/**
 * Begins to copy keys and values of a part of memories into tiles; `slotOf[key]` becomes the slot of each key that is one,
 * −1 otherwise. `find(slot)` is what stands in a slot of the chunk.
 */
template <int D, int kThreads, class Find>
__device__ __forceinline__ void copyMemories(const AttentionInputs<Bf16>& in, const MemoryPart& part, int kvHead,
                                             const Find& find, Bf16* keys, Bf16* values, int32_t* slotOf) {
  for (int row = static_cast<int>(threadIdx.x); row < kTileKeys; row += kThreads) {
    const int key = part.firstKey + row, slot = key / part.slotKeys;
    const bool there = row < part.keys && key - slot * part.slotKeys < find(slot).length;
    slotOf[row] = there ? slot : -1;
  }
  const auto offsetOf = [&](int row) -> int64_t {
    const int key = part.firstKey + row, slot = key / part.slotKeys, token = key - slot * part.slotKeys;
    if (row >= part.keys) return -1;
    const MemorySlot found = find(slot);
    if (token >= found.length) return -1;
    return ((found.memory * in.shape.kvHeads + kvHead) * in.shape.kept + token) * D;
  };
  copyFirstRows<D, kThreads, kTileKeys>(part.count(), offsetOf, TileSource{keys, in.memoryKeys},
                                        TileSource{values, in.memoryValues});
}

/**
 * Writes what the slots of a part have of each row's softmax, as log₂ of the sum of 2^score: that needs no correction when
 * a larger score comes, and a slot that goes on from one part to the next is added up. `shareOf(half)` is the row's place
 * for the shares of its slots, or null. The sums come from the tensor cores, as exponentials times a matrix of zeros and
 * ones; a slot is always with the same lane, so that it finds what it wrote.
 */
template <int D, int kTiles, class ShareOf>
__device__ __forceinline__ void addShares(const AttendedRows<D, kTiles>& rows, const Scores<kTiles>& scores, int tile,
                                          const MemoryPart& part, const int32_t* slotOf, const ShareOf& shareOf) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize, g = lane / 4, t = lane % 4;
  const int firstSlot = part.firstSlot(), lastSlot = part.lastSlot(), count = part.count();
  const float top[2] = {baseOf(rows.top[tile][0]), baseOf(rows.top[tile][1])};
  for (int base = firstSlot / 8 * 8; base <= lastSlot; base += 8) {
    float sums[4] = {0, 0, 0, 0};
    const auto belongs = [&](int key) {
      const uint32_t one = 0x3f80;  // 1 as bfloat16
      return (slotOf[key] == base + g ? one : 0) | (slotOf[key + 1] == base + g ? one << 16 : 0);
    };
#pragma unroll
    for (int k = 0; k < kTileKeys / 16; k++) {
      if (16 * k < count) {
        uint32_t a[4];
        packRows(a, scores[tile][2 * k], scores[tile][2 * k + 1]);
        const uint32_t b[2] = {belongs(16 * k + 2 * t), belongs(16 * k + 8 + 2 * t)};
        mma16816(sums, a, b);
      }
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float* share = shareOf(half);
#pragma unroll
      for (int i = 0; i < 2; i++) {
        const int slot = base + 2 * t + i;
        if (share == nullptr || slot < firstSlot || slot > lastSlot) continue;
        float sum = sums[2 * half + i];
        if (slot * part.slotKeys < part.firstKey) sum += exp2Fast(share[slot] - top[half]);
        share[slot] = top[half] + log2f(sum);
      }
    }
  }
}

/** The sums of addShares become shares; `normaliser` is log₂ of the sum over all keys. */
__device__ __forceinline__ float shareOfSum(float sum, float normaliser) { return exp2Fast(sum - normaliser); }

}  // namespace memory3
