/**
 * SwiGLU, element by element: silu(gate) · up with silu(g) = g·σ(g), and its gradient. Forward moves 3 numbers for each of
 * the result, backward 5, bound by memory; the fast exponential and division are good to a few units of the last place of
 * float32. Threads take 8 elements of each tensor at once.
 */

#include "elements.cuh"
#include "kernels.h"

namespace memory3 {
namespace {

__device__ float sigmoid(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }

struct Swiglu {
  template <class T>
  __device__ float operator()(T gate, T up) const {
    return toFloat(gate) * sigmoid(toFloat(gate)) * toFloat(up);
  }
};

/** N elements; silu'(g) = silu + σ·(1 − silu). */
template <int N, class T>
__device__ void gradients(const T* gate, const T* up, const T* dy, T* dGate, T* dUp) {
  const Group<T, N> gates = loadGroup<N>(gate), ups = loadGroup<N>(up), upstream = loadGroup<N>(dy);
  Group<T, N> dGates, dUps;
#pragma unroll
  for (int i = 0; i < N; i++) {
    const float g = toFloat(gates.at[i]), d = toFloat(upstream.at[i]);
    const float open = sigmoid(g), silu = g * open;
    dGates.at[i] = fromFloat<T>(d * toFloat(ups.at[i]) * (silu + open * (1.0f - silu)));
    dUps.at[i] = fromFloat<T>(d * silu);
  }
  storeGroup(dGate, dGates);
  storeGroup(dUp, dUps);
}

template <class T>
__global__ void swigluGradKernel(const T* gate, const T* up, const T* dy, int64_t count, int64_t groups, T* dGate,
                                 T* dUp) {
  const int64_t first = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = first * kGroup; i < groups * kGroup; i += step * kGroup) {
    gradients<kGroup>(gate + i, up + i, dy + i, dGate + i, dUp + i);
  }
  for (int64_t i = groups * kGroup + first; i < count; i += step) {
    gradients<1>(gate + i, up + i, dy + i, dGate + i, dUp + i);
  }
}

}  // namespace

void swiglu(Context& context, Tensor gate, Tensor up, Tensor out) {
  expect(up.count == gate.count && out.count == gate.count, "swiglu: the tensors differ in size");
  if (out.empty()) return;
  Context::touch(out);
  withType(out.type(), [&](auto type) {
    using T = decltype(type);
    const Operand<T> gates(context, gate), ups(context, up);
    mapElements(context, Swiglu{}, out.count, out.as<T>(), gates.data(), ups.data());
  });
}

void swigluGrad(Context& context, Tensor gate, Tensor up, Tensor dy, Tensor dGate, Tensor dUp) {
  const int64_t count = gate.count;
  expect(up.count == count && dy.count == count && dGate.count == count && dUp.count == count,
         "swigluGrad: the tensors differ in size");
  if (count == 0) return;
  Context::touch(dGate);
  Context::touch(dUp);
  withType(dGate.type(), [&](auto type) {
    using T = decltype(type);
    const Operand<T> gates(context, gate), ups(context, up), upstream(context, dy);
    T *toGate = dGate.as<T>(), *toUp = dUp.as<T>();
    const bool vectors = aligned(gates.data(), ups.data(), upstream.data(), toGate, toUp);
    const int64_t groups = vectors ? count / kGroup : 0;
    const int64_t blocks =
        std::min<int64_t>(blocksFor(groups > 0 ? groups : count, kMapThreads), 32 * context.multiprocessors());
    context.launch(swigluGradKernel<T>, static_cast<unsigned>(blocks), kMapThreads, 0, gates.data(), ups.data(),
                   upstream.data(), count, groups, toGate, toUp);
  });
}

}  // namespace memory3
