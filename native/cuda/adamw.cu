/**
 * AdamW over all parameters, kMostParameters in a launch: the addresses travel with the arguments. For each number the
 * parameter, both moments and the gradient are read and the parameter and the moments written, and where the parameter has
 * a copy as bfloat16, that too: 30 bytes with a float32 gradient, 28 with a bfloat16 one. About 12 operations: bound by
 * memory. Parameters, moments and all arithmetic are float32; a thread takes 8 numbers of each tensor at a time.
 * 58 registers (sm_90a).
 */

#include <cmath>

#include "elements.cuh"
#include "kernels.h"

namespace memory3 {
namespace {

constexpr int kThreads = 256, kRounds = 2;
constexpr int64_t kBlock = kThreads * kGroup * kRounds;  // numbers of a block
constexpr int kMostParameters = 48;

struct Parameter {
  const float* parameter;
  const float* m;
  const float* v;
  const void* gradient;
  float* newParameter;
  float* newM;
  float* newV;
  Bf16* half;  // null without a copy
  int64_t count;
  uint32_t firstBlock;
  bool halfGradient;
  bool vectors;
};

struct Coefficients {
  float beta1, beta2, gradient1, gradient2, keep, rate, epsilon;
};

struct Update {
  Parameter parameters[kMostParameters];
  int count;
  Coefficients coefficients;
};
static_assert(sizeof(Update) <= 4096, "a kernel takes 4 KiB of arguments");

template <int N, class T>
__device__ void updateNumbers(const Parameter& p, const T* gradient, const Coefficients& c, int64_t i) {
  const Group<float, N> parameters = loadGroup<N>(p.parameter + i), ms = loadGroup<N>(p.m + i), vs = loadGroup<N>(p.v + i);
  const Group<T, N> gradients = loadGroup<N>(gradient + i);
  Group<float, N> newParameters, newMs, newVs;
  Group<Bf16, N> halves;
#pragma unroll
  for (int j = 0; j < N; j++) {
    const float g = toFloat(gradients.at[j]);
    newMs.at[j] = ms.at[j] * c.beta1 + g * c.gradient1;
    newVs.at[j] = vs.at[j] * c.beta2 + g * g * c.gradient2;
    newParameters.at[j] = parameters.at[j] * c.keep - c.rate * newMs.at[j] / (sqrtf(newVs.at[j]) + c.epsilon);
    halves.at[j] = roundToBf16(newParameters.at[j]);
  }
  storeGroup(p.newParameter + i, newParameters);
  storeGroup(p.newM + i, newMs);
  storeGroup(p.newV + i, newVs);
  if (p.half != nullptr) storeGroup(p.half + i, halves);
}

template <class T>
__device__ void updatePart(const Parameter& p, const Coefficients& c, int64_t begin) {
  const T* gradient = static_cast<const T*>(p.gradient);
  const int64_t end = min(begin + kBlock, p.count);
  const int64_t groupsEnd = p.vectors ? begin + (end - begin) / kGroup * kGroup : begin;
  for (int64_t i = begin + static_cast<int64_t>(threadIdx.x) * kGroup; i < groupsEnd; i += kThreads * kGroup) {
    updateNumbers<kGroup>(p, gradient, c, i);
  }
  for (int64_t i = groupsEnd + threadIdx.x; i < end; i += kThreads) updateNumbers<1>(p, gradient, c, i);
}

__global__ void adamwKernel(const __grid_constant__ Update update) {
  const Parameter& own = ownerOfBlock(update.parameters, update.count);
  const int64_t begin = static_cast<int64_t>(blockIdx.x - own.firstBlock) * kBlock;
  if (own.halfGradient) {
    updatePart<Bf16>(own, update.coefficients, begin);
  } else {
    updatePart<float>(own, update.coefficients, begin);
  }
}

/** Collects parameters until a launch is full. */
class Updates {
 public:
  Updates(Context& context, const Coefficients& coefficients) : context_(context) { update_.coefficients = coefficients; }
  void add(Parameter parameter) {
    const int64_t blocks = blocksFor(parameter.count, kBlock);
    expect(blocks < (int64_t{1} << 30), "adamw: a parameter is too large");
    if (update_.count == kMostParameters || blocks_ + blocks >= int64_t{1} << 31) launch();
    parameter.firstBlock = static_cast<uint32_t>(blocks_);
    update_.parameters[update_.count++] = parameter;
    blocks_ += blocks;
  }
  void launch() {
    context_.launch(adamwKernel, static_cast<unsigned>(blocks_), kThreads, 0, update_);
    update_.count = 0;
    blocks_ = 0;
  }

 private:
  Context& context_;
  Update update_{};
  int64_t blocks_ = 0;
};

/** The corrections of both moments are numbers, so they go into the rate and into epsilon. */
Coefficients coefficientsOf(double lr, double beta1, double beta2, double epsilon, double weightDecay, double step,
                            double gradScale) {
  const double correction = std::sqrt(1 - std::pow(beta2, step));
  const auto f = [](double value) { return static_cast<float>(value); };
  return {f(beta1),
          f(beta2),
          f((1 - beta1) * gradScale),
          f((1 - beta2) * gradScale * gradScale),
          f(1 - lr * weightDecay),
          f(lr * correction / (1 - std::pow(beta1, step))),
          f(epsilon * correction)};
}

Parameter parameterOf(const Tensor& parameter, const Tensor& gradient, const Tensor& m, const Tensor& v,
                      const Tensor& newParameter, const Tensor& newM, const Tensor& newV) {
  for (const Tensor* tensor : {&gradient, &m, &v, &newParameter, &newM, &newV}) {
    expect(tensor->count == parameter.count, "adamw: the tensors of a parameter differ in size");
  }
  Parameter p{};
  p.count = parameter.count;
  if (p.count == 0) return p;
  p.parameter = parameter.as<float>();
  p.m = m.as<float>();
  p.v = v.as<float>();
  p.newParameter = newParameter.as<float>();
  p.newM = newM.as<float>();
  p.newV = newV.as<float>();
  Bf16* half = newParameter.buffer->half;
  p.half = half != nullptr ? half + newParameter.offset : nullptr;
  p.halfGradient = gradient.type() == Type::bfloat16;
  p.gradient = p.halfGradient ? static_cast<const void*>(gradient.as<Bf16>()) : gradient.as<float>();
  p.vectors = aligned(p.parameter, p.m, p.v, p.newParameter, p.newM, p.newV, p.gradient, p.half);
  return p;
}

}  // namespace

void adamw(Context& context, TensorList parameters, TensorList gradients, TensorList m, TensorList v, double lr,
           double beta1, double beta2, double epsilon, double weightDecay, double step, double gradScale,
           TensorList newParameters, TensorList newM, TensorList newV) {
  const std::size_t count = parameters.size();
  for (TensorList list : {gradients, m, v, newParameters, newM, newV}) {
    expect(list.size() == count, "adamw: lists of different lengths");
  }
  std::vector<Parameter> all;
  for (std::size_t i = 0; i < count; i++) {
    all.push_back(parameterOf(parameters[i], gradients[i], m[i], v[i], newParameters[i], newM[i], newV[i]));
  }
  Updates updates(context, coefficientsOf(lr, beta1, beta2, epsilon, weightDecay, step, gradScale));
  for (std::size_t i = 0; i < count; i++) {
    if (all[i].count == 0) continue;
    updates.add(all[i]);
    Context::touch(newM[i]);
    Context::touch(newV[i]);
    // The copy is written along; what of it holds when only a part is written is as true as before.
    if (newParameters[i].whole()) newParameters[i].buffer->halfFresh = all[i].half != nullptr;
  }
  updates.launch();
}

}  // namespace memory3
