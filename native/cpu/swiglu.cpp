/** `Swiglu`, element by element. */

#include "kernels.h"
#include "vector_math.h"

namespace memory3 {

MEMORY3_VECTORISED static void activate(const float* gate, const float* up, int64_t count, float* out) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) out[i] = gate[i] * sigmoid(gate[i]) * up[i];
}

void swiglu(Context& context, Floats gate, Floats up, FloatsOut out) {
  expectSize("Swiglu: up", up.size, gate.size);
  expectSize("Swiglu: out", out.size, gate.size);
  parallelRanges(context, partsFor(context, 4.0 * gate.size), gate.size, [&](Range part) {
    activate(gate.data + part.begin, up.data + part.begin, part.size(), out.data + part.begin);
  });
}

/** silu'(g) = silu + σ·(1 − silu) */
MEMORY3_VECTORISED static void activateGrad(const float* gate, const float* up, const float* dy, int64_t count,
                                            float* dGate, float* dUp) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) {
    const float open = sigmoid(gate[i]);
    const float silu = gate[i] * open;
    dGate[i] = dy[i] * up[i] * (silu + open * (1.0f - silu));
    dUp[i] = dy[i] * silu;
  }
}

void swigluGrad(Context& context, Floats gate, Floats up, Floats dy, FloatsOut dGate, FloatsOut dUp) {
  expectSize("SwigluGrad: up", up.size, gate.size);
  expectSize("SwigluGrad: dy", dy.size, gate.size);
  expectSize("SwigluGrad: dGate", dGate.size, gate.size);
  expectSize("SwigluGrad: dUp", dUp.size, gate.size);
  parallelRanges(context, partsFor(context, 6.0 * gate.size), gate.size, [&](Range part) {
    const int64_t from = part.begin;
    activateGrad(gate.data + from, up.data + from, dy.data + from, part.size(), dGate.data + from, dUp.data + from);
  });
}

}  // namespace memory3
