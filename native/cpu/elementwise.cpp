/** Plain tfjs kernels that training uses between the fused ones. */

#include <algorithm>
#include <cstring>
#include <type_traits>

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

void scale(Context& context, Floats a, Floats factor, FloatsOut out) {
  expectSize("Multiply: out", out.size, a.size);
  expectSize("Multiply: factor", factor.size, 1);
  parallelRanges(context, partsFor(context, a.size), a.size, [&](Range part) {
    scaleAll(a.data + part.begin, factor.data[0], part.size(), out.data + part.begin);
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

void argMax(Context& context, Floats x, IntsOut out) {
  if (out.size == 0) return;
  expect(x.size > 0 && x.size % out.size == 0, "ArgMax: x is not made of so many rows");
  const int64_t width = x.size / out.size;
  parallelRanges(context, partsFor(context, x.size), out.size, [&](Range rows) {
    for (int64_t row = rows.begin; row < rows.end; row++) {
      const float* from = x.data + row * width;
      out.data[row] = static_cast<int32_t>(std::max_element(from, from + width) - from);
    }
  });
}

/** Calls `body(pointer to the elements)` with the right type. */
template <class Body>
static void withType(const Values& values, const Body& body) {
  switch (values.type) {
    case Type::float32: return body(static_cast<float*>(values.data));
    case Type::int32: return body(static_cast<int32_t*>(values.data));
    case Type::boolean: return body(static_cast<bool*>(values.data));
  }
}

void fill(Context& context, double value, Values out) {
  withType(out, [&](auto* to) {
    using Element = std::remove_pointer_t<decltype(to)>;
    parallelRanges(context, partsFor(context, out.size), out.size, [&](Range part) {
      std::fill(to + part.begin, to + part.end, static_cast<Element>(value));
    });
  });
}

/** Numbers lose their fraction as integers; as booleans all but 0 are true. */
void cast(Context& context, Values from, Values to) {
  expectSize("Cast: out", to.size, from.size);
  withType(from, [&](const auto* source) {
    withType(to, [&](auto* target) {
      using Element = std::remove_pointer_t<decltype(target)>;
      parallelRanges(context, partsFor(context, to.size), to.size, [&](Range part) {
        for (int64_t i = part.begin; i < part.end; i++) target[i] = static_cast<Element>(source[i]);
      });
    });
  });
}

}  // namespace memory3
