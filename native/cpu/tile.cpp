#include "tile.h"

#include <algorithm>
#include <cstring>

#include "vector_math.h"

namespace memory3 {

/** Part of a target from a row and a column on. */
MEMORY3_INLINE Target from(const Target& out, int64_t row, int64_t column) {
  const int64_t at = row * out.rowStep + column;
  return {out.data + at, out.rowStep, out.columns - column, out.before ? out.before + at : nullptr};
}

/** Panels from a column on, a multiple of PANEL. */
MEMORY3_INLINE Panels from(const Panels& b, int64_t column) {
  return {b.data + column / PANEL * b.panelStep, b.panelStep, b.step};
}

/** `Rows` × `Count` panels of results in vectors of type V. The loops over them are unrolled, so that they stay in registers. */
template <class V, int Rows, int Count>
MEMORY3_INLINE void multiplyTile(Left a, Panels b, int64_t inner, const Target& out) {
  constexpr int width = sizeof(V) / sizeof(float);
  constexpr int each = PANEL / width;
  constexpr int vectors = Count * each;
  V sums[Rows][vectors] = {};
  for (int64_t k = 0; k < inner; k++) {
    V right[vectors];
#pragma GCC unroll 16
    for (int i = 0; i < vectors; i++) load(b.data + i / each * b.panelStep + k * b.step + i % each * width, right[i]);
#pragma GCC unroll 16
    for (int row = 0; row < Rows; row++) {
      const float left = a.data[row * a.rowStep + k * a.step];
#pragma GCC unroll 16
      for (int i = 0; i < vectors; i++) sums[row][i] += right[i] * left;
    }
  }
#pragma GCC unroll 16
  for (int row = 0; row < Rows; row++) {
#pragma GCC unroll 16
    for (int i = 0; i < vectors; i++) {
      const int64_t at = row * out.rowStep + i * width;
      if (out.before) {
        V before;
        load(out.before + at, before);
        sums[row][i] += before;
      }
      std::memcpy(out.data + at, &sums[row][i], sizeof(V));
    }
  }
}

/** The last panel, of which only some columns are wanted. */
template <class V, int Rows>
MEMORY3_INLINE void multiplyEdge(Left a, Panels b, int64_t inner, const Target& out) {
  float sums[Rows * PANEL];
  multiplyTile<V, Rows, 1>(a, b, inner, {sums, PANEL, PANEL, nullptr});
  for (int row = 0; row < Rows; row++) {
    for (int64_t i = 0; i < out.columns; i++) {
      const int64_t at = row * out.rowStep + i;
      out.data[at] = sums[row * PANEL + i] + (out.before ? out.before[at] : 0);
    }
  }
}

/** Tiles of `Rows` rows and up to `Most` panels, for all columns. */
template <class V, int Rows, int Most>
MEMORY3_INLINE void multiplyRows(Left a, Panels b, int64_t inner, const Target& out) {
  int64_t column = 0;
  if constexpr (Most > 1) {
    for (; column + Most * PANEL <= out.columns; column += Most * PANEL) {
      multiplyTile<V, Rows, Most>(a, from(b, column), inner, from(out, 0, column));
    }
  }
  for (; column + PANEL <= out.columns; column += PANEL) {
    multiplyTile<V, Rows, 1>(a, from(b, column), inner, from(out, 0, column));
  }
  if (column == out.columns) return;
  multiplyEdge<V, Rows>(a, from(b, column), inner, from(out, 0, column));
}

template <class V, int Rows, int Most>
MEMORY3_INLINE void multiplyFewerRows(int64_t rows, Left a, Panels b, int64_t inner, const Target& out) {
  if (rows == Rows) return multiplyRows<V, Rows, Most>(a, b, inner, out);
  if constexpr (Rows > 1) multiplyFewerRows<V, Rows - 1, Most>(rows, a, b, inner, out);
}

/** A strip, in tiles of at most `Rows` × `Most` panels. */
template <class V, int Rows, int Most>
MEMORY3_INLINE void multiplyStrip(int64_t rows, Left a, Panels b, int64_t inner, const Target& out) {
  static_assert(STRIP_ROWS % Rows == 0, "a strip is made of whole tiles");
  for (int64_t row = 0; row < rows; row += Rows) {
    multiplyFewerRows<V, Rows, Most>(std::min<int64_t>(Rows, rows - row), {a.data + row * a.rowStep, a.rowStep, a.step}, b,
                                     inner, from(out, row, 0));
  }
}

// The first four numbers choose lanes of the first vector, 4 to 7 those of the second.
#if defined(__clang__)
#define MEMORY3_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
using Lanes4Order = int32_t __attribute__((vector_size(16)));
#define MEMORY3_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, Lanes4Order{__VA_ARGS__})
#endif

MEMORY3_INLINE void transpose(Lanes4 (&rows)[4]) {
  const Lanes4 low01 = MEMORY3_SHUFFLE(rows[0], rows[1], 0, 4, 1, 5);
  const Lanes4 high01 = MEMORY3_SHUFFLE(rows[0], rows[1], 2, 6, 3, 7);
  const Lanes4 low23 = MEMORY3_SHUFFLE(rows[2], rows[3], 0, 4, 1, 5);
  const Lanes4 high23 = MEMORY3_SHUFFLE(rows[2], rows[3], 2, 6, 3, 7);
  rows[0] = MEMORY3_SHUFFLE(low01, low23, 0, 1, 4, 5);
  rows[1] = MEMORY3_SHUFFLE(low01, low23, 2, 3, 6, 7);
  rows[2] = MEMORY3_SHUFFLE(high01, high23, 0, 1, 4, 5);
  rows[3] = MEMORY3_SHUFFLE(high01, high23, 2, 3, 6, 7);
}

/** The sum of the lanes of each vector. */
MEMORY3_INLINE void addLanes(Lanes4 (&vectors)[4], float (&totals)[4]) {
  transpose(vectors);
  const Lanes4 sum = (vectors[0] + vectors[2]) + (vectors[1] + vectors[3]);
  std::memcpy(totals, &sum, sizeof sum);
}

MEMORY3_INLINE void addLanes(Lanes4 (&vectors)[1], float (&totals)[1]) {
  totals[0] = sumOfLanes(vectors[0]);
}

/** Products of `Rows` rows with `Columns` rows. */
template <class V, int Rows, int Columns>
MEMORY3_INLINE void dotTile(const float* a, int64_t aStride, const float* b, int64_t bStride, int64_t inner,
                            const Target& out) {
  constexpr int width = sizeof(V) / sizeof(float);
  V sums[Rows][Columns] = {};
  int64_t k = 0;
  for (; k + width <= inner; k += width) {
    V right[Columns];
#pragma GCC unroll 4
    for (int j = 0; j < Columns; j++) load(b + j * bStride + k, right[j]);
#pragma GCC unroll 4
    for (int i = 0; i < Rows; i++) {
      V left;
      load(a + i * aStride + k, left);
#pragma GCC unroll 4
      for (int j = 0; j < Columns; j++) sums[i][j] += left * right[j];
    }
  }
  for (int i = 0; i < Rows; i++) {
    Lanes4 folded[Columns];
#pragma GCC unroll 4
    for (int j = 0; j < Columns; j++) folded[j] = foldToFour(sums[i][j]);
    float totals[Columns];
    addLanes(folded, totals);
    for (int j = 0; j < Columns; j++) {
      for (int64_t rest = k; rest < inner; rest++) totals[j] += a[i * aStride + rest] * b[j * bStride + rest];
      const int64_t at = i * out.rowStep + j;
      out.data[at] = totals[j] + (out.before ? out.before[at] : 0);
    }
  }
}

/** All rows with `Columns` rows of `b`, which stay in the cache meanwhile. */
template <class V, int Most, int Columns>
MEMORY3_INLINE void dotColumns(int64_t rows, const float* a, int64_t aStride, const float* b, int64_t bStride,
                               int64_t inner, const Target& out) {
  int64_t row = 0;
  for (; row + Most <= rows; row += Most) {
    dotTile<V, Most, Columns>(a + row * aStride, aStride, b, bStride, inner, from(out, row, 0));
  }
  for (; row < rows; row++) dotTile<V, 1, Columns>(a + row * aStride, aStride, b, bStride, inner, from(out, row, 0));
}

template <class V, int Most>
MEMORY3_INLINE void allDots(int64_t rows, const float* a, int64_t aStride, const float* b, int64_t bStride, int64_t inner,
                            const Target& out) {
  int64_t column = 0;
  for (; column + 4 <= out.columns; column += 4) {
    dotColumns<V, Most, 4>(rows, a, aStride, b + column * bStride, bStride, inner, from(out, 0, column));
  }
  for (; column < out.columns; column++) {
    dotColumns<V, Most, 1>(rows, a, aStride, b + column * bStride, bStride, inner, from(out, 0, column));
  }
}

/** Defines `Tiles` named `name` from code compiled for `target`. */
#define MEMORY3_TILES(name, label, target, V, rows, panels, dotRows)                                                     \
  target static void name##Strip(int64_t count, Left a, Panels b, int64_t inner, Target out) {                          \
    multiplyStrip<V, rows, panels>(count, a, b, inner, out);                                                             \
  }                                                                                                                      \
  target static void name##Dots(int64_t count, const float* a, int64_t aStride, const float* b, int64_t bStride,        \
                                int64_t inner, Target out) {                                                             \
    allDots<V, dotRows>(count, a, aStride, b, bStride, inner, out);                                                      \
  }                                                                                                                      \
  static constexpr Tiles name{label, name##Strip, name##Dots}

#if defined(__aarch64__)
MEMORY3_TILES(plainTiles, "NEON", , Lanes4, 6, 1, 4);
#else
MEMORY3_TILES(plainTiles, "baseline", , Lanes4, 2, 1, 2);
#endif

#if defined(__x86_64__) && defined(__GNUC__)
MEMORY3_TILES(avx2Tiles, "AVX2", __attribute__((target("avx2,fma"))), Lanes8, 6, 1, 2);
MEMORY3_TILES(avx512Tiles, "AVX-512", __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma"))), Lanes16, 12,
              2, 4);
#endif

const std::vector<const Tiles*>& availableTiles() {
  static const std::vector<const Tiles*> available = [] {
    std::vector<const Tiles*> found;
#if defined(__x86_64__) && defined(__GNUC__)
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
    if (avx512) found.push_back(&avx512Tiles);
    if (avx2) found.push_back(&avx2Tiles);
#endif
    found.push_back(&plainTiles);
    return found;
  }();
  return available;
}

const Tiles& bestTiles() { return *availableTiles().front(); }

/** A block of 4 × 4 values, transposed. */
static void transposeBlock(const float* from, int64_t stride, float* to) {
  Lanes4 rows[4];
  for (int i = 0; i < 4; i++) load(from + i * stride, rows[i]);
  transpose(rows);
  for (int i = 0; i < 4; i++) std::memcpy(to + i * PANEL, &rows[i], sizeof(Lanes4));
}

void packTransposed(const float* from, int64_t stride, int64_t count, int64_t inner, int64_t first, float* to) {
  int64_t row = 0;
  while (row < count) {
    const int64_t place = first + row;
    float* panel = to + place / PANEL * PANEL * inner + place % PANEL;
    const float* source = from + row * stride;
    const bool block = place % 4 == 0 && row + 4 <= count;
    int64_t k = 0;
    for (; block && k + 4 <= inner; k += 4) transposeBlock(source + k, stride, panel + k * PANEL);
    const int64_t rows = block ? 4 : 1;
    for (int64_t i = 0; i < rows; i++) {
      for (int64_t rest = k; rest < inner; rest++) panel[rest * PANEL + i] = source[i * stride + rest];
    }
    row += rows;
  }
}

void packColumns(const float* from, int64_t stride, int64_t count, int64_t columns, int64_t first, int64_t panelRows,
                 float* to) {
  // A few rows at a time, so that they are read from end to end.
  constexpr int64_t together = 8;
  for (int64_t begin = 0; begin < count; begin += together) {
    const int64_t end = std::min(begin + together, count);
    for (int64_t column = 0; column < columns; column += PANEL) {
      const int64_t width = std::min(PANEL, columns - column);
      float* panel = to + column * panelRows + first * PANEL;
      for (int64_t row = begin; row < end; row++) {
        const float* source = from + row * stride + column;
        if (width == PANEL) {
          std::memcpy(panel + row * PANEL, source, PANEL * sizeof(float));
        } else {
          std::memcpy(panel + row * PANEL, source, width * sizeof(float));
          std::fill(panel + row * PANEL + width, panel + (row + 1) * PANEL, 0.0f);
        }
      }
    }
  }
}

}  // namespace memory3
