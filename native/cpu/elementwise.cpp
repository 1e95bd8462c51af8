/** Plain tfjs kernels that training uses between the fused ones. */

#include <cstring>

#include "kernels.h"

namespace memory3 {

MEMORY3_VECTORISED static void addAll(const float* a, const float* b, int64_t count, float* out) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) out[i] = a[i] + b[i];
}

MEMORY3_VECTORISED static void multiplyAll(const float* a, const float* b, int64_t count, float* out) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) out[i] = a[i] * b[i];
}

MEMORY3_VECTORISED static void scaleAll(const float* a, float factor, int64_t count, float* out) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) out[i] = a[i] * factor;
}

void add(Context& context, Floats a, Floats b, FloatsOut out) {
  expectSize("Add: b", b.size, a.size);
  expectSize("Add: out", out.size, a.size);
  parallelRanges(context, partsFor(context, a.size), a.size, [&](Range part) {
    addAll(a.data + part.begin, b.data + part.begin, part.size(), out.data + part.begin);
  });
}

void multiply(Context& context, Floats a, Floats b, FloatsOut out) {
  expectSize("Multiply: b", b.size, a.size);
  expectSize("Multiply: out", out.size, a.size);
  parallelRanges(context, partsFor(context, a.size), a.size, [&](Range part) {
    multiplyAll(a.data + part.begin, b.data + part.begin, part.size(), out.data + part.begin);
  });
}

void scale(Context& context, Floats a, double factor, FloatsOut out) {
  expectSize("Multiply: out", out.size, a.size);
  parallelRanges(context, partsFor(context, a.size), a.size, [&](Range part) {
    scaleAll(a.data + part.begin, static_cast<float>(factor), part.size(), out.data + part.begin);
  });
}

/** `outer` parts of `[axis, inner]` summed over `axis`; in double, so that long sums stay exact. */
void sumAxis(Context&, Floats x, int64_t outer, int64_t axis, int64_t inner, FloatsOut out) {
  expectSize("Sum: x", x.size, outer * axis * inner);
  expectSize("Sum: out", out.size, outer * inner);
  for (int64_t o = 0; o < outer; o++) {
    for (int64_t i = 0; i < inner; i++) {
      const float* from = x.data + o * axis * inner + i;
      double sum = 0;
      for (int64_t a = 0; a < axis; a++) sum += from[a * inner];
      out.data[o * inner + i] = static_cast<float>(sum);
    }
  }
}

void copyRows(Context& context, Floats from, int64_t fromOffset, int64_t fromStride, int64_t rows, int64_t width,
              int64_t toStride, int64_t toOffset, FloatsOut to) {
  if (rows == 0 || width == 0) return;
  expect(fromOffset >= 0 && toOffset >= 0 && fromStride >= width && toStride >= width, "copyRows: rows overlap");
  expect(fromOffset + (rows - 1) * fromStride + width <= from.size, "copyRows: outside of the source");
  expect(toOffset + (rows - 1) * toStride + width <= to.size, "copyRows: outside of the target");
  parallelRanges(context, partsFor(context, rows * width), rows, [&](Range part) {
    for (int64_t row = part.begin; row < part.end; row++) {
      std::memcpy(to.data + toOffset + row * toStride, from.data + fromOffset + row * fromStride, width * sizeof(float));
    }
  });
}

}  // namespace memory3
