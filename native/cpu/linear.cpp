/**
 * `Linear`: maps of the same rows, out_i = x[N, in] · weight_i[out_i, in]ᵀ, and matrix products in general.
 * Legend: N rows.
 */

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

void linearGrad(Context& context, Floats x, FloatsList weights, FloatsList dys, int64_t rows, FloatsOut dx,
                FloatsOutList dWeights) {
  const int64_t inputs = inputsOf("LinearGrad: x or a weight", x, weights, rows);
  expectSize("LinearGrad: dx", dx.size, x.size);
  expectSize("LinearGrad: dy", static_cast<int64_t>(dys.size()), static_cast<int64_t>(weights.size()));
  expectSize("LinearGrad: dWeight", static_cast<int64_t>(dWeights.size()), static_cast<int64_t>(weights.size()));
  std::vector<Product> ofX;
  for (std::size_t i = 0; i < weights.size(); i++) {
    const int64_t outputs = weights[i].size / inputs;
    expectSize("LinearGrad: dy", dys[i].size, rows * outputs);
    expectSize("LinearGrad: dWeight", dWeights[i].size, weights[i].size);
    ofX.push_back({inputs, outputs, {dys[i].data, outputs}, {weights[i].data, inputs}, dx.data, inputs,
                   i > 0 ? dx.data : nullptr});
  }
  gemm(context, rows, ofX);
  for (std::size_t i = 0; i < weights.size(); i++) {
    const int64_t outputs = weights[i].size / inputs;
    gemm(context, outputs, {inputs, rows, {dys[i].data, outputs, true}, {x.data, inputs}, dWeights[i].data, inputs});
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
