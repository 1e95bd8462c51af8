/** Numbers from float32 to bfloat16 and back: 6 bytes a number, bound by memory. */

#include "kernels.h"

namespace memory3 {
namespace {

constexpr int kThreads = 256;

template <class From, class To>
__global__ void convertKernel(const From* from, To* to, int64_t count) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    to[i] = fromFloat<To>(toFloat(from[i]));
  }
}

template <class From, class To>
void launchConvert(Context& context, const From* from, To* to, int64_t count) {
  const int64_t blocks = std::min<int64_t>(blocksFor(count, kThreads), 16 * context.multiprocessors());
  context.launch(convertKernel<From, To>, static_cast<unsigned>(blocks), kThreads, 0, from, to, count);
}

}  // namespace

void convert(Context& context, const float* from, Bf16* to, int64_t count) { launchConvert(context, from, to, count); }
void convert(Context& context, const Bf16* from, float* to, int64_t count) { launchConvert(context, from, to, count); }

}  // namespace memory3
