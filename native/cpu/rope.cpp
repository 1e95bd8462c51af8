/** `Rope`, half-split: dimension i turns together with i + D/2. Legend: B batch, T tokens, D headDim. */

#include <cmath>
#include <vector>

#include "kernels.h"

namespace memory3 {

/** cos in the first half and sin in the second half of each row, `[T, D]`; angles in double. */
static void fillTable(Ints positions, int64_t dim, double theta, float* table) {
  const int64_t half = dim / 2;
  std::vector<double> frequencies(half);
  for (int64_t i = 0; i < half; i++) frequencies[i] = std::pow(theta, -2.0 * i / dim);
  for (int64_t token = 0; token < positions.size; token++) {
    for (int64_t i = 0; i < half; i++) {
      const double angle = positions.data[token] * frequencies[i];
      table[token * dim + i] = static_cast<float>(std::cos(angle));
      table[token * dim + half + i] = static_cast<float>(std::sin(angle));
    }
  }
}

void ropeTable(Context&, Ints positions, int64_t dim, double theta, FloatsOut table) {
  expect(dim > 0 && dim % 2 == 0, "Rope: the head dimension is not even");
  expectSize("Rope: table", table.size, positions.size * dim);
  fillTable(positions, dim, theta, table.data);
}

/** `sign` −1 turns back. */
MEMORY3_VECTORISED static void rotateRows(const float* x, const float* table, float sign, Range rows, int64_t tokens,
                                          int64_t heads, int64_t dim, float* out) {
  const int64_t half = dim / 2;
  for (int64_t row = rows.begin; row < rows.end; row++) {
    const float* cosine = table + (row % tokens) * dim;
    const float* sine = cosine + half;
    for (int64_t head = 0; head < heads; head++) {
      const float* from = x + (row * heads + head) * dim;
      float* to = out + (row * heads + head) * dim;
#pragma omp simd
      for (int64_t i = 0; i < half; i++) {
        const float turn = sign * sine[i];
        to[i] = from[i] * cosine[i] - from[i + half] * turn;
        to[i + half] = from[i + half] * cosine[i] + from[i] * turn;
      }
    }
  }
}

void rope(Context& context, Floats x, Floats table, int64_t tokens, int64_t heads, bool inverse, FloatsOut out) {
  expect(tokens > 0 && heads > 0 && table.size % tokens == 0, "Rope: the table does not fit the tokens");
  const int64_t dim = table.size / tokens;
  expect(dim > 0 && x.size % (tokens * heads * dim) == 0, "Rope: x does not fit the table");
  expectSize("Rope: out", out.size, x.size);
  parallelRanges(context, partsFor(context, x.size), x.size / (heads * dim), [&](Range rows) {
    rotateRows(x.data, table.data, inverse ? -1.0f : 1.0f, rows, tokens, heads, dim, out.data);
  });
}

}  // namespace memory3
