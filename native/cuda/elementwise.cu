/**
 * Plain tfjs kernels that training uses between the fused ones. All are bound by memory and read and write each element
 * once: add and multiply move 3 elements for each of the result, scale, cast and copyRows 2, fill 1, sumAxis and argMax
 * read x once. Storage of inputs and outputs may differ: numbers are converted in the registers.
 *
 * Threads take groups of 8 elements or more (see elements.cuh). Sums are in float64, over fixed parts of an axis whose
 * sums are then added in order, so that neither the card nor the order of blocks shows in the result.
 */

#include "elements.cuh"
#include "kernels.h"

namespace memory3 {
namespace {

struct Sum {
  template <class A, class B>
  __device__ float operator()(A a, B b) const {
    return toFloat(a) + toFloat(b);
  }
};

struct Product {
  template <class A, class B>
  __device__ float operator()(A a, B b) const {
    return toFloat(a) * toFloat(b);
  }
};

template <class F>
struct Scaled {
  const F* factor;
  template <class A>
  __device__ float operator()(A a) const {
    return toFloat(a) * toFloat(*factor);
  }
};

/** Calls `body` with an element of the type that a tensor has. */
template <class Body>
void withElement(Type type, const Body& body) {
  switch (type) {
    case Type::float32: return body(float{});
    case Type::int32: return body(int32_t{});
    case Type::boolean: return body(uint8_t{});
    case Type::bfloat16: return body(Bf16{});
  }
}

template <class Body>
void mapPair(Context& context, const Body& body, const Tensor& a, const Tensor& b, const Tensor& out) {
  Context::touch(out);
  withType(out.type(), [&](auto outType) {
    withType(a.type(), [&](auto aType) {
      withType(b.type(), [&](auto bType) {
        mapElements(context, body, out.count, out.as<decltype(outType)>(), a.as<decltype(aType)>(),
                    b.as<decltype(bType)>());
      });
    });
  });
}

constexpr int kThreads = 256;
constexpr int64_t kSumPart = 4096;  // elements of an axis that are summed together before they join the others
constexpr int64_t kSumParts = 1024;

__device__ double toDouble(double x) { return x; }
template <class T>
__device__ double toDouble(T x) {
  return static_cast<double>(toFloat(x));
}
template <class T>
__device__ T fromDouble(double x) {
  if constexpr (std::is_same_v<T, double>) {
    return x;
  } else {
    return fromFloat<T>(static_cast<float>(x));
  }
}

/**
 * x [outer, axis, inner] to sums [outer, parts, inner] over parts of the axis. A block has blockDim.x columns of inner and
 * blockDim.y threads for each of them.
 */
template <class From, class To>
__global__ void sumAxisKernel(const From* x, int64_t axis, int64_t inner, uint32_t parts, uint32_t tiles, To* out) {
  auto* sums = sharedMemory<double>();
  const int64_t outer = blockIdx.x / tiles / parts, part = blockIdx.x / tiles % parts;
  const int64_t i = static_cast<int64_t>(blockIdx.x % tiles) * blockDim.x + threadIdx.x;
  const int64_t begin = axis * part / parts, end = axis * (part + 1) / parts;
  double sum = 0;
  if (i < inner) {
    for (int64_t a = begin + threadIdx.y; a < end; a += blockDim.y) sum += toDouble(x[(outer * axis + a) * inner + i]);
  }
  sums[threadIdx.y * blockDim.x + threadIdx.x] = sum;
  for (unsigned rows = blockDim.y / 2; rows > 0; rows /= 2) {
    __syncthreads();
    if (threadIdx.y < rows) {
      sums[threadIdx.y * blockDim.x + threadIdx.x] += sums[(threadIdx.y + rows) * blockDim.x + threadIdx.x];
    }
  }
  if (threadIdx.y == 0 && i < inner) out[(outer * parts + part) * inner + i] = fromDouble<To>(sums[threadIdx.x]);
}

template <class From, class To>
void sumParts(Context& context, const From* x, int64_t outer, int64_t axis, int64_t inner, int64_t parts, To* out) {
  unsigned across = 1;
  while (across < 32 && across < inner) across *= 2;
  const int64_t tiles = blocksFor(inner, across), blocks = outer * parts * tiles;
  expect(blocks < (int64_t{1} << 31), "sumAxis: too many sums");
  context.launch(sumAxisKernel<From, To>, static_cast<unsigned>(blocks), dim3(across, kThreads / across),
                 kThreads * sizeof(double), x, axis, inner, static_cast<uint32_t>(parts), static_cast<uint32_t>(tiles),
                 out);
}

/** Rows in equal distances. */
template <class From, class To>
struct Strided {
  const From* from;
  int64_t fromStride;
  To* to;
  int64_t toStride;
  __device__ Move<From, To> operator()(uint32_t row) const { return {from + row * fromStride, to + row * toStride}; }
};

/** The largest value so far and where it is first; NaN is never larger. */
struct Best {
  float value;
  int32_t index;
  __device__ void join(float other, int32_t at) {
    if (other > value || (other == value && at < index)) {
      value = other;
      index = at;
    }
  }
};

/** Best of the lanes of a warp, in all lanes. */
__device__ Best warpBest(Best best) {
#pragma unroll
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
    const float value = __shfl_xor_sync(kAllLanes, best.value, offset);
    const int32_t index = __shfl_xor_sync(kAllLanes, best.index, offset);
    best.join(value, index);
  }
  return best;
}

/** x [rows, width] to the first place of each row's largest value; a block a row. A row that begins with NaN gives 0. */
template <int N, class T>
__global__ void argMaxKernel(const T* x, int64_t width, int32_t* out) {
  const T* row = x + blockIdx.x * width;
  Best best{-INFINITY, INT32_MAX};
  for (int64_t i = static_cast<int64_t>(threadIdx.x) * N; i < width; i += static_cast<int64_t>(blockDim.x) * N) {
    const Group<T, N> group = loadGroup<N>(row + i);
#pragma unroll
    for (int j = 0; j < N; j++) best.join(toFloat(group.at[j]), static_cast<int32_t>(i) + j);
  }
  auto* found = sharedMemory<Best>();
  const unsigned lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  best = warpBest(best);
  if (lane == 0) found[warp] = best;
  __syncthreads();
  if (warp > 0) return;
  best = warpBest(lane < blockDim.x / kWarpSize ? found[lane] : Best{-INFINITY, INT32_MAX});
  const float first = toFloat(row[0]);
  if (lane == 0) out[blockIdx.x] = first == first ? best.index : 0;
}

template <class T>
struct Constant {
  T value;
  __device__ T operator()() const { return value; }
};

/** `value` as static_cast makes it of a double. */
template <class T>
T elementOf(double value) {
  if constexpr (std::is_same_v<T, Bf16>) {
    return roundToBf16(static_cast<float>(value));
  } else if constexpr (std::is_same_v<T, uint8_t>) {
    return value != 0 ? 1 : 0;
  } else {
    return static_cast<T>(value);
  }
}

}  // namespace

void add(Context& context, Tensor a, Tensor b, Tensor out) {
  expect(a.count == out.count && b.count == out.count, "add: the tensors differ in size");
  if (!out.empty()) mapPair(context, Sum{}, a, b, out);
}

void multiply(Context& context, Tensor a, Tensor b, Tensor out) {
  expect(a.count == out.count && b.count == out.count, "multiply: the tensors differ in size");
  if (!out.empty()) mapPair(context, Product{}, a, b, out);
}

void scale(Context& context, Tensor a, Tensor factor, Tensor out) {
  expect(a.count == out.count, "scale: the tensors differ in size");
  expect(factor.count == 1, "scale: the factor is not one number");
  if (out.empty()) return;
  Context::touch(out);
  withType(out.type(), [&](auto outType) {
    withType(a.type(), [&](auto aType) {
      withType(factor.type(), [&](auto factorType) {
        using F = decltype(factorType);
        mapElements(context, Scaled<F>{factor.as<F>()}, out.count, out.as<decltype(outType)>(),
                    a.as<decltype(aType)>());
      });
    });
  });
}

void sumAxis(Context& context, Tensor x, int64_t outer, int64_t axis, int64_t inner, Tensor out) {
  expect(outer >= 0 && axis >= 0 && inner >= 0 && x.count == outer * axis * inner && out.count == outer * inner,
         "sumAxis: sizes do not fit");
  if (out.empty()) return;
  if (x.empty()) return fill(context, 0, out);
  Context::touch(out);
  const int64_t parts = std::min(blocksFor(axis, kSumPart), kSumParts);
  withType(out.type(), [&](auto outType) {
    withType(x.type(), [&](auto xType) {
      auto* target = out.as<decltype(outType)>();
      const auto* values = x.as<decltype(xType)>();
      if (parts == 1) return sumParts(context, values, outer, axis, inner, 1, target);
      const Scratch<double> sums(context, outer * parts * inner);
      sumParts(context, values, outer, axis, inner, parts, sums.data());
      sumParts(context, static_cast<const double*>(sums.data()), outer, parts, inner, 1, target);
    });
  });
}

void copyRows(Context& context, Tensor from, int64_t fromOffset, int64_t fromStride, int64_t rows, int64_t width,
              int64_t toStride, int64_t toOffset, Tensor to) {
  if (rows == 0 || width == 0) return;
  expect(rows > 0 && width > 0 && fromOffset >= 0 && toOffset >= 0 && fromStride >= width && toStride >= width,
         "copyRows: rows overlap");
  expect(fromOffset + (rows - 1) * fromStride + width <= from.count, "copyRows: outside of the source");
  expect(toOffset + (rows - 1) * toStride + width <= to.count, "copyRows: outside of the target");
  Context::touch(to);
  withType(from.type(), [&](auto fromType) {
    withType(to.type(), [&](auto toType) {
      using From = decltype(fromType);
      using To = decltype(toType);
      const Strided<From, To> move{from.as<From>() + fromOffset, fromStride, to.as<To>() + toOffset, toStride};
      const bool strides = rows == 1 || (fromStride % kGroup == 0 && toStride % kGroup == 0);
      moveRows<From, To>(context, move, rows, width, strides && width % kGroup == 0 && aligned(move.from, move.to));
    });
  });
}

void argMax(Context& context, Tensor x, Tensor out) {
  if (out.empty()) return;
  expect(x.count > 0 && x.count % out.count == 0, "argMax: x is not made of so many rows");
  const int64_t width = x.count / out.count;
  expect(width < INT32_MAX, "argMax: rows are too long");
  withType(x.type(), [&](auto type) {
    using T = decltype(type);
    const T* values = x.as<T>();
    const bool vectors = width % kGroup == 0 && aligned(values);
    const unsigned threads = width >= 16384 ? 1024 : 128;
    context.launch(vectors ? argMaxKernel<kGroup, T> : argMaxKernel<1, T>, static_cast<unsigned>(out.count), threads,
                   32 * sizeof(Best), values, width, out.as<int32_t>());
  });
}

void fill(Context& context, double value, Tensor out) {
  if (out.empty()) return;
  Context::touch(out);
  withElement(out.type(), [&](auto type) {
    using T = decltype(type);
    mapElements(context, Constant<T>{elementOf<T>(value)}, out.count, out.as<T>());
  });
}

void cast(Context& context, Tensor from, Tensor to) {
  expect(from.count == to.count, "cast: the tensors differ in size");
  if (to.empty()) return;
  Context::touch(to);
  withElement(from.type(), [&](auto fromType) {
    withElement(to.type(), [&](auto toType) {
      using From = decltype(fromType);
      using To = decltype(toType);
      mapElements(context, Same{}, to.count, to.as<To>(), from.as<From>());
    });
  });
}

}  // namespace memory3
