/** `RmsNorm`. Legend: N rows, d width. */

#include <algorithm>
#include <cmath>

#include "kernels.h"
#include "vector_math.h"

namespace memory3 {

/** Rows whose gradients of the weight are summed before they join the others: the same for any number of parts. */
static constexpr int64_t BLOCK = 64;

MEMORY3_VECTORISED static void normRows(const float* x, const float* weight, float epsilon, int64_t rows, int64_t width,
                                        float* out) {
  for (int64_t row = 0; row < rows; row++, x += width, out += width) {
    const float inverse = 1.0f / std::sqrt(dot(x, x, width) / static_cast<float>(width) + epsilon);
#pragma omp simd
    for (int64_t i = 0; i < width; i++) out[i] = x[i] * inverse * weight[i];
  }
}

void rmsNorm(Context& context, Floats x, Floats weight, double epsilon, FloatsOut out) {
  const int64_t width = weight.size;
  expect(width > 0 && x.size % width == 0, "RmsNorm: x is not made of rows of the weight's length");
  expectSize("RmsNorm: out", out.size, x.size);
  parallelRanges(context, partsFor(context, x.size), x.size / width, [&](Range rows) {
    normRows(x.data + rows.begin * width, weight.data, static_cast<float>(epsilon), rows.size(), width,
             out.data + rows.begin * width);
  });
}

/** dx of some rows; their part of the weight's gradient goes to `dWeight`. */
MEMORY3_VECTORISED static void normRowsGrad(const float* x, const float* weight, const float* dy, float epsilon,
                                            int64_t rows, int64_t width, float* dx, float* dWeight) {
  for (int64_t i = 0; i < width; i++) dWeight[i] = 0;
  for (int64_t row = 0; row < rows; row++, x += width, dy += width, dx += width) {
    const float inverse = 1.0f / std::sqrt(dot(x, x, width) / static_cast<float>(width) + epsilon);
#pragma omp simd
    for (int64_t i = 0; i < width; i++) dx[i] = dy[i] * weight[i];
    const float radial = dot(dx, x, width);
    const float pull = radial * inverse * inverse / static_cast<float>(width);
#pragma omp simd
    for (int64_t i = 0; i < width; i++) {
      dx[i] = (dx[i] - x[i] * pull) * inverse;
      dWeight[i] += dy[i] * x[i] * inverse;
    }
  }
}

void rmsNormGrad(Context& context, Floats x, Floats weight, Floats dy, double epsilon, FloatsOut dx, FloatsOut dWeight) {
  const int64_t width = weight.size;
  expect(width > 0 && x.size % width == 0, "RmsNormGrad: x is not made of rows of the weight's length");
  expectSize("RmsNormGrad: dy", dy.size, x.size);
  expectSize("RmsNormGrad: dx", dx.size, x.size);
  expectSize("RmsNormGrad: dWeight", dWeight.size, width);
  const int64_t rows = x.size / width;
  const int64_t blocks = std::max<int64_t>(1, (rows + BLOCK - 1) / BLOCK);
  float* parts = context.scratch.floats(blocks * width);
  parallelRanges(context, partsFor(context, 2.0 * x.size), blocks, [&](Range own) {
    for (int64_t block = own.begin; block < own.end; block++) {
      const int64_t from = block * BLOCK * width;
      normRowsGrad(x.data + from, weight.data, dy.data + from, static_cast<float>(epsilon),
                   std::min(BLOCK, rows - block * BLOCK), width, dx.data + from, parts + block * width);
    }
  });
  sumParts(parts, width, blocks, width, dWeight.data);
}

}  // namespace memory3
