/** `Adamw`: one update of one parameter in one pass. */

#include <cmath>

#include "kernels.h"

namespace memory3 {

struct Coefficients {
  float beta1, beta2, gradient1, gradient2, keep, rate, epsilon;
};

MEMORY3_VECTORISED static void update(const float* parameter, const float* gradient, const float* m, const float* v,
                                      Coefficients c, int64_t count, float* newParameter, float* newM, float* newV) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) {
    newM[i] = m[i] * c.beta1 + gradient[i] * c.gradient1;
    newV[i] = v[i] * c.beta2 + gradient[i] * gradient[i] * c.gradient2;
    newParameter[i] = parameter[i] * c.keep - c.rate * newM[i] / (std::sqrt(newV[i]) + c.epsilon);
  }
}

void adamw(Context& context, Floats parameter, Floats gradient, Floats m, Floats v, double lr, double beta1, double beta2,
           double epsilon, double weightDecay, double step, double gradScale, FloatsOut newParameter, FloatsOut newM,
           FloatsOut newV) {
  for (const int64_t size : {gradient.size, m.size, v.size, newParameter.size, newM.size, newV.size}) {
    expectSize("Adamw: an array", size, parameter.size);
  }
  // The corrections of both moments are numbers, so they go into the rate and into epsilon.
  const double correction = std::sqrt(1 - std::pow(beta2, step));
  const auto f = [](double value) { return static_cast<float>(value); };
  const Coefficients c{f(beta1),
                       f(beta2),
                       f((1 - beta1) * gradScale),
                       f((1 - beta2) * gradScale * gradScale),
                       f(1 - lr * weightDecay),
                       f(lr * correction / (1 - std::pow(beta1, step))),
                       f(epsilon * correction)};
  parallelRanges(context, partsFor(context, parameter.size), parameter.size, [&](Range part) {
    const int64_t from = part.begin;
    update(parameter.data + from, gradient.data + from, m.data + from, v.data + from, c, part.size(),
           newParameter.data + from, newM.data + from, newV.data + from);
  });
}

}  // namespace memory3
