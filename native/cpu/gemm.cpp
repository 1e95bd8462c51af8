/**
 * Products in three loops around the tile. The output is cut into a grid of parts. Each packs the columns of `b` that it
 * needs, a block that fits the second-level cache at a time, and takes the rows of `a` as they lie where it can, for a strip
 * of them stays in the first-level cache while it meets all panels of the block. Parts share nothing, since what one core
 * has packed costs another more than to pack it again.
 */

#include "gemm.h"

#include <algorithm>
#include <cstring>

#include "tile.h"

namespace memory3 {

/** Inner length of a block, about: a strip of `a` takes 18 KiB. */
static constexpr int64_t BLOCK_INNER = 384;
/** Columns of a block: with BLOCK_INNER 768 KiB. */
static constexpr int64_t BLOCK_COLUMNS = 512;
/** Rows of `a` that are copied together: as many as use whole cache lines. */
static constexpr int64_t COPIED_ROWS = 4 * STRIP_ROWS;
/** Rows this far apart, in elements, fall on the same places of a cache and drive each other out. */
static constexpr int64_t CACHE_PERIOD = 1024;
/** Rows of `b` at most so far apart, in elements, are read as they lie: a panel of them touches few pages of memory. */
static constexpr int64_t CLOSE_ROWS = 256;
/** Up to so many rows, rows of a transposed `b` are read once as they lie; packing would read and write them as well. */
static constexpr int64_t FEW_ROWS = 8;
/** To pack an element takes as long as so many multiplications, about. */
static constexpr double PACKING_COST = 16;
/** The share of a product that more parts than threads may cost. */
static constexpr double PACKING_SHARE = 0.05;

namespace {

constexpr int64_t roundUp(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

/** Some rows and columns of `b` as panels: as they lie where they are close together, else packed. */
Panels takeB(const Matrix& b, Range inner, Range columns, float* copy) {
  const int64_t width = inner.size();
  const float* first = b.data + (b.transposed ? columns.begin * b.stride + inner.begin
                                              : inner.begin * b.stride + columns.begin);
  if (!b.transposed && b.stride <= CLOSE_ROWS && columns.size() % PANEL == 0) return {first, PANEL, b.stride};
  if (!b.transposed) {
    packColumns(first, b.stride, width, columns.size(), 0, width, copy);
  } else {
    const int64_t full = columns.size() / PANEL * PANEL;
    std::fill(copy + full * width, copy + roundUp(columns.size(), PANEL) * width, 0.0f);
    packTransposed(first, b.stride, columns.size(), width, 0, copy);
  }
  return {copy, PANEL * width};
}

/** Some strips of a transposed `a`: `[strips, inner, 12]`. */
void packA(const Matrix& a, Range inner, Range rows, float* to) {
  for (int64_t k = 0; k < inner.size(); k++, to += STRIP_ROWS) {
    const float* from = a.data + (inner.begin + k) * a.stride + rows.begin;
    int64_t row = 0;
    for (; row + STRIP_ROWS <= rows.size(); row += STRIP_ROWS) {
      std::memcpy(to + row * inner.size(), from + row, STRIP_ROWS * sizeof(float));
    }
    for (int64_t last = row; last < rows.size(); last++) to[row * inner.size() + last - row] = from[last];
  }
}

/** Some rows of `a` for the tiles, as they lie where that is well. @returns the first; strips are `stripStep` apart */
Left takeA(const Matrix& a, Range inner, Range rows, float* copy, int64_t& stripStep) {
  if (a.transposed) {
    packA(a, inner, rows, copy);
    stripStep = STRIP_ROWS * inner.size();
    return {copy, 1, STRIP_ROWS};
  }
  const float* first = a.data + rows.begin * a.stride + inner.begin;
  if (a.stride % CACHE_PERIOD != 0) {
    stripStep = STRIP_ROWS * a.stride;
    return {first, a.stride, 1};
  }
  const int64_t stride = inner.size() + PANEL;
  for (int64_t row = 0; row < rows.size(); row++) {
    std::memcpy(copy + row * stride, first + row * a.stride, inner.size() * sizeof(float));
  }
  stripStep = STRIP_ROWS * stride;
  return {copy, stride, 1};
}

/** Fetches what a strip that comes later will read and write: hardware does not foresee rows. */
void prefetchStrip(const Product& product, Range inner, Range rows, Range columns) {
  constexpr int64_t line = 16;
  for (int64_t row = rows.begin; row < rows.end; row++) {
    const float* out = product.out + row * product.outStride;
    for (int64_t i = columns.begin; i < columns.end; i += line) __builtin_prefetch(out + i, 1, 2);
    if (product.a.transposed) continue;
    const float* a = product.a.data + row * product.a.stride;
    for (int64_t k = inner.begin; k < inner.end; k += line) __builtin_prefetch(a + k, 0, 2);
  }
}

void multiplyBlock(const Tiles& tiles, const Product& product, Range inner, Range rows, Range columns,
                   Panels panels, float* copy) {
  const float* before = inner.begin > 0 ? product.out : product.before;
  for (int64_t first = rows.begin; first < rows.end; first += COPIED_ROWS) {
    const Range group{first, std::min(first + COPIED_ROWS, rows.end)};
    int64_t stripStep;
    Left left = takeA(product.a, inner, group, copy, stripStep);
    for (int64_t row = group.begin; row < group.end; row += STRIP_ROWS, left.data += stripStep) {
      const int64_t at = row * product.outStride + columns.begin;
      const int64_t later = std::min(row + 2 * STRIP_ROWS, rows.end);
      prefetchStrip(product, inner, {later, std::min(later + STRIP_ROWS, rows.end)}, columns);
      tiles.strip(std::min(STRIP_ROWS, group.end - row), left, panels, inner.size(),
                  {product.out + at, product.outStride, columns.size(), before ? before + at : nullptr});
    }
  }
}

void multiplyPart(const Tiles& tiles, const Product& product, Range rows, Range columns) {
  thread_local Scratch scratch;
  const int64_t inner = product.inner;
  const int64_t blocks = std::max<int64_t>(1, (inner + BLOCK_INNER / 2) / BLOCK_INNER);
  const int64_t longest = (inner + blocks - 1) / blocks;
  const int64_t sizeOfB = longest * std::min(BLOCK_COLUMNS, roundUp(columns.size(), PANEL));
  float* packedB = scratch.floats(sizeOfB + COPIED_ROWS * (longest + PANEL));
  float* copiedA = packedB + sizeOfB;
  for (int64_t column = columns.begin; column < columns.end; column += BLOCK_COLUMNS) {
    const Range own{column, std::min(column + BLOCK_COLUMNS, columns.end)};
    for (int64_t block = 0; block < blocks; block++) {
      const Range part{inner * block / blocks, inner * (block + 1) / blocks};
      multiplyBlock(tiles, product, part, rows, own, takeB(product.b, part, own, packedB), copiedA);
    }
  }
}

/** Rows and columns of parts. */
struct Grid {
  int rows;
  int columns;
  double packing;  // elements that all parts together pack
};

/** The grid of so many parts that packs least. */
Grid gridOf(int parts, int64_t rows, const Product& product) {
  const auto inner = static_cast<double>(product.inner);
  Grid best{parts, 1, 0};
  for (int across = 1; across <= parts; across++) {
    if (parts % across != 0 || (across > 1 && product.columns < across * 2 * PANEL)) continue;
    const int down = parts / across;
    if (down > 1 && rows < down * STRIP_ROWS) continue;
    // To read from afar is a part of the cost.
    const double ofA = (product.a.transposed ? 1 : 0.5) * across * rows * inner;
    const double packing = ofA + down * product.columns * inner;
    if (best.packing == 0 || packing < best.packing) best = {down, across, packing};
  }
  return best;
}

Grid gridFor(const Context& context, int64_t rows, const Product& product) {
  const double work = static_cast<double>(rows) * product.columns * product.inner;
  int parts = partsFor(context, work / 16);
  Grid grid = gridOf(parts, rows, product);
  while (parts > context.pool->threads() && PACKING_COST * grid.packing > PACKING_SHARE * work) {
    parts /= 2;
    grid = gridOf(parts, rows, product);
  }
  return grid;
}

/** For few rows: both factors as they lie. */
void multiplyFewRows(const Context& context, int64_t rows, const Product& product) {
  const int64_t groups = (product.columns + 3) / 4;
  const int parts = partsFor(context, static_cast<double>(rows) * product.columns * product.inner / 4);
  parallelRanges(context, parts, groups, [&](Range own) {
    const int64_t first = 4 * own.begin;
    context.tiles->dots(rows, product.a.data, product.a.stride, product.b.data + first * product.b.stride,
                        product.b.stride, product.inner,
                        {product.out + first, product.outStride, std::min(4 * own.end, product.columns) - first,
                         product.before ? product.before + first : nullptr});
  });
}

Range rowsOf(Range strips, int64_t rows) { return {strips.begin * STRIP_ROWS, std::min(strips.end * STRIP_ROWS, rows)}; }

}  // namespace

void prepareThread() {}

std::string describeProducts(const Context& context) { return context.tiles->name; }

void gemmRows(const Context& context, const Product& product, Range rows) {
  if (rows.size() > 0 && product.columns > 0) multiplyPart(*context.tiles, product, rows, {0, product.columns});
}

void gemm(Context& context, int64_t rows, const Product& product) {
  if (rows == 0 || product.columns == 0) return;
  if (rows <= FEW_ROWS && product.b.transposed && !product.a.transposed) {
    multiplyFewRows(context, rows, product);
    return;
  }
  const Grid grid = gridFor(context, rows, product);
  const int64_t strips = roundUp(rows, STRIP_ROWS) / STRIP_ROWS;
  const int64_t panels = roundUp(product.columns, 2 * PANEL) / (2 * PANEL);
  context.pool->run(grid.rows * grid.columns, [&](int part) {
    const Range own = partOf(panels, part % grid.columns, grid.columns);
    multiplyPart(*context.tiles, product, rowsOf(partOf(strips, part / grid.columns, grid.rows), rows),
                 {own.begin * 2 * PANEL, std::min(own.end * 2 * PANEL, product.columns)});
  });
}

void gemm(Context& context, int64_t rows, const std::vector<Product>& products) {
  double work = 0;
  for (const Product& product : products) work += static_cast<double>(rows) * product.columns * product.inner;
  const int parts = partsFor(context, work / 16);
  const int64_t strips = roundUp(rows, STRIP_ROWS) / STRIP_ROWS;
  if (rows < parts * COPIED_ROWS) {
    for (const Product& product : products) gemm(context, rows, product);
    return;
  }
  parallelRanges(context, parts, strips, [&](Range own) {
    for (const Product& product : products) gemmRows(context, product, rowsOf(own, rows));
  });
}

}  // namespace memory3
