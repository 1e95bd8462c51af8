/** `TokenScores` (paper §3.3). Legend: B references, T tokens, H query heads, K key-value heads, G = H/K, D headDim. */

#include <algorithm>
#include <cmath>

#include "kernels.h"
#include "tile.h"
#include "vector_math.h"

namespace memory3 {

/** Adds what each token receives from `rows` queries to `received`. */
MEMORY3_VECTORISED static void addSoftmaxRows(float* scores, int64_t rows, int64_t tokens, float* received) {
  for (int64_t row = 0; row < rows; row++, scores += tokens) {
    const float scale = 1.0f / expInPlace(scores, tokens, largestOf(scores, tokens));
#pragma omp simd
    for (int64_t j = 0; j < tokens; j++) received[j] += scores[j] * scale;
  }
}

/** The same with plain exponentials relative to the largest score, so that the order stays and nothing overflows. */
MEMORY3_VECTORISED static void addExpRows(float* scores, int64_t rows, int64_t tokens, float* received) {
  const float largest = largestOf(scores, rows * tokens);
  for (int64_t row = 0; row < rows; row++, scores += tokens) {
#pragma omp simd
    for (int64_t j = 0; j < tokens; j++) received[j] += fastExp(scores[j] - largest);
  }
}

/** Keys as panels, with the scale 1/√D. */
static void packKeys(const float* keys, int64_t stride, int64_t count, int64_t dim, float* panels) {
  const int64_t size = padded(count) * dim;
  std::fill(panels + (padded(count) - PANEL) * dim, panels + size, 0.0f);
  packTransposed(keys, stride, count, dim, 0, panels);
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  for (int64_t i = 0; i < size; i++) panels[i] *= scale;
}

void tokenScores(Context& context, Floats q, Floats k, Ints lengths, int64_t tokens, int64_t heads, int64_t kvHeads,
                 int64_t skip, bool softmax, FloatsOut out) {
  const int64_t batch = lengths.size;
  if (batch == 0 || tokens == 0) return;
  expect(kvHeads > 0 && heads % kvHeads == 0, "TokenScores: the key-value heads do not divide the heads");
  const int64_t dim = q.size / (batch * tokens * heads);
  const int64_t group = heads / kvHeads;
  expectSize("TokenScores: q", q.size, batch * tokens * heads * dim);
  expectSize("TokenScores: k", k.size, batch * tokens * kvHeads * dim);
  expectSize("TokenScores: out", out.size, batch * kvHeads * tokens);
  const int64_t tasks = batch * kvHeads;
  const int parts = static_cast<int>(std::min<int64_t>(partsFor(context, static_cast<double>(q.size) * tokens), tasks));
  const int64_t scoreSize = padded(group * tokens * tokens);
  const int64_t ownSize = scoreSize + padded(tokens) * dim;
  float* scratch = context.scratch.floats(parts * ownSize);
  context.pool->run(parts, [&](int part) {
    float* scores = scratch + part * ownSize;
    float* panels = scores + scoreSize;
    const Range own = partOf(tasks, part, parts);
    for (int64_t task = own.begin; task < own.end; task++) {
      const int64_t b = task / kvHeads;
      const int64_t kvHead = task % kvHeads;
      const int64_t end = std::min<int64_t>(lengths.data[b], tokens);
      float* received = out.data + task * tokens;
      std::fill(received, received + tokens, -1.0f);
      if (end <= skip) continue;
      const int64_t real = end - skip;
      std::fill(received + skip, received + end, 0.0f);
      packKeys(k.data + ((b * tokens + skip) * kvHeads + kvHead) * dim, kvHeads * dim, real, dim, panels);
      for (int64_t g = 0; g < group; g++) {
        const float* queries = q.data + ((b * tokens + skip) * heads + kvHead * group + g) * dim;
        for (int64_t row = 0; row < real; row += STRIP_ROWS) {
          context.tiles->strip(std::min(STRIP_ROWS, real - row), {queries + row * heads * dim, heads * dim, 1},
                               {panels, dim * PANEL}, dim, {scores + (g * real + row) * real, real, real, nullptr});
        }
      }
      (softmax ? addSoftmaxRows : addExpRows)(scores, group * real, real, received + skip);
    }
  });
}

}  // namespace memory3
