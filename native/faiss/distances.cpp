/**
 * Distances for Faiss. A distribution builds Faiss for the oldest processor that it supports (Debian: SSE2, one number at a
 * time); these are compiled for several, and the linker puts them in the place of Faiss's own (see --wrap in CMakeLists.txt).
 *
 * Legend: d dimensions, n vectors.
 */

#include <cstddef>

#include "common.h"

namespace memory3 {

MEMORY3_VECTORISED static float innerProduct(const float* x, const float* y, std::size_t d) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::size_t i = 0; i < d; i++) sum += x[i] * y[i];
  return sum;
}

MEMORY3_VECTORISED static float squaredDistance(const float* x, const float* y, std::size_t d) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::size_t i = 0; i < d; i++) sum += (x[i] - y[i]) * (x[i] - y[i]);
  return sum;
}

}  // namespace memory3

// The names that the linker looks for: __wrap_ and the name of the function as the compiler spells it.
extern "C" {

/** faiss::fvec_inner_product */
float __wrap__ZN5faiss18fvec_inner_productEPKfS1_m(const float* x, const float* y, std::size_t d) {
  return memory3::innerProduct(x, y, d);
}

/** faiss::fvec_L2sqr */
float __wrap__ZN5faiss10fvec_L2sqrEPKfS1_m(const float* x, const float* y, std::size_t d) {
  return memory3::squaredDistance(x, y, d);
}
}
