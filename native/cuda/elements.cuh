/**
 * What kernels that work element by element or row by row share. Numbers are read and written 16 bytes at a time where
 * their addresses allow it, and one by one where they do not: a tensor may begin anywhere in its buffer, and a row may have
 * any width. A group are the elements that a thread takes at once, 16 bytes or more of each tensor.
 */
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "context.h"

namespace memory3 {

/** Elements of a group; for the types of numbers 8, which is 16 bytes of bfloat16 and two times 16 bytes of float32. */
template <class... Ts>
constexpr int kGroupOf = std::max({8, kVector<Ts>...});
constexpr int kGroup = 8;

template <class T, int N>
struct Group {
  T at[N];
};

/** N elements; more than one lie at an address aligned to 16 bytes. */
template <int N, class T>
__device__ inline Group<T, N> loadGroup(const T* from) {
  Group<T, N> group;
  if constexpr (N == 1) {
    group.at[0] = *from;
  } else {
    static_assert(N % kVector<T> == 0, "a group is whole vectors");
#pragma unroll
    for (int i = 0; i < N; i += kVector<T>) {
      const Vector<T> part = loadVector(from + i);
#pragma unroll
      for (int j = 0; j < kVector<T>; j++) group.at[i + j] = part.at[j];
    }
  }
  return group;
}

/** To global memory. The compiler would take an assignment apart and not always find together again, so it is asked by name. */
template <int N, class T>
__device__ inline void storeGroup(T* to, const Group<T, N>& group) {
  if constexpr (N == 1) {
    *to = group.at[0];
  } else {
#pragma unroll
    for (int i = 0; i < N; i += kVector<T>) {
      expectAligned(to + i);
      uint4 words;
      memcpy(&words, group.at + i, sizeof words);
      __stwb(reinterpret_cast<uint4*>(to + i), words);
    }
  }
}

/** Whether 16 bytes can be read or written at once at all of the addresses. */
template <class... Ts>
bool aligned(const Ts*... addresses) {
  return ((reinterpret_cast<std::uintptr_t>(addresses) % 16 == 0) && ...);
}

/** An element as another type: integers lose the fraction, of booleans all but 0 are true. */
template <class To, class From>
__device__ inline To convertElement(From x) {
  if constexpr (std::is_same_v<To, From>) {
    return x;
  } else if constexpr (std::is_class_v<From>) {
    return convertElement<To>(toFloat(x));
  } else if constexpr (std::is_same_v<To, Bf16>) {
    return roundToBf16(static_cast<float>(x));
  } else if constexpr (std::is_same_v<To, uint8_t>) {
    return x != 0 ? 1 : 0;
  } else {
    return static_cast<To>(x);
  }
}

constexpr int kMapThreads = 256;

template <int N, class Body, class Out, class... Ins>
__device__ inline void mapGroup(const Body& body, Out* out, const Group<Ins, N>&... ins) {
  Group<Out, N> result;
#pragma unroll
  for (int i = 0; i < N; i++) result.at[i] = convertElement<Out>(body(ins.at[i]...));
  storeGroup(out, result);
}

/** The first `groups` groups as such, what is left element by element. */
template <class Body, class Out, class... Ins>
__global__ void mapKernel(Body body, int64_t count, int64_t groups, Out* out, const Ins*... ins) {
  constexpr int N = kGroupOf<Out, Ins...>;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t g = first; g < groups; g += step) mapGroup<N>(body, out + g * N, loadGroup<N>(ins + g * N)...);
  for (int64_t i = groups * N + first; i < count; i += step) {
    mapGroup<1>(body, out + i, loadGroup<1>(ins + i)...);
  }
}

/** The body of a map that only converts. */
struct Same {
  template <class T>
  __device__ T operator()(T x) const {
    return x;
  }
};

/** out[i] = body(ins[i]…) for `count` elements of any types; `out` may be one of `ins`. */
template <class Body, class Out, class... Ins>
void mapElements(Context& context, const Body& body, int64_t count, Out* out, const Ins*... ins) {
  if (count == 0) return;
  const int64_t groups = aligned(out, ins...) ? count / kGroupOf<Out, Ins...> : 0;
  const int64_t blocks = std::min<int64_t>(blocksFor(groups > 0 ? groups : count, kMapThreads), 32 * context.multiprocessors());
  context.launch(mapKernel<Body, Out, Ins...>, static_cast<unsigned>(blocks), kMapThreads, 0, body, count, groups, out,
                 ins...);
}

/** Where a row comes from and where it goes. Nothing comes from null: the row becomes 0. */
template <class From, class To>
struct Move {
  const From* from;
  To* to;
};

/** `Rows` tells for a row number, a uint32_t, its Move. A block takes blockDim.y rows, and of these one of `tiles` parts. */
template <int N, class From, class To, class Rows>
__global__ void moveRowsKernel(const __grid_constant__ Rows rowAt, uint32_t rows, int64_t width, uint32_t tiles) {
  const int64_t row = static_cast<int64_t>(blockIdx.x / tiles) * blockDim.y + threadIdx.y;
  const int64_t column = (static_cast<int64_t>(blockIdx.x % tiles) * blockDim.x + threadIdx.x) * N;
  if (row >= rows || column >= width) return;
  const Move<From, To> move = rowAt(static_cast<uint32_t>(row));
  Group<From, N> group{};
  if (move.from != nullptr) group = loadGroup<N>(move.from + column);
  Group<To, N> moved;
#pragma unroll
  for (int i = 0; i < N; i++) moved.at[i] = convertElement<To>(group.at[i]);
  storeGroup(move.to + column, moved);
}

/** How blocks of threads lie over rows of groups. */
struct RowGrid {
  dim3 grid, block;
  uint32_t tiles;
};

inline RowGrid rowGrid(int64_t rows, int64_t groups) {
  unsigned across = 1;
  while (across < kMapThreads && across < groups) across *= 2;
  const unsigned down = kMapThreads / across;
  const int64_t tiles = blocksFor(groups, across), blocks = blocksFor(rows, down) * tiles;
  expect(rows < (int64_t{1} << 31) && blocks < (int64_t{1} << 31), "a tensor has too many rows");
  return {dim3(static_cast<unsigned>(blocks)), dim3(across, down), static_cast<uint32_t>(tiles)};
}

/** Moves rows; with `vectors` all of them lie at addresses aligned to 16 bytes and the width is a multiple of kGroup. */
template <class From, class To, class Rows>
void moveRows(Context& context, const Rows& rowAt, int64_t rows, int64_t width, bool vectors) {
  if (rows == 0 || width == 0) return;
  const auto launch = [&](auto kernel, int64_t groups) {
    const RowGrid at = rowGrid(rows, groups);
    context.launch(kernel, at.grid, at.block, 0, rowAt, static_cast<uint32_t>(rows), width, at.tiles);
  };
  if (vectors) {
    launch(moveRowsKernel<kGroup, From, To, Rows>, width / kGroup);
  } else {
    launch(moveRowsKernel<1, From, To, Rows>, width);
  }
}

/**
 * Of the entries of a table, whose blocks follow on each other, the one that the running block belongs to: the last whose
 * `firstBlock` is at or before it.
 */
template <class Entry>
__device__ inline const Entry& ownerOfBlock(const Entry* entries, int count) {
  int low = 0, high = count - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (entries[middle].firstBlock <= blockIdx.x) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return entries[low];
}

}  // namespace memory3
