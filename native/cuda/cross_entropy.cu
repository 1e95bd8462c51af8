/**
 * `CrossEntropy`: the output head and the loss, in blocks of rows, so that logits never exist for all tokens.
 * Legend: N tokens, d width, V vocabulary, R rows of a block.
 *
 * For each block: logits [R, V] = hidden · weightᵀ in float32 by cuBLASLt; one kernel that makes losses of them and, when
 * gradients are wanted, softmax − onehot in the type of the operands; then dHidden = that · weight and
 * dWeight += thatᵀ · hidden, again by cuBLASLt, in float32. 2·N·V·d operations without gradients, 6·N·V·d with them. The
 * kernel reads each logit twice, 8 bytes (of the second time some come from the second-level cache), and in bfloat16 writes
 * 2: for d in the thousands a few per cent of the time of the products.
 *
 * R is bounded by kLogitsBytes of logits and, where there are enough rows, a multiple of 128, which is what the tiles of
 * the products want. dWeight [V, d] is read and written once a block, so that larger blocks are cheaper; 256 MiB are about
 * 1,000 rows of a vocabulary of 60,000. Rows of logits begin at multiples of 256 bytes whatever V is.
 *
 * A row is one thread block's: each thread keeps the largest logit and the sum of exponentials of its own in one pass over
 * vectors of 16 bytes, and they are joined at the end, so that logits are not read a third time. 1,024 threads a row rather
 * than fewer, for fewer rows at work at once leave more of them in the cache. ptxas for sm_90a: 32 registers, no spills, two
 * blocks a multiprocessor.
 */

#include <cstdlib>

#include "blas.h"
#include "kernels.h"

namespace memory3 {
namespace {

/** Of a block, at most. */
constexpr int kThreads = 1024;
constexpr int64_t kLogitsBytes = int64_t{256} << 20;
constexpr int64_t kRowMultiple = 128;
/** Rows of logits are padded to this many. */
constexpr int64_t kStride = 64;
constexpr int32_t kIgnored = -1;

/** The largest of some logits and the sum of exp(logit − largest). */
struct Normaliser {
  float largest = -INFINITY;
  float sum = 0;

  /** Makes `candidate` the largest if it is. */
  __device__ void raiseTo(float candidate) {
    if (!(candidate > largest)) return;
    sum *= expf(largest - candidate);
    largest = candidate;
  }

  __device__ void add(float logit) {
    raiseTo(logit);
    sum += expf(logit - largest);
  }

  __device__ void add(const Vector<float>& logits) {
    raiseTo(fmaxf(fmaxf(logits.at[0], logits.at[1]), fmaxf(logits.at[2], logits.at[3])));
    sum += (expf(logits.at[0] - largest) + expf(logits.at[1] - largest)) +
           (expf(logits.at[2] - largest) + expf(logits.at[3] - largest));
  }
};

/** Over a row of V logits; in all threads. `room` as for blockSum. */
__device__ Normaliser normaliserOf(const float* logits, int64_t vocabulary, float* room) {
  Normaliser own;
  const int64_t vectors = vocabulary / kVector<float>;
  for (int64_t i = threadIdx.x; i < vectors; i += blockDim.x) {
    own.add(loadVector(logits + i * kVector<float>));
  }
  for (int64_t i = vectors * kVector<float> + threadIdx.x; i < vocabulary; i += blockDim.x) own.add(logits[i]);
  Normaliser all;
  all.largest = blockMax(own.largest, room);
  // A thread that saw no logit has nothing to add.
  all.sum = blockSum(own.largest == -INFINITY ? own.sum : own.sum * expf(own.largest - all.largest), room);
  return all;
}

/** Four gradients, rounded and stored together. */
__device__ void storeFour(float* to, const Vector<float>& values) { storeVector(to, values); }
__device__ void storeFour(Bf16* to, const Vector<float>& values) {
  *reinterpret_cast<uint2*>(to) =
      make_uint2(packBf16(values.at[0], values.at[1]), packBf16(values.at[2], values.at[3]));
}

/**
 * losses [R] of logits [R, stride] and, unless `gradients` is null, gradients [R, stride] = softmax − onehot, 0 where the
 * target is ignored. `gradients` may be the logits.
 */
template <class T>
__global__ void __launch_bounds__(kThreads)
    lossKernel(const float* logits, const int32_t* targets, int64_t vocabulary, int64_t stride, T* gradients,
               float* losses, Fault* fault) {
  const int64_t row = blockIdx.x;
  const float* own = logits + row * stride;
  int32_t target = targets[row];
  if (target < kIgnored || target >= vocabulary) {
    if (threadIdx.x == 0) raise(fault, kTargetOutOfRange, target, static_cast<int32_t>(vocabulary));
    target = kIgnored;
  }
  // Read before anybody overwrites it: the sums below wait for all threads.
  const float ofTarget = target == kIgnored ? 0 : own[target];
  const Normaliser all = normaliserOf(own, vocabulary, sharedMemory<float>());
  if (threadIdx.x == 0) losses[row] = target == kIgnored ? 0 : logf(all.sum) + (all.largest - ofTarget);
  if (gradients == nullptr) return;
  T* out = gradients + row * stride;
  const float scale = target == kIgnored ? 0 : 1 / all.sum;
  const auto gradientOf = [&](float logit, int64_t i) {
    return expf(logit - all.largest) * scale - (i == target ? 1.0f : 0.0f);
  };
  const int64_t vectors = vocabulary / kVector<float>;
  for (int64_t i = threadIdx.x; i < vectors; i += blockDim.x) {
    Vector<float> some = loadVector(own + i * kVector<float>);
#pragma unroll
    for (int j = 0; j < kVector<float>; j++) some.at[j] = gradientOf(some.at[j], i * kVector<float> + j);
    storeFour(out + i * kVector<float>, some);
  }
  for (int64_t i = vectors * kVector<float> + threadIdx.x; i < vocabulary; i += blockDim.x) {
    out[i] = fromFloat<T>(gradientOf(own[i], i));
  }
}

/** The sum of N losses by one block: each thread a fixed share of them, then the threads in order. */
__global__ void __launch_bounds__(kThreads) sumKernel(const float* losses, int64_t count, float* sum) {
  float own = 0;
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) own += losses[i];
  own = blockSum(own, sharedMemory<float>());
  if (threadIdx.x == 0) *sum = own;
}

/** Whole warps for so much work, no more than a block has. */
unsigned threadsFor(int64_t work) {
  return static_cast<unsigned>(std::min<int64_t>(kThreads, blocksFor(work, kWarpSize) * kWarpSize));
}

/** MEMORY3_CUDA_LOGITS_BYTES sets another bound, for tests and measurements. */
int64_t logitsBytes() {
  const char* given = std::getenv("MEMORY3_CUDA_LOGITS_BYTES");
  return given != nullptr ? std::strtoll(given, nullptr, 10) : kLogitsBytes;
}

int64_t rowsOfBlock(int64_t tokens, int64_t stride) {
  const int64_t most = std::max<int64_t>(1, logitsBytes() / (stride * static_cast<int64_t>(sizeof(float))));
  return std::min(tokens, most >= kRowMultiple ? most / kRowMultiple * kRowMultiple : most);
}

struct Head {
  Tensor hidden, weight, targets, losses, dHidden, dWeight;
  int64_t tokens, width, vocabulary;
};

template <class T>
void inBlocks(Context& context, const Head& head) {
  constexpr bool inPlace = std::is_same_v<T, float>;
  const auto [tokens, width, vocabulary] = std::tie(head.tokens, head.width, head.vocabulary);
  const int64_t stride = blocksFor(vocabulary, kStride) * kStride, blockRows = rowsOfBlock(tokens, stride);
  const bool wanted = !head.dWeight.empty();
  const Operand<T> hidden(context, head.hidden);
  const Operand<T> weight(context, head.weight);
  const Scratch<float> logits(context, blockRows * stride);
  const Scratch<T> beside(context, wanted && !inPlace ? blockRows * stride : 0);
  T* gradients = beside.data();
  if constexpr (inPlace) gradients = wanted ? logits.data() : nullptr;
  const auto rowsOf = [&, width = width](const T* data, int64_t rows, bool transposed = false) {
    return Matrix{data, typeOf<T>(), rows, width, width, transposed};
  };
  for (int64_t first = 0; first < tokens; first += blockRows) {
    const int64_t rows = std::min(blockRows, tokens - first);
    const T* own = hidden.data() + first * width;
    context.blas().multiply(context, rowsOf(own, rows), rowsOf(weight.data(), vocabulary, true),
                            {logits.data(), Type::float32, rows, vocabulary, stride}, nullptr, 0);
    context.launch(lossKernel<T>, static_cast<unsigned>(rows), threadsFor(blocksFor(vocabulary, kVector<float>)),
                   32 * sizeof(float), logits.data(), head.targets.as<int32_t>() + first, vocabulary, stride, gradients,
                   head.losses.as<float>() + first, context.fault());
    if (!wanted) continue;
    context.blas().multiply(
        context, {gradients, typeOf<T>(), rows, vocabulary, stride}, rowsOf(weight.data(), vocabulary),
        {head.dHidden.as<float>() + first * width, Type::float32, rows, width, width}, nullptr, 0);
    float* dWeight = head.dWeight.as<float>();
    context.blas().multiply(context, {gradients, typeOf<T>(), rows, vocabulary, stride, true}, rowsOf(own, rows),
                            {dWeight, Type::float32, vocabulary, width, width}, dWeight, first > 0 ? 1 : 0);
  }
}

void clear(Context& context, const Tensor& out) {
  if (out.empty()) return;
  check(cudaMemsetAsync(out.as<float>(), 0, static_cast<std::size_t>(out.count) * sizeof(float), context.stream()),
        "clearing memory");
}

}  // namespace

void crossEntropy(Context& context, Tensor hidden, Tensor weight, Tensor targets, Tensor sum, Tensor losses,
                  Tensor dHidden, Tensor dWeight) {
  const int64_t tokens = targets.count;
  expect(losses.count == tokens && sum.count == 1, "CrossEntropy: the losses do not fit the targets");
  if (tokens == 0) {
    clear(context, sum);
    clear(context, dWeight);
    return;
  }
  const int64_t width = hidden.count / tokens;
  expect(width > 0 && hidden.count == tokens * width, "CrossEntropy: hidden does not fit the targets");
  const int64_t vocabulary = weight.count / width;
  expect(vocabulary > 0 && weight.count == vocabulary * width, "CrossEntropy: the weight does not fit hidden");
  expect(vocabulary <= INT32_MAX, "CrossEntropy: the vocabulary is too large");
  const bool wanted = !dWeight.empty();
  expect(dHidden.count == (wanted ? hidden.count : 0) && dWeight.count == (wanted ? weight.count : 0),
         "CrossEntropy: the gradients do not fit hidden and the weight");
  withType(hidden.type(), [&](auto type) {
    inBlocks<decltype(type)>(context,
                             {hidden, weight, targets, losses, dHidden, dWeight, tokens, width, vocabulary});
  });
  context.launch(sumKernel, 1, threadsFor(tokens), 32 * sizeof(float), losses.as<float>(), tokens, sum.as<float>());
}

}  // namespace memory3
