/**
 * What the attention kernels on tensor cores share: tiles of rows of D bfloat16 in shared memory, how rows come there and how
 * fragments leave, and which memories a query reads. Legend: attention.h.
 *
 * A row of a tile takes D + 8 elements. That is an odd number of 16 bytes, so that the eight rows that an ldmatrix reads at
 * a time lie in different banks, for every D; nothing is padded to the next power of two.
 */
#pragma once

#include <type_traits>

#include "attention.h"
#include "mma.cuh"

namespace memory3 {

/** Keys of a tile. */
constexpr int kTileKeys = 64;

/** Elements from a row of a tile to the next, and of so many rows. */
template <int D>
constexpr int kTileStride = D + 8;
template <int D>
constexpr int tileElements(int rows) {
  return rows * kTileStride<D>;
}

/** The number of the thread, asked for anew each time: what follows from it is not kept in registers from tile to tile. */
__device__ __forceinline__ int threadNow() {
#if defined(__CUDA_ARCH__)
  int thread;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
  return thread;
#else
  return static_cast<int>(threadIdx.x);
#endif
}

/** Rows of global memory and the tile that they are for. */
struct TileSource {
  Bf16* tile;
  const Bf16* from;
};

/**
 * Begins to copy rows 0 … rows − 1 of tiles, at most kRows; row r of each source lies `offsetOf(r)` elements behind its
 * `from`, and with a negative offset it becomes 0. All kThreads threads of the block call it; each copies the same 16 bytes
 * of a row, of every kThreads / (D / 8)th row.
 */
template <int D, int kThreads, int kRows, class OffsetOf, class... Sources>
__device__ __forceinline__ void copyFirstRows(int rows, const OffsetOf& offsetOf, const Sources&... sources) {
  constexpr int kPieces = D / 8, kStep = kThreads / kPieces;
  const int thread = threadNow(), first = thread / kPieces, column = thread % kPieces * 8;
  if (first >= kStep) return;
#pragma unroll
  for (int i = 0; i < kRows; i += kStep) {
    const int row = first + i;
    if (row < rows) {
      const int64_t offset = offsetOf(row);
      (copyAsync16(sources.tile + row * kTileStride<D> + column, sources.from + (offset < 0 ? 0 : offset + column),
                   offset >= 0),
       ...);
    }
  }
}

/** The same for all rows of tiles of kRows. */
template <int D, int kThreads, int kRows, class OffsetOf, class... Sources>
__device__ __forceinline__ void copyTiles(const OffsetOf& offsetOf, const Sources&... sources) {
  copyFirstRows<D, kThreads, kRows>(kRows, offsetOf, sources...);
}

/** The A fragment [16 rows, 16 columns] of a tile. */
template <int D>
__device__ __forceinline__ void loadRows(uint32_t (&a)[4], const Bf16* tile, int row, int column) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  loadMatrix4(a, tile + (row + lane % 16) * kTileStride<D> + column + lane / 16 * 8);
}

/** A tile's rows as columns of B, for products with Xᵀ: b[0], b[1] of rows 0…7 of 16, then b[0], b[1] of rows 8…15. */
template <int D>
__device__ __forceinline__ void loadAsColumns(uint32_t (&b)[4], const Bf16* tile, int row, int column) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  loadMatrix4(b, tile + (row + lane % 8 + lane / 16 * 8) * kTileStride<D> + column + lane / 8 % 2 * 8);
}

/** A tile's rows as rows of B, for products with X: b[0], b[1] of columns 0…7 of 16, then b[0], b[1] of columns 8…15. */
template <int D>
__device__ __forceinline__ void loadAsRows(uint32_t (&b)[4], const Bf16* tile, int row, int column) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  loadMatrix4Transposed(b, tile + (row + lane % 16) * kTileStride<D> + column + lane / 16 * 8);
}

/** c[0], c[1] += a · the two B fragments of a load above. */
__device__ __forceinline__ void multiplyPair(float (&left)[4], float (&right)[4], const uint32_t (&a)[4],
                                             const uint32_t (&b)[4]) {
  const uint32_t first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
  mma16816(left, a, first);
  mma16816(right, a, second);
}

/** Two C tiles side by side, rounded, as the A of the next product. */
__device__ __forceinline__ void packRows(uint32_t (&a)[4], const float (&left)[4], const float (&right)[4]) {
  a[0] = packBf16(left[0], left[1]);
  a[1] = packBf16(left[2], left[3]);
  a[2] = packBf16(right[0], right[1]);
  a[3] = packBf16(right[2], right[3]);
}

/** 2^x to 2 units in the last place, 0 where that is smaller than 2^−126. */
__device__ __forceinline__ float exp2Fast(float x) {
#if defined(__CUDA_ARCH__)
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return exp2f(x);
#endif
}

/** A shape whose numbers, but for sizes of whole tensors, fit 32 bits; throws std::invalid_argument otherwise. */
inline AttentionShape shapeForTiles(AttentionShape s) {
  expect(s.keyTokens < int64_t{1} << 30 && s.kept < int64_t{1} << 20 && s.slots < int64_t{1} << 10 &&
             s.memories < int64_t{1} << 31,
         "Attention: a size too large for the kernels of tensor cores");
  if (s.kept == 0 || s.memories == 0 || s.start >= s.tokens) s.chunks = 0;
  s.start = s.start < s.tokens ? s.start : s.tokens;
  s.chunkLength = s.chunkLength < s.tokens ? s.chunkLength : s.tokens;
  return s;
}

/** The chunk of a query, −1 for one that reads no memories. */
__device__ __forceinline__ int chunkOf(const AttentionShape& s, int token) {
  const int chunks = static_cast<int>(s.chunks), start = static_cast<int>(s.start);
  if (s.slots == 0 || chunks == 0 || token < start) return -1;
  return min((token - start) / static_cast<int>(s.chunkLength), chunks - 1);
}

/** The chunks of queries [begin, end). */
struct ChunkRange {
  int first = 0, count = 0;
};
__device__ __forceinline__ ChunkRange chunksOf(const AttentionShape& s, int begin, int end) {
  const int last = end > begin ? chunkOf(s, end - 1) : -1;
  if (last < 0) return {};
  const int first = chunkOf(s, max(begin, static_cast<int>(s.start)));
  return {first, last - first + 1};
}

/** What stands in a slot of a chunk: `length` valid tokens, 0 where the slot is empty or names no memory. */
struct MemorySlot {
  int32_t memory, length;
};
__device__ __forceinline__ MemorySlot memorySlot(const AttentionInputs<Bf16>& in, int batch, int chunk, int slot) {
  const AttentionShape& s = in.shape;
  const int32_t memory = in.index[(batch * s.chunks + chunk) * s.slots + slot];
  if (memory < 0 || memory >= s.memories) return {0, 0};
  return {memory, min(max(in.lengths[memory], 0), static_cast<int32_t>(s.kept))};
}

/** The first key of the context that a query sees. */
__device__ __forceinline__ int firstVisibleTo(const AttentionInputs<Bf16>& in, int batch, int token) {
  return in.firstVisible == nullptr ? 0 : max(in.firstVisible[batch * in.shape.tokens + token], 0);
}

/**
 * Calls `body` with std::integral_constant<int, D> for a head dimension that has tiles. `body` is compiled for each.
 */
template <class Body>
void withDimension(int64_t dim, const Body& body) {
  switch (dim) {
    case 16: return body(std::integral_constant<int, 16>());
    case 32: return body(std::integral_constant<int, 32>());
    case 48: return body(std::integral_constant<int, 48>());
    case 64: return body(std::integral_constant<int, 64>());
    case 80: return body(std::integral_constant<int, 80>());
    case 96: return body(std::integral_constant<int, 96>());
    case 112: return body(std::integral_constant<int, 112>());
    case 128: return body(std::integral_constant<int, 128>());
    default: expect(false, "Attention: no tiles for this head dimension");
  }
}

/** Whether 16 bytes can be read at an address. */
inline bool isAligned(const void* address) { return reinterpret_cast<uintptr_t>(address) % 16 == 0; }

}  // namespace memory3
