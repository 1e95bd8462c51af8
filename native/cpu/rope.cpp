/** `Rope`, half-split: dimension i turns together with i + D/2. Legend: B batch, T tokens, D headDim. */

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels.h"

namespace memory3 {

/** cos in the first half and sin in the second half of each row, `[T, D]`; angles in double. */
static std::vector<float> makeTable(Ints positions, int64_t dim, double theta) {
  const int64_t half = dim / 2;
  std::vector<double> frequencies(half);
  for (int64_t i = 0; i < half; i++) frequencies[i] = std::pow(theta, -2.0 * i / dim);
  std::vector<float> table(positions.size * dim);
  for (int64_t token = 0; token < positions.size; token++) {
    for (int64_t i = 0; i < half; i++) {
      const double angle = positions.data[token] * frequencies[i];
      table[token * dim + i] = static_cast<float>(std::cos(angle));
      table[token * dim + half + i] = static_cast<float>(std::sin(angle));
    }
  }
  return table;
}

static constexpr std::size_t KEPT_TABLES = 16;

/** A table that was used lately or a new one: a step uses the same positions in every layer. */
static const float* tableOf(Context& context, Ints positions, int64_t dim, double theta) {
  std::list<RopeTable>& tables = context.ropeTables;
  const auto found = std::find_if(tables.begin(), tables.end(), [&](const RopeTable& table) {
    return table.dim == dim && table.theta == theta &&
           std::equal(table.positions.begin(), table.positions.end(), positions.data, positions.data + positions.size);
  });
  if (found != tables.end()) {
    tables.splice(tables.begin(), tables, found);
  } else {
    tables.push_front({{positions.data, positions.data + positions.size}, dim, theta, makeTable(positions, dim, theta)});
    if (tables.size() > KEPT_TABLES) tables.pop_back();
  }
  return tables.front().values.data();
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

void rope(Context& context, Floats x, Ints positions, int64_t heads, int64_t dim, double theta, bool inverse,
          FloatsOut out) {
  const int64_t tokens = positions.size;
  expect(dim > 0 && dim % 2 == 0, "Rope: the head dimension is not even");
  expect(tokens > 0 && heads > 0 && x.size % (tokens * heads * dim) == 0, "Rope: x does not fit the positions");
  expectSize("Rope: out", out.size, x.size);
  const float* table = tableOf(context, positions, dim, theta);
  parallelRanges(context, partsFor(context, x.size), x.size / (heads * dim), [&](Range rows) {
    rotateRows(x.data, table, inverse ? -1.0f : 1.0f, rows, tokens, heads, dim, out.data);
  });
}

}  // namespace memory3
