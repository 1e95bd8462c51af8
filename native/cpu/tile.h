/**
 * Products of small matrices out of packed panels, for attention: a tile of up to 6 × 16 results stays in registers while
 * it is summed. Without packing each block anew, as a general product must, keys and values are packed once for all
 * blocks of queries that read them.
 */
#pragma once

#include <algorithm>

#include "vector_math.h"

namespace memory3 {

constexpr int64_t TILE_ROWS = 6;
constexpr int64_t TILE_COLUMNS = 16;

/** Left factor: element (row, k) stands at `data[row * rowStep + k * step]`. */
struct Left {
  const float* data;
  int64_t rowStep;
  int64_t step;
};

/** Right factor: row k holds TILE_COLUMNS values at `data + k * step`. */
struct Right {
  const float* data;
  int64_t step;
};

/** Where a tile goes; only `columns` of its columns are stored. */
struct Target {
  float* data;
  int64_t rowStep;
  int64_t columns;
  bool add;
};

template <int Rows>
MEMORY3_INLINE void multiplyTile(Left a, Right b, int64_t inner, Target out) {
  Lanes8 low[Rows] = {};
  Lanes8 high[Rows] = {};
  for (int64_t k = 0; k < inner; k++) {
    Lanes8 left, right;
    load(b.data + k * b.step, left);
    load(b.data + k * b.step + 8, right);
    for (int row = 0; row < Rows; row++) {
      const float factor = a.data[row * a.rowStep + k * a.step];
      low[row] += left * factor;
      high[row] += right * factor;
    }
  }
  for (int row = 0; row < Rows; row++) {
    float* to = out.data + row * out.rowStep;
    if (out.columns >= TILE_COLUMNS) {
      Lanes8 left = {}, right = {};
      if (out.add) {
        load(to, left);
        load(to + 8, right);
      }
      left += low[row];
      right += high[row];
      std::memcpy(to, &left, sizeof left);
      std::memcpy(to + 8, &right, sizeof right);
    } else {
      float values[TILE_COLUMNS];
      std::memcpy(values, &low[row], sizeof low[row]);
      std::memcpy(values + 8, &high[row], sizeof high[row]);
      for (int64_t i = 0; i < out.columns; i++) to[i] = values[i] + (out.add ? to[i] : 0);
    }
  }
}

/** One tile of `rows` ≤ TILE_ROWS rows: out = a · b over `inner`. */
MEMORY3_INLINE void multiplyTile(int64_t rows, Left a, Right b, int64_t inner, Target out) {
  switch (rows) {
    case 1: return multiplyTile<1>(a, b, inner, out);
    case 2: return multiplyTile<2>(a, b, inner, out);
    case 3: return multiplyTile<3>(a, b, inner, out);
    case 4: return multiplyTile<4>(a, b, inner, out);
    case 5: return multiplyTile<5>(a, b, inner, out);
    default: return multiplyTile<6>(a, b, inner, out);
  }
}

/**
 * Rows of length `dim` as panels of 16 rows, transposed: `[⌈count/16⌉, dim, 16]`. Writes rows [first, first + count);
 * what lies behind the last row of the last panel keeps its values.
 */
inline void packTransposed(const float* from, int64_t stride, int64_t count, int64_t dim, int64_t first, float* to) {
  for (int64_t row = 0; row < count; row++) {
    const int64_t place = first + row;
    float* panel = to + place / TILE_COLUMNS * TILE_COLUMNS * dim + place % TILE_COLUMNS;
    for (int64_t i = 0; i < dim; i++) panel[i * TILE_COLUMNS] = from[row * stride + i];
  }
}

/** Rows of length `dim` as panels of 16 columns: `[⌈dim/16⌉, rows, 16]`, zeros behind the last column. */
inline void packColumns(const float* from, int64_t stride, int64_t count, int64_t dim, int64_t first, int64_t rows,
                        float* to) {
  for (int64_t column = 0; column < dim; column += TILE_COLUMNS) {
    const int64_t width = std::min(TILE_COLUMNS, dim - column);
    float* panel = to + column * rows + first * TILE_COLUMNS;
    for (int64_t row = 0; row < count; row++, panel += TILE_COLUMNS) {
      std::memcpy(panel, from + row * stride + column, width * sizeof(float));
      for (int64_t i = width; i < TILE_COLUMNS; i++) panel[i] = 0;
    }
  }
}

}  // namespace memory3
