/**
 * `CrossEntropy`: the output head and the loss, in blocks of rows, so that logits never exist for all tokens.
 * Legend: N tokens, d width, V vocabulary.
 */

#include <algorithm>
#include <cmath>

#include "gemm.h"
#include "kernels.h"
#include "vector_math.h"

namespace memory3 {

/** Logits of a block, about; but a block has at least MIN_ROWS and at most MAX_ROWS rows. */
static constexpr int64_t BLOCK_LOGITS = int64_t{1} << 22;
static constexpr int64_t MIN_ROWS = 64;
static constexpr int64_t MAX_ROWS = 1024;

/** Losses of some rows. With `gradients`, logits become their gradients: softmax − onehot, 0 where ignored. */
MEMORY3_VECTORISED static void lossRows(float* logits, const int32_t* targets, int64_t rows, int64_t vocabulary,
                                        bool gradients, float* losses) {
  for (int64_t row = 0; row < rows; row++, logits += vocabulary) {
    const int32_t target = targets[row];
    const float largest = largestOf(logits, vocabulary);
    const float ofTarget = target < 0 ? 0 : logits[target];
    const float sum = expInPlace(logits, vocabulary, largest);
    losses[row] = target < 0 ? 0 : std::log(sum) + (largest - ofTarget);
    if (!gradients) continue;
    const float scale = target < 0 ? 0 : 1 / sum;
#pragma omp simd
    for (int64_t i = 0; i < vocabulary; i++) logits[i] *= scale;
    if (target >= 0) logits[target] -= 1;
  }
}

static void expectTargets(Ints targets, int64_t vocabulary) {
  for (int64_t n = 0; n < targets.size; n++) {
    if (targets.data[n] < vocabulary) continue;
    throw std::invalid_argument("CrossEntropy: target " + std::to_string(targets.data[n]) + " is not in [0, " +
                                std::to_string(vocabulary) + ")");
  }
}

void crossEntropy(Context& context, Floats hidden, Floats weight, Ints targets, FloatsOut sum, FloatsOut losses,
                  FloatsOut dHidden, FloatsOut dWeight) {
  const int64_t tokens = targets.size;
  expectSize("CrossEntropy: losses", losses.size, tokens);
  expectSize("CrossEntropy: sum", sum.size, 1);
  sum.data[0] = 0;
  const bool gradients = dWeight.size > 0;
  if (gradients) std::fill(dWeight.data, dWeight.data + dWeight.size, 0.0f);
  if (tokens == 0) return;
  const int64_t width = hidden.size / tokens;
  expect(width > 0 && hidden.size == tokens * width, "CrossEntropy: hidden does not fit the targets");
  const int64_t vocabulary = weight.size / width;
  expectSize("CrossEntropy: weight", weight.size, vocabulary * width);
  expectSize("CrossEntropy: dHidden", dHidden.size, gradients ? hidden.size : 0);
  expectSize("CrossEntropy: dWeight", dWeight.size, gradients ? weight.size : 0);
  expectTargets(targets, vocabulary);

  const int64_t blockRows = std::min(tokens, std::clamp(BLOCK_LOGITS / vocabulary, MIN_ROWS, MAX_ROWS));
  float* logits = context.scratch.floats(blockRows * vocabulary);
  const Matrix head{weight.data, width};
  for (int64_t first = 0; first < tokens; first += blockRows) {
    const int64_t rows = std::min(blockRows, tokens - first);
    const float* hiddenRows = hidden.data + first * width;
    gemm(context, rows, {vocabulary, width, {hiddenRows, width}, {head.data, width, true}, logits, vocabulary});
    parallelRanges(context, partsFor(context, 8.0 * rows * vocabulary), rows, [&](Range own) {
      const int64_t row = first + own.begin;
      lossRows(logits + own.begin * vocabulary, targets.data + row, own.size(), vocabulary, gradients,
               losses.data + row);
    });
    if (!gradients) continue;
    gemm(context, rows, {width, vocabulary, {logits, vocabulary}, head, dHidden.data + first * width, width});
    gemm(context, vocabulary,
         {width, rows, {logits, vocabulary, true}, {hiddenRows, width}, dWeight.data, width, dWeight.data});
  }
  double total = 0;
  for (int64_t n = 0; n < tokens; n++) total += losses.data[n];
  sum.data[0] = static_cast<float>(total);
}

}  // namespace memory3
