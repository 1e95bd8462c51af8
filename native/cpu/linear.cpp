/**
 * `Linear`: maps of the same rows, out_i = x[N, in] · weight_i[out_i, in]ᵀ, and matrix products in general.
 * Legend: N rows.
 */

#include <algorithm>
#include <numeric>

#include "gemm.h"
#include "kernels.h"

namespace memory3 {

/** Checks sizes. @returns the width of x */
static int64_t inputsOf(const char* name, Floats x, FloatsList weights, int64_t rows) {
  expect(rows > 0 && x.size > 0 && x.size % rows == 0, name);
  const int64_t inputs = x.size / rows;
  for (const Floats& weight : weights) expectSize(name, weight.size, weight.size / inputs * inputs);
  return inputs;
}

void linear(Context& context, Floats x, FloatsList weights, Floats residual, int64_t rows, FloatsOutList outs) {
  const int64_t inputs = inputsOf("Linear: x or a weight", x, weights, rows);
  expectSize("Linear: outputs", static_cast<int64_t>(outs.size()), static_cast<int64_t>(weights.size()));
  std::vector<Product> products;
  for (std::size_t i = 0; i < weights.size(); i++) {
    const int64_t outputs = weights[i].size / inputs;
    expectSize("Linear: out", outs[i].size, rows * outputs);
    if (residual.size > 0) expectSize("Linear: residual", residual.size, outs[i].size);
    products.push_back({outputs, inputs, {x.data, inputs}, {weights[i].data, inputs, true}, outs[i].data, outputs,
                        residual.size > 0 ? residual.data : nullptr});
  }
  gemm(context, rows, products);
}

/** Rows that go backward together: what the first product has read is still in the cache for the second. */
static constexpr int64_t BLOCK_ROWS = 512;
static constexpr int ROW_PARTS = 2;

/** What the gradients are made of; `width[i]` is the number of outputs of map i. */
struct Maps {
  Floats x;
  FloatsList weights;
  FloatsList dys;
  int64_t rows;
  int64_t inputs;
  std::vector<int64_t> widths;
  FloatsOut dx;
  FloatsOutList dWeights;

  /** Values of all weights. */
  int64_t size() const { return inputs * std::accumulate(widths.begin(), widths.end(), int64_t{0}); }

  /** The product that adds map i to dx. */
  Product ofX(std::size_t i) const {
    return {inputs, widths[i], {dys[i].data, widths[i]}, {weights[i].data, inputs}, dx.data, inputs,
            i > 0 ? dx.data : nullptr};
  }

  /** The product of some rows that gives the gradient of weight i. */
  Product ofWeight(std::size_t i, Range some, float* out, const float* before) const {
    return {inputs, some.size(), {dys[i].data + some.begin * widths[i], widths[i], true},
            {x.data + some.begin * inputs, inputs}, out, inputs, before};
  }
};

/** Each part takes its rows backward by blocks and sums the gradients of the weights in a place of its own. */
static void gradientsByRows(Context& context, const Maps& maps, int parts) {
  const int64_t step = padded(maps.size());
  float* sums = context.scratch.floats(parts * step);
  context.pool->run(parts, [&](int part) {
    const Range own = partOf(maps.rows, part, parts);
    for (int64_t row = own.begin; row < own.end; row += BLOCK_ROWS) {
      const Range some{row, std::min(row + BLOCK_ROWS, own.end)};
      float* sum = sums + part * step;
      for (std::size_t i = 0; i < maps.widths.size(); sum += maps.weights[i].size, i++) {
        gemmRows(context, maps.ofX(i), some);
        gemmRows(context, maps.ofWeight(i, some, sum, row > own.begin ? sum : nullptr), {0, maps.widths[i]});
      }
    }
  });
  const float* sum = sums;
  for (const FloatsOut& dWeight : maps.dWeights) {
    parallelRanges(context, partsFor(context, static_cast<double>(parts) * dWeight.size), dWeight.size, [&](Range own) {
      sumParts(sum + own.begin, step, parts, own.size(), dWeight.data + own.begin);
    });
    sum += dWeight.size;
  }
}

void linearGrad(Context& context, Floats x, FloatsList weights, FloatsList dys, int64_t rows, FloatsOut dx,
                FloatsOutList dWeights) {
  const int64_t inputs = inputsOf("LinearGrad: x or a weight", x, weights, rows);
  expectSize("LinearGrad: dx", dx.size, x.size);
  expectSize("LinearGrad: dy", static_cast<int64_t>(dys.size()), static_cast<int64_t>(weights.size()));
  expectSize("LinearGrad: dWeight", static_cast<int64_t>(dWeights.size()), static_cast<int64_t>(weights.size()));
  Maps maps{x, weights, dys, rows, inputs, {}, dx, dWeights};
  for (std::size_t i = 0; i < weights.size(); i++) {
    maps.widths.push_back(weights[i].size / inputs);
    expectSize("LinearGrad: dy", dys[i].size, rows * maps.widths[i]);
    expectSize("LinearGrad: dWeight", dWeights[i].size, weights[i].size);
  }
  // Sums of its own for each part pay while they are small beside the rows.
  const int parts = context.pool->threads() * ROW_PARTS;
  if (parts * BLOCK_ROWS <= rows && parts * maps.size() <= rows * (inputs + maps.size() / inputs) / 2) {
    gradientsByRows(context, maps, parts);
    return;
  }
  std::vector<Product> ofX;
  for (std::size_t i = 0; i < weights.size(); i++) ofX.push_back(maps.ofX(i));
  gemm(context, rows, ofX);
  for (std::size_t i = 0; i < weights.size(); i++) {
    gemm(context, maps.widths[i], maps.ofWeight(i, {0, rows}, dWeights[i].data, nullptr));
  }
}

void matMul(Context& context, Floats a, Floats b, int64_t rows, int64_t columns, int64_t inner, bool transposeA,
            bool transposeB, FloatsOut out) {
  expectSize("BatchMatMul: a", a.size, rows * inner);
  expectSize("BatchMatMul: b", b.size, inner * columns);
  expectSize("BatchMatMul: out", out.size, rows * columns);
  gemm(context, rows, {columns, inner, {a.data, transposeA ? rows : inner, transposeA},
                       {b.data, transposeB ? inner : columns, transposeB}, out.data, columns});
}

}  // namespace memory3
