/**
 * The norm of all tensors together. Every number is read once, 4 or 2 bytes, and squared and summed in float64, as on the
 * CPU, so that billions of squares neither overflow nor lose the small ones; bound by memory. A block takes kBlock numbers
 * of one tensor and leaves a sum, kMostTensors tensors in a launch, and one block adds the sums up in order. A number that
 * is not finite makes the norm so.
 */

#include "elements.cuh"
#include "kernels.h"

namespace memory3 {
namespace {

constexpr int kThreads = 256, kLastThreads = 1024;
constexpr int64_t kBlock = int64_t{1} << 15;
constexpr int kMostTensors = 120;

struct Part {
  const void* data;
  int64_t count;
  uint32_t firstBlock;
  bool half;
  bool vectors;
};

struct Batch {
  Part tensors[kMostTensors];
  int count;
};
static_assert(sizeof(Batch) <= 4000, "a kernel takes 4 KiB of arguments");

template <int N, class T>
__device__ double squaresOf(const T* x) {
  const Group<T, N> values = loadGroup<N>(x);
  double sum = 0;
#pragma unroll
  for (int j = 0; j < N; j++) {
    const double value = static_cast<double>(toFloat(values.at[j]));
    sum += value * value;
  }
  return sum;
}

/** What this thread adds of the numbers from `begin` on. */
template <class T>
__device__ double squaresOfPart(const Part& tensor, int64_t begin) {
  const T* x = static_cast<const T*>(tensor.data);
  const int64_t end = min(begin + kBlock, tensor.count);
  const int64_t groupsEnd = tensor.vectors ? begin + (end - begin) / kGroup * kGroup : begin;
  double sum = 0;
#pragma unroll 2
  for (int64_t i = begin + static_cast<int64_t>(threadIdx.x) * kGroup; i < groupsEnd; i += kThreads * kGroup) {
    sum += squaresOf<kGroup>(x + i);
  }
  for (int64_t i = groupsEnd + threadIdx.x; i < end; i += kThreads) sum += squaresOf<1>(x + i);
  return sum;
}

/** The sum over a block, in thread 0. */
__device__ double blockSumOf(double x) {
  auto* room = sharedMemory<double>();
  const unsigned lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
#pragma unroll
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(kAllLanes, x, offset);
  if (lane == 0) room[warp] = x;
  __syncthreads();
  if (threadIdx.x > 0) return 0;
  double sum = 0;
  for (unsigned i = 0; i < blockDim.x / kWarpSize; i++) sum += room[i];
  return sum;
}

__global__ void squaresKernel(const __grid_constant__ Batch batch, double* sums) {
  const Part& own = ownerOfBlock(batch.tensors, batch.count);
  const int64_t begin = static_cast<int64_t>(blockIdx.x - own.firstBlock) * kBlock;
  const double sum = blockSumOf(own.half ? squaresOfPart<Bf16>(own, begin) : squaresOfPart<float>(own, begin));
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

__global__ void normKernel(const double* sums, int64_t count, float* norm) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += kLastThreads) sum += sums[i];
  sum = blockSumOf(sum);
  if (threadIdx.x == 0) *norm = static_cast<float>(sqrt(sum));
}

}  // namespace

void globalNorm(Context& context, TensorList tensors, Tensor norm) {
  expect(norm.count == 1, "globalNorm: the result is not one number");
  int64_t blocks = 0;
  for (const Tensor& tensor : tensors) blocks += blocksFor(tensor.count, kBlock);
  expect(blocks < (int64_t{1} << 31), "globalNorm: too many numbers");
  const Scratch<double> sums(context, blocks);
  Batch batch{};
  int64_t done = 0, added = 0;
  const auto launch = [&] {
    context.launch(squaresKernel, static_cast<unsigned>(added), kThreads, 32 * sizeof(double), batch, sums.data() + done);
    done += added;
    added = 0;
    batch.count = 0;
  };
  for (const Tensor& tensor : tensors) {
    if (tensor.empty()) continue;
    const bool half = tensor.type() == Type::bfloat16;
    const void* data = half ? static_cast<const void*>(tensor.as<Bf16>()) : tensor.as<float>();
    batch.tensors[batch.count++] = {data, tensor.count, static_cast<uint32_t>(added), half, aligned(data)};
    added += blocksFor(tensor.count, kBlock);
    if (batch.count == kMostTensors) launch();
  }
  launch();
  Context::touch(norm);
  context.launch(normKernel, 1, kLastThreads, 32 * sizeof(double), sums.data(), blocks, norm.as<float>());
}

}  // namespace memory3
