/** `Adamw`: one update of many parameters in one pass. */

#include <algorithm>
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

/** Elements of a parameter that are updated together. */
struct Piece {
  std::size_t parameter;
  Range range;
};

static constexpr int64_t PIECE = 1 << 14;

void adamw(Context& context, FloatsList parameters, FloatsList gradients, FloatsList m, FloatsList v, double lr,
           double beta1, double beta2, double epsilon, double weightDecay, double step, double gradScale,
           FloatsOutList newParameters, FloatsOutList newM, FloatsOutList newV) {
  const std::size_t count = parameters.size();
  expect(gradients.size() == count && m.size() == count && v.size() == count && newParameters.size() == count &&
             newM.size() == count && newV.size() == count,
         "Adamw: lists of different lengths");
  std::vector<Piece> pieces;
  int64_t total = 0;
  for (std::size_t i = 0; i < count; i++) {
    const int64_t elements = parameters[i].size;
    for (const int64_t size : {gradients[i].size, m[i].size, v[i].size, newParameters[i].size, newM[i].size, newV[i].size}) {
      expectSize("Adamw: an array", size, elements);
    }
    for (int64_t at = 0; at < elements; at += PIECE) pieces.push_back({i, {at, std::min(at + PIECE, elements)}});
    total += elements;
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
  parallelRanges(context, partsFor(context, total), static_cast<int64_t>(pieces.size()), [&](Range part) {
    for (int64_t n = part.begin; n < part.end; n++) {
      const auto& [i, range] = pieces[n];
      const int64_t at = range.begin;
      update(parameters[i].data + at, gradients[i].data + at, m[i].data + at, v[i].data + at, c, range.size(),
             newParameters[i].data + at, newM[i].data + at, newV[i].data + at);
    }
  });
}

}  // namespace memory3
