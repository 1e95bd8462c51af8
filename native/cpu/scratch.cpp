#include <cstdlib>
#include <cstring>
#include <new>

#include "common.h"

namespace memory3 {

void Scratch::Free::operator()(void* memory) const { std::free(memory); }

float* Scratch::floats(int64_t count) {
  if (count > capacity_) {
    memory_.reset();
    capacity_ = 0;
    const std::size_t bytes = static_cast<std::size_t>(padded(count)) * sizeof(float);
    memory_.reset(static_cast<float*>(std::aligned_alloc(64, bytes)));
    if (!memory_) throw std::bad_alloc();
    capacity_ = padded(count);
  }
  return memory_.get();
}

MEMORY3_VECTORISED void sumParts(const float* first, int64_t step, int64_t parts, int64_t count, float* out) {
  std::memcpy(out, first, count * sizeof(float));
  for (int64_t part = 1; part < parts; part++) {
    const float* other = first + part * step;
#pragma omp simd
    for (int64_t i = 0; i < count; i++) out[i] += other[i];
  }
}

}  // namespace memory3
