/**
 * Some tokens of each reference and head, and the gradient. B references, T tokens, K heads, S kept tokens, D head
 * dimension; x [B, T, K, D], indices [B, K, S].
 *
 * Forward moves 2·B·K·S·D numbers. Backward writes each of the B·T·K·D numbers of dx once: the threads of a row look through
 * the S indices of their reference and head, which stay in the cache, and add the rows of dy that name their token in the
 * order of the indices. An index that no token has is reported; its row is 0, and adds nothing.
 */

#include "elements.cuh"
#include "kernels.h"

namespace memory3 {
namespace {

struct Sizes {
  uint32_t tokens, heads, kept;
};

template <class From, class To>
struct RowOfToken {
  const From* x;
  const int32_t* indices;
  Sizes sizes;
  int64_t dim;
  To* out;
  Fault* fault;
  __device__ Move<From, To> operator()(uint32_t row) const {
    const uint32_t place = row / sizes.kept, reference = place / sizes.heads, head = place % sizes.heads;
    const int32_t token = indices[row];
    const bool there = token >= 0 && static_cast<uint32_t>(token) < sizes.tokens;
    if (!there) raise(fault, kIndexOutOfRange, token, static_cast<int32_t>(sizes.tokens));
    const int64_t from = (static_cast<int64_t>(reference) * sizes.tokens + token) * sizes.heads + head;
    return {there ? x + from * dim : nullptr, out + row * dim};
  }
};

/** Rows of dx are numbered [B, T, K]; blocks as in moveRowsKernel. */
template <int N, class From, class To>
__global__ void gatherTokensGradKernel(const int32_t* indices, const From* dy, Sizes sizes, uint32_t rows, int64_t dim,
                                       uint32_t tiles, To* dx, Fault* fault) {
  const int64_t row = static_cast<int64_t>(blockIdx.x / tiles) * blockDim.y + threadIdx.y;
  const int64_t column = (static_cast<int64_t>(blockIdx.x % tiles) * blockDim.x + threadIdx.x) * N;
  if (row >= rows || column >= dim) return;
  const uint32_t place = static_cast<uint32_t>(row) / sizes.heads, head = static_cast<uint32_t>(row) % sizes.heads;
  const uint32_t reference = place / sizes.tokens, token = place % sizes.tokens;
  const int64_t first = (static_cast<int64_t>(reference) * sizes.heads + head) * sizes.kept;
  Group<float, N> sum{};
  for (uint32_t i = 0; i < sizes.kept; i++) {
    const int32_t index = indices[first + i];
    if (index < 0 || static_cast<uint32_t>(index) >= sizes.tokens) {
      raise(fault, kIndexOutOfRange, index, static_cast<int32_t>(sizes.tokens));
    }
    if (static_cast<uint32_t>(index) != token) continue;
    const Group<From, N> values = loadGroup<N>(dy + (first + i) * dim + column);
#pragma unroll
    for (int j = 0; j < N; j++) sum.at[j] += toFloat(values.at[j]);
  }
  Group<To, N> result;
#pragma unroll
  for (int j = 0; j < N; j++) result.at[j] = fromFloat<To>(sum.at[j]);
  storeGroup(dx + row * dim + column, result);
}

Sizes sizesOf(const Tensor& indices, int64_t tokens, int64_t heads, int64_t kept) {
  expect(tokens > 0 && heads > 0 && kept > 0 && indices.count % (heads * kept) == 0, "gatherTokens: indices do not fit");
  expect(tokens < INT32_MAX && heads < INT32_MAX && kept < INT32_MAX, "gatherTokens: too many tokens");
  return {static_cast<uint32_t>(tokens), static_cast<uint32_t>(heads), static_cast<uint32_t>(kept)};
}

}  // namespace

void gatherTokens(Context& context, Tensor x, Tensor indices, int64_t tokens, int64_t heads, int64_t kept, Tensor out) {
  if (indices.empty()) return;
  const Sizes sizes = sizesOf(indices, tokens, heads, kept);
  const int64_t rows = indices.count / kept * tokens, dim = x.count / rows;
  expect(x.count == rows * dim, "gatherTokens: x does not fit the indices");
  expect(out.count == indices.count * dim, "gatherTokens: the result has another size");
  if (out.empty()) return;
  Context::touch(out);
  withType(x.type(), [&](auto xType) {
    withType(out.type(), [&](auto outType) {
      using From = decltype(xType);
      using To = decltype(outType);
      const RowOfToken<From, To> row{x.as<From>(), indices.as<int32_t>(), sizes, dim, out.as<To>(), context.fault()};
      moveRows<From, To>(context, row, indices.count, dim, dim % kGroup == 0 && aligned(row.x, row.out));
    });
  });
}

void gatherTokensGrad(Context& context, Tensor indices, Tensor dy, int64_t tokens, int64_t heads, int64_t kept,
                      Tensor dx) {
  if (indices.empty() || dx.empty()) return fill(context, 0, dx);
  const Sizes sizes = sizesOf(indices, tokens, heads, kept);
  const int64_t rows = indices.count / kept * tokens, dim = dy.count / indices.count;
  expect(dy.count == indices.count * dim, "gatherTokensGrad: dy does not fit the indices");
  expect(dx.count == rows * dim, "gatherTokensGrad: the result has another size");
  Context::touch(dx);
  withType(dy.type(), [&](auto dyType) {
    withType(dx.type(), [&](auto dxType) {
      using From = decltype(dyType);
      using To = decltype(dxType);
      const From* from = dy.as<From>();
      To* to = dx.as<To>();
      const bool vectors = dim % kGroup == 0 && aligned(from, to);
      const RowGrid at = rowGrid(rows, vectors ? dim / kGroup : dim);
      context.launch(vectors ? gatherTokensGradKernel<kGroup, From, To> : gatherTokensGradKernel<1, From, To>, at.grid,
                     at.block, 0, indices.as<int32_t>(), from, sizes, static_cast<uint32_t>(rows), dim, at.tiles, to,
                     context.fault());
    });
  });
}

}  // namespace memory3
