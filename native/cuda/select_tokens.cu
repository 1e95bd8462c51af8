/**
 * The tokens with the best scores. A block a reference and key-value head: T scores in, S places out. A token is kept when
 * fewer than S tokens are better; so each is compared with all, T² comparisons, which for references of some hundred tokens
 * costs less than to sort. Kept ones are numbered in text order by votes of the warps. Of equal scores the earlier token
 * wins; negative ones and NaN are never kept; places that stay free are 0.
 */

#include "elements.cuh"
#include "kernels.h"

namespace memory3 {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / kWarpSize;

template <class T>
__device__ bool isKept(const T* scores, int64_t tokens, int64_t count, int64_t token) {
  const float own = toFloat(scores[token]);
  if (!(own >= 0)) return false;
  int64_t better = 0;
  for (int64_t i = 0; i < tokens; i++) {
    const float other = toFloat(scores[i]);
    better += other > own || (other == own && i < token) ? 1 : 0;
  }
  return better < count;
}

template <class T>
__global__ void selectTokensKernel(const T* scores, int64_t tokens, int64_t count, int32_t* out) {
  auto* keptOf = sharedMemory<int32_t>();  // by warp
  const T* own = scores + blockIdx.x * tokens;
  int32_t* places = out + blockIdx.x * count;
  const unsigned lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  int64_t found = 0;
  for (int64_t begin = 0; begin < tokens; begin += kThreads) {
    const int64_t token = begin + threadIdx.x;
    const bool kept = token < tokens && isKept(own, tokens, count, token);
    const unsigned votes = __ballot_sync(kAllLanes, kept);
    __syncthreads();
    if (lane == 0) keptOf[warp] = __popc(votes);
    __syncthreads();
    int64_t place = found + __popc(votes & ((1u << lane) - 1));
    for (int w = 0; w < kWarps; w++) {
      place += w < static_cast<int>(warp) ? keptOf[w] : 0;
      found += keptOf[w];
    }
    if (kept) places[place] = static_cast<int32_t>(token);
  }
  for (int64_t i = found + threadIdx.x; i < count; i += kThreads) places[i] = 0;
}

}  // namespace

void selectTokens(Context& context, Tensor scores, int64_t tokens, int64_t count, Tensor out) {
  if (out.empty()) return;
  expect(tokens > 0 && tokens < INT32_MAX && count > 0 && out.count % count == 0,
         "selectTokens: an impossible number of tokens");
  const int64_t rows = out.count / count;
  expect(scores.count == rows * tokens, "selectTokens: the scores do not fit the result");
  Context::touch(out);
  withType(scores.type(), [&](auto type) {
    using T = decltype(type);
    context.launch(selectTokensKernel<T>, static_cast<unsigned>(rows), kThreads, kWarps * sizeof(int32_t),
                   scores.as<T>(), tokens, count, out.as<int32_t>());
  });
}

}  // namespace memory3
