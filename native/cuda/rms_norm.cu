/**
 * Root-mean-square normalisation and its gradient. N rows, d columns; sums in float32; bound by memory.
 *
 * Forward reads and writes each number once: 2·N·d numbers, about 4·N·d operations. A block takes a row and keeps it in the
 * registers from the sum of its squares to its scaling.
 *
 * Backward reads x and dy and writes dx, 3·N·d numbers. The gradient of the weight is a sum over all rows: each block takes
 * a fixed share of the rows, keeps the sums of its columns in the registers and leaves them at the end, and a second kernel
 * adds those in order, so that the result does not depend on which block was faster.
 *
 * Rows that are too wide for the registers (above kMostWidth), or that 16 bytes do not divide, take the plain kernels.
 */

#include "elements.cuh"
#include "kernels.h"

namespace memory3 {
namespace {

constexpr int kThreads = 256;
constexpr int kKept = 4;  // groups of a row that a thread keeps
constexpr int kMostThreads = 384;
constexpr int64_t kMostWidth = int64_t{kMostThreads} * kKept * kGroup;
constexpr int kResident = 512;  // threads that a processor holds of the gradient
constexpr unsigned kAcross = 32, kDown = 16;  // threads that add partial sums up

/** The sums over a block of two numbers of each thread, in all threads; `room` is that of blockSum, twice. */
__device__ float2 blockSums(float a, float b, float* room) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize, warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int warps = static_cast<int>(blockDim.x) / kWarpSize;
  a = warpSum(a);
  b = warpSum(b);
  __syncthreads();
  if (lane == 0) {
    room[warp] = a;
    room[kWarpSize + warp] = b;
  }
  __syncthreads();
  return make_float2(warpSum(lane < warps ? room[lane] : 0.0f), warpSum(lane < warps ? room[kWarpSize + lane] : 0.0f));
}

/** The column of the k-th group that this thread keeps. */
__device__ int64_t columnOf(int k) { return (static_cast<int64_t>(k) * blockDim.x + threadIdx.x) * kGroup; }

/** out [N, d] = x / √(mean x² + epsilon) · weight */
template <class From, class To>
__global__ void rmsNormKernel(const From* x, const float* weight, int64_t width, float epsilon, To* out) {
  const From* row = x + blockIdx.x * width;
  To* target = out + blockIdx.x * width;
  Group<From, kGroup> kept[kKept];
#pragma unroll
  for (int k = 0; k < kKept; k++) {
    if (columnOf(k) < width) kept[k] = loadGroup<kGroup>(row + columnOf(k));
  }
  float squares = 0;
#pragma unroll
  for (int k = 0; k < kKept; k++) {
    if (columnOf(k) >= width) continue;
#pragma unroll
    for (int j = 0; j < kGroup; j++) squares += toFloat(kept[k].at[j]) * toFloat(kept[k].at[j]);
  }
  squares = blockSum(squares, sharedMemory<float>());
  const float inverse = rsqrtf(squares / static_cast<float>(width) + epsilon);
#pragma unroll
  for (int k = 0; k < kKept; k++) {
    if (columnOf(k) >= width) continue;
    const Group<float, kGroup> scale = loadGroup<kGroup>(weight + columnOf(k));
    Group<To, kGroup> result;
#pragma unroll
    for (int j = 0; j < kGroup; j++) result.at[j] = fromFloat<To>(toFloat(kept[k].at[j]) * inverse * scale.at[j]);
    storeGroup(target + columnOf(k), result);
  }
}

/** The same for any row. */
template <class From, class To>
__global__ void plainRmsNormKernel(const From* x, const float* weight, int64_t width, float epsilon, To* out) {
  const From* row = x + blockIdx.x * width;
  To* target = out + blockIdx.x * width;
  float squares = 0;
  for (int64_t i = threadIdx.x; i < width; i += blockDim.x) squares += toFloat(row[i]) * toFloat(row[i]);
  squares = blockSum(squares, sharedMemory<float>());
  const float inverse = rsqrtf(squares / static_cast<float>(width) + epsilon);
  for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
    target[i] = fromFloat<To>(toFloat(row[i]) * inverse * weight[i]);
  }
}

/** What the two kernels of the gradient are given. */
template <class T>
struct Gradient {
  const T* x;
  const float* weight;
  const T* dy;
  int64_t rows, width;
  float epsilon;
  T* dx;
  float* partial;  // [blocks, d]
};

/** 1/rms, and mean(dy·w·u) with u = x/rms, of the sums of x² and of dy·w·x. */
__device__ float2 scalesOf(float2 sums, int64_t width, float epsilon) {
  const float inverse = rsqrtf(sums.x / static_cast<float>(width) + epsilon);
  return make_float2(inverse, sums.y * inverse / static_cast<float>(width));
}

/** dx = (dy·w − u·mean(dy·w·u)) / rms with u = x / rms; partial [blocks, d] = dy·u over the rows of the block. */
template <class T>
__global__ void __launch_bounds__(kMostThreads) rmsNormGradKernel(Gradient<T> given) {
  const int64_t width = given.width;
  Group<float, kGroup> sums[kKept] = {};
  for (int64_t n = blockIdx.x; n < given.rows; n += gridDim.x) {
    Group<T, kGroup> x[kKept], dy[kKept];
#pragma unroll
    for (int k = 0; k < kKept; k++) {
      if (columnOf(k) >= width) continue;
      x[k] = loadGroup<kGroup>(given.x + n * width + columnOf(k));
      dy[k] = loadGroup<kGroup>(given.dy + n * width + columnOf(k));
    }
    float squares = 0, radial = 0;
#pragma unroll
    for (int k = 0; k < kKept; k++) {
      if (columnOf(k) >= width) continue;
      const Group<float, kGroup> weight = loadGroup<kGroup>(given.weight + columnOf(k));
#pragma unroll
      for (int j = 0; j < kGroup; j++) {
        const float value = toFloat(x[k].at[j]);
        squares += value * value;
        radial += toFloat(dy[k].at[j]) * weight.at[j] * value;
      }
    }
    const float2 scales = scalesOf(blockSums(squares, radial, sharedMemory<float>()), width, given.epsilon);
#pragma unroll
    for (int k = 0; k < kKept; k++) {
      if (columnOf(k) >= width) continue;
      const Group<float, kGroup> weight = loadGroup<kGroup>(given.weight + columnOf(k));
      Group<T, kGroup> dx;
#pragma unroll
      for (int j = 0; j < kGroup; j++) {
        const float unit = toFloat(x[k].at[j]) * scales.x, upstream = toFloat(dy[k].at[j]);
        dx.at[j] = fromFloat<T>((upstream * weight.at[j] - unit * scales.y) * scales.x);
        sums[k].at[j] += upstream * unit;
      }
      storeGroup(given.dx + n * width + columnOf(k), dx);
    }
  }
#pragma unroll
  for (int k = 0; k < kKept; k++) {
    if (columnOf(k) < width) storeGroup(given.partial + blockIdx.x * width + columnOf(k), sums[k]);
  }
}

/** The same for any row; the sums stand in memory. */
template <class T>
__global__ void plainRmsNormGradKernel(Gradient<T> given) {
  const int64_t width = given.width;
  float* sums = given.partial + blockIdx.x * width;
  for (int64_t i = threadIdx.x; i < width; i += blockDim.x) sums[i] = 0;
  for (int64_t n = blockIdx.x; n < given.rows; n += gridDim.x) {
    const T* x = given.x + n * width;
    const T* dy = given.dy + n * width;
    float squares = 0, radial = 0;
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
      squares += toFloat(x[i]) * toFloat(x[i]);
      radial += toFloat(dy[i]) * given.weight[i] * toFloat(x[i]);
    }
    const float2 scales = scalesOf(blockSums(squares, radial, sharedMemory<float>()), width, given.epsilon);
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
      const float unit = toFloat(x[i]) * scales.x, upstream = toFloat(dy[i]);
      given.dx[n * width + i] = fromFloat<T>((upstream * given.weight[i] - unit * scales.y) * scales.x);
      sums[i] += upstream * unit;
    }
  }
}

/** out [d] = the sum of partial [parts, d]; kDown threads share the parts of a column, and their sums are added in order. */
__global__ void addPartialsKernel(const float* partial, int64_t parts, int64_t width, float* out) {
  auto* sums = sharedMemory<float>();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kAcross + threadIdx.x;
  float sum = 0;
  if (i < width) {
#pragma unroll 8
    for (int64_t part = threadIdx.y; part < parts; part += kDown) sum += partial[part * width + i];
  }
  sums[threadIdx.y * kAcross + threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || i >= width) return;
  for (unsigned y = 1; y < kDown; y++) sum += sums[y * kAcross + threadIdx.x];
  out[i] = sum;
}

/** Threads for a row whose groups they keep; 0 where that is not possible. */
unsigned threadsFor(int64_t width, bool vectors) {
  if (!vectors || width % kGroup != 0 || width > kMostWidth) return 0;
  return static_cast<unsigned>(blocksFor(blocksFor(width / kGroup, kKept), kWarpSize) * kWarpSize);
}

}  // namespace

void rmsNorm(Context& context, Tensor x, Tensor weight, double epsilon, Tensor out) {
  expect(weight.count > 0 && x.count % weight.count == 0, "rmsNorm: x is no rows of the weight's length");
  expect(out.count == x.count, "rmsNorm: x and its result differ in size");
  if (x.empty()) return;
  const int64_t rows = x.count / weight.count;
  expect(rows < (int64_t{1} << 31), "rmsNorm: too many rows");
  Context::touch(out);
  const Operand<float> scale(context, weight);
  withType(x.type(), [&](auto xType) {
    withType(out.type(), [&](auto outType) {
      using From = decltype(xType);
      using To = decltype(outType);
      const From* values = x.as<From>();
      To* target = out.as<To>();
      const unsigned threads = threadsFor(weight.count, aligned(values, scale.data(), target));
      context.launch(threads > 0 ? rmsNormKernel<From, To> : plainRmsNormKernel<From, To>, static_cast<unsigned>(rows),
                     threads > 0 ? threads : kThreads, 32 * sizeof(float), values, scale.data(), weight.count,
                     static_cast<float>(epsilon), target);
    });
  });
}

void rmsNormGrad(Context& context, Tensor x, Tensor weight, Tensor dy, double epsilon, Tensor dx, Tensor dWeight) {
  expect(weight.count > 0 && x.count % weight.count == 0, "rmsNormGrad: x is no rows of the weight's length");
  expect(dy.count == x.count && dx.count == x.count, "rmsNormGrad: x and its gradients differ in size");
  expect(dWeight.count == weight.count, "rmsNormGrad: the weight and its gradient differ in size");
  const int64_t width = weight.count, rows = x.count / width;
  Context::touch(dx);
  Context::touch(dWeight);
  if (rows == 0) return fill(context, 0, dWeight);
  const Operand<float> scale(context, weight);
  withType(dx.type(), [&](auto type) {
    using T = decltype(type);
    const Operand<T> values(context, x), upstream(context, dy);
    Gradient<T> given{values.data(), scale.data(), upstream.data(), rows,   width, static_cast<float>(epsilon),
                      dx.as<T>(),    nullptr};
    const unsigned kept = threadsFor(width, aligned(given.x, given.weight, given.dy, given.dx));
    const unsigned threads = kept > 0 ? kept : kThreads;
    const int64_t blocks = std::min<int64_t>(rows, std::max(1u, kResident / threads) * context.multiprocessors());
    const Scratch<float> partial(context, blocks * width);
    given.partial = partial.data();
    context.launch(kept > 0 ? rmsNormGradKernel<T> : plainRmsNormGradKernel<T>, static_cast<unsigned>(blocks), threads,
                   64 * sizeof(float), given);
    context.launch(addPartialsKernel, static_cast<unsigned>(blocksFor(width, kAcross)), dim3(kAcross, kDown),
                   kAcross * kDown * sizeof(float), partial.data(), blocks, width, dWeight.as<float>());
  });
}

}  // namespace memory3
