/**
 * Rotary position embedding, half-split: dimension i turns together with i + D/2. B batch, T tokens, D head dimension.
 * x and out [B, T, heads, D]: 2·B·T·heads·D numbers moved, 3 operations for each, bound by memory.
 *
 * A block a token: its D/2 angles are the same for all heads, so they are computed once, in shared memory. Frequencies come
 * from the host in float64; an angle is brought to one turn in float64, so that it is exact for any position, and its sine
 * and cosine are float32. A thread turns 8 pairs at a time, 16 bytes of bfloat16 of each half, in the registers.
 */

#include <cmath>

#include "elements.cuh"
#include "kernels.h"

namespace memory3 {
namespace {

constexpr int64_t kMostPairs = 256;

/** Turns a token, of each pair of dimensions. */
struct Frequencies {
  double at[kMostPairs];
};

/** Cosines and sines of the angles of a token, `pairs` each. */
__device__ void turnsOf(int32_t position, const Frequencies& frequencies, int pairs, bool inverse, float* cosine,
                        float* sine) {
  for (int i = static_cast<int>(threadIdx.x); i < pairs; i += static_cast<int>(blockDim.x)) {
    const double turns = position * frequencies.at[i];
    float s, c;
    sincospif(static_cast<float>(2 * (turns - rint(turns))), &s, &c);
    cosine[i] = c;
    sine[i] = inverse ? -s : s;
  }
}

/** N pairs at a time. */
template <int N, class From, class To>
__global__ void ropeKernel(const From* x, const int32_t* positions, const __grid_constant__ Frequencies frequencies,
                           int64_t tokens, int heads, int pairs, bool inverse, To* out) {
  auto* cosine = sharedMemory<float>();
  float* sine = cosine + pairs;
  const int64_t row = blockIdx.x;
  turnsOf(positions[row % tokens], frequencies, pairs, inverse, cosine, sine);
  __syncthreads();
  const int groups = pairs / N;
  const int64_t begin = row * heads * 2 * pairs;
  for (int unit = static_cast<int>(threadIdx.x); unit < heads * groups; unit += static_cast<int>(blockDim.x)) {
    const int i = unit % groups * N;
    const int64_t at = begin + static_cast<int64_t>(unit / groups) * 2 * pairs + i;
    const Group<From, N> first = loadGroup<N>(x + at), second = loadGroup<N>(x + at + pairs);
    const Group<float, N> c = loadGroup<N>(cosine + i), s = loadGroup<N>(sine + i);
    Group<To, N> newFirst, newSecond;
#pragma unroll
    for (int j = 0; j < N; j++) {
      const float a = toFloat(first.at[j]), b = toFloat(second.at[j]);
      newFirst.at[j] = fromFloat<To>(a * c.at[j] - b * s.at[j]);
      newSecond.at[j] = fromFloat<To>(b * c.at[j] + a * s.at[j]);
    }
    storeGroup(out + at, newFirst);
    storeGroup(out + at + pairs, newSecond);
  }
}

Frequencies frequenciesOf(int64_t dim, double theta) {
  Frequencies frequencies{};
  const double turn = 2 * 3.141592653589793238462643383279502884;
  for (int64_t i = 0; i < dim / 2; i++) {
    frequencies.at[i] = std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(dim)) / turn;
  }
  return frequencies;
}

}  // namespace

void rope(Context& context, Tensor x, Tensor positions, int64_t heads, int64_t dim, double theta, bool inverse,
          Tensor out) {
  const int64_t tokens = positions.count, pairs = dim / 2;
  expect(dim > 0 && dim % 2 == 0, "rope: the head dimension is not even");
  expect(pairs <= kMostPairs, "rope: the head dimension is above 512");
  expect(tokens > 0 && heads > 0 && heads * dim < INT32_MAX && x.count % (tokens * heads * dim) == 0,
         "rope: x does not fit the positions");
  expect(out.count == x.count, "rope: x and its result differ in size");
  if (out.empty()) return;
  const int64_t rows = x.count / (heads * dim);
  expect(rows < (int64_t{1} << 31), "rope: too many tokens");
  Context::touch(out);
  withType(x.type(), [&](auto xType) {
    withType(out.type(), [&](auto outType) {
      using From = decltype(xType);
      using To = decltype(outType);
      const From* values = x.as<From>();
      To* target = out.as<To>();
      const bool vectors = pairs % kGroup == 0 && aligned(values, target);
      const int64_t units = vectors ? heads * pairs / kGroup : heads * pairs;
      const int64_t threads = std::min<int64_t>(blocksFor(std::max(units, pairs), kWarpSize) * kWarpSize, 256);
      context.launch(vectors ? ropeKernel<kGroup, From, To> : ropeKernel<1, From, To>, static_cast<unsigned>(rows),
                     static_cast<unsigned>(threads), 2 * pairs * sizeof(float), values, positions.as<int32_t>(),
                     frequenciesOf(dim, theta), tokens, static_cast<int>(heads), static_cast<int>(pairs), inverse,
                     target);
    });
  });
}

}  // namespace memory3
