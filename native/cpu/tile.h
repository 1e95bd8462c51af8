/**
 * The inside of every matrix product: a tile of results stays in registers while it is summed. It exists for several
 * instruction sets, and the processor's is chosen when an engine starts. Without packing each operand anew, as a library's
 * general product must, whoever multiplies decides what is worth packing and for how long it is kept.
 */
#pragma once

#include "common.h"

namespace memory3 {

/** Rows of a strip: every instruction set makes its tiles from parts of it. */
constexpr int64_t STRIP_ROWS = 12;
/** Columns of a panel. */
constexpr int64_t PANEL = 16;

/** Left factor: element (row, k) stands at `data[row * rowStep + k * step]`. */
struct Left {
  const float* data;
  int64_t rowStep;
  int64_t step;
};

/** Right factor in panels: row k of panel p holds PANEL values at `data + p * panelStep + k * step`. */
struct Panels {
  const float* data;
  int64_t panelStep;
  int64_t step = PANEL;
};

/** Where the results go: `columns` of them in each row. `before` lies as `data` does; it is added, if there. */
struct Target {
  float* data;
  int64_t rowStep;
  int64_t columns;
  const float* before;
};

/** The products that exist for each instruction set. */
struct Tiles {
  const char* name;
  /** out = a · b for 1 to STRIP_ROWS rows, summed over `inner`. Whole panels of `b` are read, whatever `out` keeps. */
  void (*strip)(int64_t rows, Left a, Panels b, int64_t inner, Target out);
  /** out[i, j] = a row i · b row j, for few rows a: both as they lie, `inner` values side by side, `stride` apart. */
  void (*dots)(int64_t rows, const float* a, int64_t aStride, const float* b, int64_t bStride, int64_t inner, Target out);
};

/** The best that this processor has. */
const Tiles& bestTiles();

/** All that this processor has, the best first. */
const std::vector<const Tiles*>& availableTiles();

/**
 * Rows [first, first + count) of length `inner` as panels of rows, transposed: `[⌈count/16⌉, inner, 16]`. What lies behind
 * the last row of the last panel keeps its values.
 */
void packTransposed(const float* from, int64_t stride, int64_t count, int64_t inner, int64_t first, float* to);

/**
 * `count` rows as panels of 16 columns: `[⌈columns/16⌉, panelRows, 16]`, zeros behind the last column. They become the
 * rows [first, first + count) of each panel.
 */
void packColumns(const float* from, int64_t stride, int64_t count, int64_t columns, int64_t first, int64_t panelRows,
                 float* to);

}  // namespace memory3
