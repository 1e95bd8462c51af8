/** `GlobalNorm`: the squares of all tensors, summed in double. */

#include <algorithm>
#include <cmath>

#include "kernels.h"

namespace memory3 {

/** Elements that are summed together before they join the others: the same for any number of parts. */
static constexpr int64_t BLOCK = 4096;

MEMORY3_VECTORISED static double sumOfSquaresOf(const float* x, int64_t count) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; i++) sum += static_cast<double>(x[i]) * x[i];
  return sum;
}

static double sumOfSquares(Context& context, Floats x) {
  const int64_t blocks = (x.size + BLOCK - 1) / BLOCK;
  double* parts = reinterpret_cast<double*>(context.scratch.floats(2 * blocks + 2));
  parallelRanges(context, partsFor(context, x.size), blocks, [&](Range own) {
    for (int64_t block = own.begin; block < own.end; block++) {
      parts[block] = sumOfSquaresOf(x.data + block * BLOCK, std::min(BLOCK, x.size - block * BLOCK));
    }
  });
  double sum = 0;
  for (int64_t block = 0; block < blocks; block++) sum += parts[block];
  return sum;
}

void globalNorm(Context& context, FloatsList tensors, FloatsOut norm) {
  expectSize("GlobalNorm: norm", norm.size, 1);
  double sum = 0;
  for (const Floats& tensor : tensors) sum += sumOfSquares(context, tensor);
  norm.data[0] = static_cast<float>(std::sqrt(sum));
}

}  // namespace memory3
