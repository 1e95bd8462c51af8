/** `Linear`: x[N, in] · weight[out, in]ᵀ, and matrix products in general. */

#include "gemm.h"
#include "kernels.h"

namespace memory3 {

void linear(Context& context, Floats x, Floats weight, int64_t rows, FloatsOut out) {
  expect(rows > 0 && x.size % rows == 0 && x.size > 0, "Linear: x is not a matrix of so many rows");
  const int64_t inputs = x.size / rows;
  const int64_t outputs = weight.size / inputs;
  expectSize("Linear: weight", weight.size, outputs * inputs);
  expectSize("Linear: out", out.size, rows * outputs);
  parallelGemm(context, rows, outputs, inputs, {x.data, inputs}, {weight.data, inputs, true}, out.data, outputs);
}

void linearGrad(Context& context, Floats x, Floats weight, Floats dy, int64_t rows, FloatsOut dx, FloatsOut dWeight) {
  expect(rows > 0 && x.size % rows == 0 && x.size > 0, "LinearGrad: x is not a matrix of so many rows");
  const int64_t inputs = x.size / rows;
  const int64_t outputs = weight.size / inputs;
  expectSize("LinearGrad: weight", weight.size, outputs * inputs);
  expectSize("LinearGrad: dy", dy.size, rows * outputs);
  expectSize("LinearGrad: dx", dx.size, x.size);
  expectSize("LinearGrad: dWeight", dWeight.size, weight.size);
  // Each part computes whole rows of both gradients, so nothing has to be added up between threads.
  const int parts = partsFor(context, 2.0 * rows * weight.size / 8);
  context.pool->run(parts, [&](int part) {
    const Range ofX = partOf(rows, part, parts);
    gemm(ofX.size(), inputs, outputs, 1, {dy.data + ofX.begin * outputs, outputs}, {weight.data, inputs}, 0,
         dx.data + ofX.begin * inputs, inputs);
    const Range ofWeight = partOf(outputs, part, parts);
    gemm(ofWeight.size(), inputs, rows, 1, {dy.data + ofWeight.begin, outputs, true}, {x.data, inputs}, 0,
         dWeight.data + ofWeight.begin * inputs, inputs);
  });
}

void matMul(Context& context, Floats a, Floats b, int64_t rows, int64_t columns, int64_t inner, bool transposeA,
            bool transposeB, FloatsOut out) {
  expectSize("BatchMatMul: a", a.size, rows * inner);
  expectSize("BatchMatMul: b", b.size, inner * columns);
  expectSize("BatchMatMul: out", out.size, rows * columns);
  parallelGemm(context, rows, columns, inner, {a.data, transposeA ? rows : inner, transposeA},
               {b.data, transposeB ? inner : columns, transposeB}, out.data, columns);
}

}  // namespace memory3
