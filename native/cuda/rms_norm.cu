/**
 * Root-mean-square normalisation and its gradient. N rows, d columns; a block a row, sums in float32.
 *
 * Forward reads and writes each number once: 2·N·d numbers, about 4·N·d operations, bound by memory.
 * Backward reads x and dy and writes dx, 3·N·d numbers. The gradient of the weight is a sum over all rows: each block takes
 * a fixed share of the rows and leaves a partial sum, and a second kernel adds those in order, so that the result does not
 * depend on which block was faster.
 */

#include "kernels.h"

namespace memory3 {
namespace {

constexpr int kThreads = 256;

template <class T>
__device__ float sumOfSquares(const T* x, int64_t width) {
  float sum = 0;
  for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
    const float value = toFloat(x[i]);
    sum += value * value;
  }
  return sum;
}

/** out [N, d] = x / √(mean x² + epsilon) · weight */
template <class T>
__global__ void rmsNormKernel(const T* x, const float* weight, int64_t width, float epsilon, T* out) {
  const T* row = x + static_cast<int64_t>(blockIdx.x) * width;
  T* target = out + static_cast<int64_t>(blockIdx.x) * width;
  const float squares = blockSum(sumOfSquares(row, width), sharedMemory<float>());
  const float inverse = rsqrtf(squares / static_cast<float>(width) + epsilon);
  for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
    target[i] = fromFloat<T>(toFloat(row[i]) * inverse * weight[i]);
  }
}

/** dx = (dy·w − u·mean(dy·w·u)) / rms with u = x / rms; partial [blocks, d] += dy·u over the rows of the block. */
template <class T>
__global__ void rmsNormGradKernel(const T* x, const float* weight, const T* dy, int64_t rows, int64_t width,
                                  float epsilon, T* dx, float* partial) {
  float* room = sharedMemory<float>();
  float* sums = partial + static_cast<int64_t>(blockIdx.x) * width;
  for (int64_t i = threadIdx.x; i < width; i += blockDim.x) sums[i] = 0;
  for (int64_t n = blockIdx.x; n < rows; n += gridDim.x) {
    const T* xRow = x + n * width;
    const T* dyRow = dy + n * width;
    const float squares = blockSum(sumOfSquares(xRow, width), room);
    const float inverse = rsqrtf(squares / static_cast<float>(width) + epsilon);
    float radial = 0;
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
      radial += toFloat(dyRow[i]) * weight[i] * toFloat(xRow[i]) * inverse;
    }
    radial = blockSum(radial, room) / static_cast<float>(width);
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
      const float unit = toFloat(xRow[i]) * inverse, upstream = toFloat(dyRow[i]);
      dx[n * width + i] = fromFloat<T>((upstream * weight[i] - unit * radial) * inverse);
      sums[i] += upstream * unit;
    }
  }
}

__global__ void addPartialsKernel(const float* partial, int64_t parts, int64_t width, float* out) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= width) return;
  float sum = 0;
  for (int64_t part = 0; part < parts; part++) sum += partial[part * width + i];
  out[i] = sum;
}

}  // namespace

void rmsNorm(Context& context, Tensor x, Tensor weight, double epsilon, Tensor out) {
  expect(weight.count > 0 && x.count % weight.count == 0, "rmsNorm: x is no rows of the weight's length");
  expect(out.count == x.count, "rmsNorm: x and its result differ in size");
  if (x.empty()) return;
  const int64_t rows = x.count / weight.count;
  const Operand<float> scale(context, weight);
  withType(out.type(), [&](auto type) {
    using T = decltype(type);
    const Operand<T> values(context, x);
    context.launch(rmsNormKernel<T>, static_cast<unsigned>(rows), kThreads, 32 * sizeof(float), values.data(),
                   scale.data(), weight.count, static_cast<float>(epsilon), out.as<T>());
  });
}

void rmsNormGrad(Context& context, Tensor x, Tensor weight, Tensor dy, double epsilon, Tensor dx, Tensor dWeight) {
  expect(weight.count > 0 && x.count % weight.count == 0, "rmsNormGrad: x is no rows of the weight's length");
  expect(dy.count == x.count && dx.count == x.count, "rmsNormGrad: x and its gradients differ in size");
  expect(dWeight.count == weight.count, "rmsNormGrad: the weight and its gradient differ in size");
  const int64_t width = weight.count, rows = x.count / width;
  const int64_t blocks = std::min<int64_t>(rows, 4 * context.multiprocessors());
  const Operand<float> scale(context, weight);
  const Scratch<float> partial(context, blocks * width);
  if (blocks > 0) {
    withType(dx.type(), [&](auto type) {
      using T = decltype(type);
      const Operand<T> values(context, x);
      const Operand<T> upstream(context, dy);
      context.launch(rmsNormGradKernel<T>, static_cast<unsigned>(blocks), kThreads, 32 * sizeof(float), values.data(),
                     scale.data(), upstream.data(), rows, width, static_cast<float>(epsilon), dx.as<T>(),
                     partial.data());
    });
  }
  context.launch(addPartialsKernel, static_cast<unsigned>(blocksFor(width, kThreads)), kThreads, 0, partial.data(),
                 blocks, width, dWeight.as<float>());
}

}  // namespace memory3
