/** `GatherTokens`. Legend: B references, T tokens, K key-value heads, S kept tokens, D headDim. */

#include <cstring>

#include "kernels.h"

namespace memory3 {

static void expectTokens(const char* kernel, Ints indices, int64_t tokens) {
  for (int64_t i = 0; i < indices.size; i++) {
    if (indices.data[i] >= 0 && indices.data[i] < tokens) continue;
    throw std::invalid_argument(std::string(kernel) + ": token " + std::to_string(indices.data[i]) +
                                " is not in the reference");
  }
}

void gatherTokens(Context&, Floats x, Ints indices, int64_t tokens, int64_t heads, int64_t kept, FloatsOut out) {
  if (indices.size == 0) return;
  expect(tokens > 0 && heads > 0 && kept > 0 && indices.size % (heads * kept) == 0, "GatherTokens: indices do not fit");
  const int64_t batch = indices.size / (heads * kept);
  const int64_t dim = x.size / (batch * tokens * heads);
  expectSize("GatherTokens: x", x.size, batch * tokens * heads * dim);
  expectSize("GatherTokens: out", out.size, indices.size * dim);
  expectTokens("GatherTokens", indices, tokens);
  for (int64_t i = 0; i < indices.size; i++) {
    const int64_t head = i / kept % heads;
    const int64_t row = (i / (kept * heads) * tokens + indices.data[i]) * heads + head;
    std::memcpy(out.data + i * dim, x.data + row * dim, dim * sizeof(float));
  }
}

/** Adds in the order of the indices, so that the sums are the same each time. */
MEMORY3_VECTORISED static void scatterTokens(const int32_t* indices, const float* dy, int64_t count, int64_t tokens,
                                             int64_t heads, int64_t kept, int64_t dim, float* dx) {
  for (int64_t i = 0; i < count; i++) {
    const int64_t head = i / kept % heads;
    float* to = dx + ((i / (kept * heads) * tokens + indices[i]) * heads + head) * dim;
#pragma omp simd
    for (int64_t j = 0; j < dim; j++) to[j] += dy[i * dim + j];
  }
}

void gatherTokensGrad(Context&, Ints indices, Floats dy, int64_t tokens, int64_t heads, int64_t kept, FloatsOut dx) {
  std::memset(dx.data, 0, dx.size * sizeof(float));
  if (indices.size == 0) return;
  expect(tokens > 0 && heads > 0 && kept > 0 && indices.size % (heads * kept) == 0,
         "GatherTokensGrad: indices do not fit");
  const int64_t dim = dy.size / indices.size;
  expectSize("GatherTokensGrad: dy", dy.size, indices.size * dim);
  expectSize("GatherTokensGrad: dx", dx.size, indices.size / kept * tokens * dim);
  expectTokens("GatherTokensGrad", indices, tokens);
  scatterTokens(indices.data, dy.data, indices.size, tokens, heads, kept, dim, dx.data);
}

}  // namespace memory3
