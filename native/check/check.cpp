/**
 * Compares the kernels with plain loops in double precision, without JavaScript, for every instruction set that the
 * processor has, on one thread and on three. For machines that the other tests do not run on: scripts/check_arm64.sh.
 * Prints what differs and a line for each setting; the exit status is 1 when anything differed.
 */

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include "gemm.h"
#include "kernels.h"
#include "tile.h"
#include "vector_math.h"

using namespace memory3;

namespace {

using Values32 = std::vector<float>;
using Values64 = std::vector<double>;

/** Largest difference that passes, relative to the largest magnitude. */
constexpr double TOLERANCE = 1e-5;

struct Counts {
  int checks = 0;
  int failures = 0;
  double worst = 0;
};

Counts counts;

void report(const char* name, double error) {
  counts.checks++;
  counts.worst = std::max(counts.worst, error);
  if (error < TOLERANCE) return;
  counts.failures++;
  std::printf("%s: FAILED, relative error %.1e\n", name, error);
}

/** A line about the checks since the last call. @returns whether all have passed */
bool summarise(const char* name, int threads) {
  std::printf("%s, threads: %d: %d of %d checks passed, largest relative error %.1e\n", name, threads,
              counts.checks - counts.failures, counts.checks, counts.worst);
  const bool passed = counts.failures == 0;
  counts = {};
  return passed;
}

double errorOf(const Values32& actual, const Values64& expected) {
  if (actual.size() != expected.size()) return INFINITY;
  double difference = 0, largest = 1e-2;
  for (std::size_t i = 0; i < expected.size(); i++) {
    const double own = std::abs(actual[i] - expected[i]);
    if (!(own <= difference)) difference = own;
    if (std::isnan(own)) return INFINITY;
    largest = std::max(largest, std::abs(expected[i]));
  }
  return difference / largest;
}

/** Values in [−scale, scale), the same for each seed. */
Values32 values(int64_t count, uint32_t seed, float scale = 1) {
  Values32 result(count);
  uint32_t state = seed * 2654435761u + 12345u;
  for (float& value : result) {
    state = state * 1664525u + 1013904223u;
    value = scale * (static_cast<float>(state >> 8) * 0x1p-23f - 1);
  }
  return result;
}

Floats in(const Values32& x) { return {x.data(), static_cast<int64_t>(x.size())}; }
Ints in(const std::vector<int32_t>& x) { return {x.data(), static_cast<int64_t>(x.size())}; }
FloatsOut out(Values32& x) { return {x.data(), static_cast<int64_t>(x.size())}; }

/** A product and the room behind the rows of each matrix. */
struct Sizes {
  int64_t rows, columns, inner, gap;
};

/** Sizes around those of tiles, panels, strips and blocks, and rows whose distance is a period of the cache. */
constexpr Sizes PRODUCTS[] = {{1, 1, 1, 0},    {1, 40, 300, 5},   {3, 5, 2, 1},      {8, 33, 65, 0},   {12, 16, 16, 0},
                              {13, 17, 31, 3}, {25, 48, 20, 0},   {50, 35, 1024, 0}, {97, 65, 33, 7}, {130, 257, 70, 2},
                              {30, 530, 800, 1}};

Values64 naiveProduct(const Sizes& sizes, const Matrix& a, const Matrix& b) {
  Values64 result(sizes.rows * sizes.columns);
  const auto at = [](const Matrix& x, int64_t row, int64_t column) {
    return static_cast<double>(x.transposed ? x.data[column * x.stride + row] : x.data[row * x.stride + column]);
  };
  for (int64_t i = 0; i < sizes.rows; i++) {
    for (int64_t j = 0; j < sizes.columns; j++) {
      for (int64_t k = 0; k < sizes.inner; k++) result[i * sizes.columns + j] += at(a, i, k) * at(b, k, j);
    }
  }
  return result;
}

enum class Before { nothing, other, itself };

/** One product; the places between the rows of the result must stay as they are. */
double productError(Context& context, const Sizes& sizes, const Matrix& a, const Matrix& b, const Values64& product,
                    Before mode) {
  const auto& [rows, columns, inner, gap] = sizes;
  const int64_t stride = columns + gap;
  const Values32 other = values(rows * stride, 3);
  Values32 result = mode == Before::itself ? other : Values32(rows * stride, 7);
  Values64 expected(result.begin(), result.end());
  for (int64_t i = 0; i < rows; i++) {
    for (int64_t j = 0; j < columns; j++) {
      const double before = mode == Before::nothing ? 0 : other[i * stride + j];
      expected[i * stride + j] = product[i * columns + j] + before;
    }
  }
  const float* before[] = {nullptr, other.data(), result.data()};
  gemm(context, rows, {columns, inner, a, b, result.data(), stride, before[static_cast<int>(mode)]});
  return errorOf(result, expected);
}

void checkProducts(Context& context) {
  for (const bool transposeA : {false, true}) {
    for (const bool transposeB : {false, true}) {
      double error = 0;
      for (const Sizes& sizes : PRODUCTS) {
        const int64_t strideA = (transposeA ? sizes.rows : sizes.inner) + sizes.gap;
        const int64_t strideB = (transposeB ? sizes.inner : sizes.columns) + sizes.gap;
        const Values32 a = values((transposeA ? sizes.inner : sizes.rows) * strideA, 1);
        const Values32 b = values((transposeB ? sizes.columns : sizes.inner) * strideB, 2);
        const Matrix left{a.data(), strideA, transposeA}, right{b.data(), strideB, transposeB};
        const Values64 product = naiveProduct(sizes, left, right);
        for (const Before mode : {Before::nothing, Before::other, Before::itself}) {
          const double own = productError(context, sizes, left, right, product, mode);
          if (!(own <= error)) error = own;
        }
      }
      report(transposeA ? (transposeB ? "products aT bT" : "products aT b") : (transposeB ? "products a bT" : "products a b"),
             error);
    }
  }
}

void checkVectorMaths() {
  Values32 actual;
  Values64 expected;
  for (float x = -87; x < 88; x += 0.137f) {
    actual.push_back(static_cast<float>(fastExp(x) / std::exp(static_cast<double>(x))));
    expected.push_back(1);
  }
  for (const float x : {-100.0f, -INFINITY}) {
    actual.push_back(fastExp(x));
    expected.push_back(0);
  }
  report("exponentials", errorOf(actual, expected));
  report("exponential of NaN", std::isnan(fastExp(NAN)) ? 0 : 1);

  const Values32 x = values(70, 1, 3), y = values(70, 2);
  Values32 sums;
  Values64 naive;
  for (int64_t count = 1; count <= 70; count++) {
    Values32 powers = x;
    double sum = 0, product = 0, exponentials = 0, largest = -INFINITY;
    for (int64_t i = 0; i < count; i++) {
      sum += x[i];
      product += static_cast<double>(x[i]) * y[i];
      exponentials += std::exp(x[i] - 1.0);
      largest = std::max<double>(largest, x[i]);
    }
    for (const float value : {sumOf(x.data(), count), dot(x.data(), y.data(), count),
                              expInPlace(powers.data(), count, 1), largestOf(x.data(), count)}) {
      sums.push_back(value);
    }
    naive.insert(naive.end(), {sum, product, exponentials, largest});
  }
  report("sums, dots, largest of short rows", errorOf(sums, naive));
}

void checkRmsNorm(Context& context) {
  constexpr int64_t rows = 150, width = 37;
  constexpr double epsilon = 1e-5;
  const Values32 x = values(rows * width, 1), weight = values(width, 2), dy = values(rows * width, 3);
  Values64 y(x.size()), dx(x.size()), dWeight(width);
  for (int64_t row = 0; row < rows; row++) {
    const int64_t at = row * width;
    double squares = 0, radial = 0;
    for (int64_t i = 0; i < width; i++) {
      squares += static_cast<double>(x[at + i]) * x[at + i];
      radial += static_cast<double>(dy[at + i]) * weight[i] * x[at + i];
    }
    const double inverse = 1 / std::sqrt(squares / width + epsilon);
    for (int64_t i = 0; i < width; i++) {
      y[at + i] = x[at + i] * inverse * weight[i];
      dx[at + i] = (static_cast<double>(dy[at + i]) * weight[i] - x[at + i] * radial * inverse * inverse / width) * inverse;
      dWeight[i] += static_cast<double>(dy[at + i]) * x[at + i] * inverse;
    }
  }
  Values32 result(x.size()), gradient(x.size()), weightGradient(width);
  rmsNorm(context, in(x), in(weight), epsilon, out(result));
  rmsNormGrad(context, in(x), in(weight), in(dy), epsilon, out(gradient), out(weightGradient));
  report("RmsNorm", errorOf(result, y));
  report("RmsNormGrad, x", errorOf(gradient, dx));
  report("RmsNormGrad, weight", errorOf(weightGradient, dWeight));
}

/** Two maps of many rows, and of few: their gradients are summed in another way. */
void checkLinear(Context& context, int64_t rows) {
  constexpr int64_t inputs = 20;
  const int64_t widths[] = {33, 7};
  const Values32 x = values(rows * inputs, 1), residual = values(rows * widths[0], 2);
  Values64 dx(x.size());
  Values32 dxActual(x.size());
  std::vector<Values32> weights, dys, ys, dWeights;
  for (const int64_t width : widths) {
    weights.push_back(values(width * inputs, 3 + width));
    dys.push_back(values(rows * width, 4 + width));
    ys.emplace_back(rows * width);
    dWeights.emplace_back(width * inputs);
  }
  linear(context, in(x), {in(weights[0])}, in(residual), rows, {out(ys[0])});
  linear(context, in(x), {in(weights[0]), in(weights[1])}, {nullptr, 0}, rows, {out(ys[0]), out(ys[1])});
  linearGrad(context, in(x), {in(weights[0]), in(weights[1])}, {in(dys[0]), in(dys[1])}, rows, out(dxActual),
             {out(dWeights[0]), out(dWeights[1])});
  double error = 0, weightError = 0;
  for (int map = 0; map < 2; map++) {
    const int64_t width = widths[map];
    const Matrix weight{weights[map].data(), inputs}, dy{dys[map].data(), width};
    const Values64 y = naiveProduct({rows, width, inputs, 0}, {x.data(), inputs}, {weight.data, inputs, true});
    error = std::max(error, errorOf(ys[map], y));
    const Values64 dWeight = naiveProduct({width, inputs, rows, 0}, {dy.data, width, true}, {x.data(), inputs});
    weightError = std::max(weightError, errorOf(dWeights[map], dWeight));
    const Values64 own = naiveProduct({rows, inputs, width, 0}, dy, weight);
    for (std::size_t i = 0; i < dx.size(); i++) dx[i] += own[i];
    if (map > 0) continue;
    Values64 sum = y;
    for (std::size_t i = 0; i < sum.size(); i++) sum[i] += residual[i];
    linear(context, in(x), {in(weights[0])}, in(residual), rows, {out(ys[0])});
    report("Linear with residual", errorOf(ys[0], sum));
  }
  report("Linear, two maps", error);
  report("LinearGrad, x", errorOf(dxActual, dx));
  report("LinearGrad, weights", weightError);
}

void checkSwiglu(Context& context) {
  const Values32 gate = values(1003, 1, 9), up = values(1003, 2), dy = values(1003, 3);
  Values64 y, dGate, dUp;
  for (std::size_t i = 0; i < gate.size(); i++) {
    const double open = 1 / (1 + std::exp(-static_cast<double>(gate[i])));
    y.push_back(gate[i] * open * up[i]);
    dGate.push_back(dy[i] * up[i] * open * (1 + gate[i] * (1 - open)));
    dUp.push_back(dy[i] * gate[i] * open);
  }
  Values32 result(gate.size()), gateGradient(gate.size()), upGradient(gate.size());
  swiglu(context, in(gate), in(up), out(result));
  swigluGrad(context, in(gate), in(up), in(dy), out(gateGradient), out(upGradient));
  report("Swiglu", errorOf(result, y));
  report("SwigluGrad", std::max(errorOf(gateGradient, dGate), errorOf(upGradient, dUp)));
}

void checkRope(Context& context) {
  constexpr int64_t heads = 3, dim = 10, half = dim / 2;
  constexpr double theta = 10000;
  const std::vector<int32_t> positions{0, 1, 7, 100, 2047};
  const auto tokens = static_cast<int64_t>(positions.size());
  const Values32 x = values(2 * tokens * heads * dim, 1);
  Values64 turned(x.size());
  for (int64_t row = 0; row < 2 * tokens * heads; row++) {
    for (int64_t i = 0; i < half; i++) {
      const double angle = positions[row / heads % tokens] * std::pow(theta, -2.0 * i / dim);
      const float* from = x.data() + row * dim + i;
      turned[row * dim + i] = from[0] * std::cos(angle) - from[half] * std::sin(angle);
      turned[row * dim + i + half] = from[half] * std::cos(angle) + from[0] * std::sin(angle);
    }
  }
  Values32 result(x.size()), back(x.size());
  rope(context, in(x), in(positions), heads, dim, theta, false, out(result));
  rope(context, in(result), in(positions), heads, dim, theta, true, out(back));
  report("Rope", errorOf(result, turned));
  report("Rope back", errorOf(back, {x.begin(), x.end()}));
}

void checkCrossEntropy(Context& context) {
  constexpr int64_t tokens = 1030, width = 33, vocabulary = 65;
  const Values32 hidden = values(tokens * width, 1), weight = values(vocabulary * width, 2);
  std::vector<int32_t> targets(tokens);
  for (int64_t n = 0; n < tokens; n++) targets[n] = n % 5 == 3 ? -1 : static_cast<int32_t>(n * n * 7 % vocabulary);
  Values64 losses(tokens), dHidden(hidden.size()), dWeight(weight.size());
  Values64 logits = naiveProduct({tokens, vocabulary, width, 0}, {hidden.data(), width}, {weight.data(), width, true});
  double total = 0;
  for (int64_t n = 0; n < tokens; n++) {
    if (targets[n] < 0) continue;
    double* row = logits.data() + n * vocabulary;
    double sum = 0;
    for (int64_t i = 0; i < vocabulary; i++) sum += std::exp(row[i]);
    losses[n] = std::log(sum) - row[targets[n]];
    total += losses[n];
    for (int64_t i = 0; i < vocabulary; i++) {
      const double gradient = std::exp(row[i]) / sum - (i == targets[n] ? 1 : 0);
      for (int64_t d = 0; d < width; d++) {
        dHidden[n * width + d] += gradient * weight[i * width + d];
        dWeight[i * width + d] += gradient * hidden[n * width + d];
      }
    }
  }
  Values32 sum(1), actual(tokens), hiddenGradient(hidden.size()), weightGradient(weight.size());
  crossEntropy(context, in(hidden), in(weight), in(targets), out(sum), out(actual), out(hiddenGradient),
               out(weightGradient));
  report("CrossEntropy", std::max(errorOf(actual, losses), errorOf(sum, {total})));
  report("CrossEntropy, gradients", std::max(errorOf(hiddenGradient, dHidden), errorOf(weightGradient, dWeight)));
}

void checkAdamw(Context& context) {
  constexpr double lr = 0.01, beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8, decay = 0.1, step = 3, scale = 0.3;
  std::vector<Values32> arrays[4], results[3];
  double error = 0, squares = 0;
  for (const int64_t size : {40000, 3, 0, 17}) {
    for (uint32_t i = 0; i < 4; i++) arrays[i].push_back(values(size, 10 + i));
    for (float& value : arrays[3].back()) value *= value;
    for (auto& result : results) result.emplace_back(size);
  }
  const auto lists = [](const std::vector<Values32>& list) {
    std::vector<Floats> found;
    for (const Values32& each : list) found.push_back(in(each));
    return found;
  };
  const auto outs = [](std::vector<Values32>& list) {
    std::vector<FloatsOut> found;
    for (Values32& each : list) found.push_back(out(each));
    return found;
  };
  adamw(context, lists(arrays[0]), lists(arrays[1]), lists(arrays[2]), lists(arrays[3]), lr, beta1, beta2, epsilon, decay,
        step, scale, outs(results[0]), outs(results[1]), outs(results[2]));
  for (std::size_t tensor = 0; tensor < arrays[0].size(); tensor++) {
    Values64 expected[3];
    for (std::size_t i = 0; i < arrays[0][tensor].size(); i++) {
      const double gradient = scale * arrays[1][tensor][i];
      const double m = beta1 * arrays[2][tensor][i] + (1 - beta1) * gradient;
      const double v = beta2 * arrays[3][tensor][i] + (1 - beta2) * gradient * gradient;
      const double rate = m / (1 - std::pow(beta1, step)) / (std::sqrt(v / (1 - std::pow(beta2, step))) + epsilon);
      expected[0].push_back(arrays[0][tensor][i] * (1 - lr * decay) - lr * rate);
      expected[1].push_back(m);
      expected[2].push_back(v);
      squares += static_cast<double>(arrays[1][tensor][i]) * arrays[1][tensor][i];
    }
    for (int i = 0; i < 3; i++) error = std::max(error, errorOf(results[i][tensor], expected[i]));
  }
  report("Adamw", error);
  Values32 norm(1);
  globalNorm(context, lists(arrays[1]), out(norm));
  report("GlobalNorm", errorOf(norm, {std::sqrt(squares)}));
}

/** The fields of AttentionShape, the length of each memory, the memory in each slot, the first token of each document. */
struct AttentionCase {
  const char* name;
  int64_t batch, tokens, keyTokens, heads, kvHeads, dim, kept, chunks, slots, start, chunkLength, room;
  std::vector<int32_t> lengths, index;
  std::vector<int64_t> documents = {};  // the same in all sequences but the first, which is one document; empty: no such input

  /** [B, T] */
  std::vector<int32_t> firstVisible() const {
    std::vector<int32_t> first;
    for (int64_t i = 0; !documents.empty() && i < batch * tokens; i++) {
      const int64_t key = i % tokens + keyTokens - tokens;
      first.push_back(0);
      for (const int64_t begin : documents) {
        if (i >= tokens && begin <= key) first.back() = static_cast<int32_t>(begin);
      }
    }
    return first;
  }

  Numbers shape() const {
    static std::vector<int64_t> numbers;
    numbers = {batch, tokens, keyTokens, heads, kvHeads, dim, kept, chunks, slots, start, chunkLength, room};
    return numbers;
  }
  auto memoryValues() const { return static_cast<int64_t>(lengths.size()) * kvHeads * kept * dim; }
};

const AttentionCase ATTENTION[] = {
    {"Attention", 2, 133, 133, 4, 2, 16, 0, 0, 0, 0, 0, 133, {}, {}},
    {"Attention, odd sizes", 2, 37, 37, 3, 1, 5, 0, 0, 0, 0, 0, 37, {}, {}},
    {"Attention, one query", 2, 1, 40, 4, 2, 20, 0, 0, 0, 0, 0, 48, {}, {}},
    {"Attention, memories", 2, 45, 45, 4, 2, 16, 3, 2, 3, 5, 16, 45, {3, 2, 0, 1}, {0, 1, 2, 3, -1, 0, 1, 1, 3, -1, -1, -1}},
    {"Attention, memories, one query", 1, 1, 30, 6, 2, 7, 3, 1, 2, 0, 16, 32, {3, 2}, {0, 1}},
    {"Attention, documents", 2, 133, 133, 4, 2, 16, 0, 0, 0, 0, 0, 133, {}, {}, {0, 1, 47, 48, 97, 131}},
    {"Attention, documents, memories", 2, 45, 50, 4, 2, 7, 3, 2, 3, 5, 16, 52, {3, 2, 0, 1},
     {0, 1, 2, 3, -1, 0, 1, 1, 3, -1, -1, -1}, {0, 17, 32}},
    {"Attention, documents, few queries", 2, 3, 40, 4, 2, 20, 0, 0, 0, 0, 0, 48, {}, {}, {0, 7, 38}},
};

/** What attention and its gradient give. */
template <class Values>
struct Attended {
  Values y, share, lse, dq, dk, dv, dMemoryKeys, dMemoryValues;

  Attended(const AttentionCase& c, int64_t queries, int64_t keys)
      : y(queries), share(c.batch * c.tokens * c.heads * c.slots), lse(c.batch * c.heads * c.tokens), dq(queries), dk(keys),
        dv(keys), dMemoryKeys(c.memoryValues()), dMemoryValues(c.memoryValues()) {}
};

struct AttentionArrays {
  Values32 q, k, v, memoryKeys, memoryValues, dy;
};

/** Key and value that a query sees; `slot` is −1 in the context. */
struct Seen {
  int64_t slot;
  int64_t at;
};

std::vector<Seen> seenBy(const AttentionCase& c, int64_t b, int64_t token, int64_t kvHead) {
  std::vector<Seen> seen;
  if (token >= c.start) {
    const int64_t chunk = c.slots > 0 ? std::min((token - c.start) / c.chunkLength, c.chunks - 1) : 0;
    for (int64_t slot = 0; slot < c.slots; slot++) {
      const int64_t memory = c.index[(b * c.chunks + chunk) * c.slots + slot];
      for (int64_t s = 0; memory >= 0 && s < c.lengths[memory]; s++) {
        seen.push_back({slot, ((memory * c.kvHeads + kvHead) * c.kept + s) * c.dim});
      }
    }
  }
  const std::vector<int32_t> first = c.firstVisible();
  for (int64_t key = first.empty() ? 0 : first[b * c.tokens + token]; key <= token + c.keyTokens - c.tokens; key++) {
    seen.push_back({-1, ((b * c.room + key) * c.kvHeads + kvHead) * c.dim});
  }
  return seen;
}

/** One query of one head, forward and backward. */
void attendNaively(const AttentionCase& c, const AttentionArrays& x, int64_t b, int64_t token, int64_t head,
                   Attended<Values64>& to) {
  const std::vector<Seen> seen = seenBy(c, b, token, head / (c.heads / c.kvHeads));
  const double scale = 1 / std::sqrt(static_cast<double>(c.dim));
  const int64_t row = (b * c.tokens + token) * c.heads + head, at = row * c.dim;
  const auto keyOf = [&](const Seen& s, int64_t i) { return double{(s.slot < 0 ? x.k : x.memoryKeys)[s.at + i]}; };
  const auto valueOf = [&](const Seen& s, int64_t i) { return double{(s.slot < 0 ? x.v : x.memoryValues)[s.at + i]}; };
  Values64 p, dp(seen.size());
  double sum = 0, radial = 0;
  for (const Seen& s : seen) {
    double score = 0;
    for (int64_t i = 0; i < c.dim; i++) score += x.q[at + i] * scale * keyOf(s, i);
    p.push_back(std::exp(score));
    sum += p.back();
  }
  to.lse[(b * c.heads + head) * c.tokens + token] = std::log(sum);
  for (std::size_t n = 0; n < seen.size(); n++) {
    p[n] /= sum;
    if (seen[n].slot >= 0) to.share[row * c.slots + seen[n].slot] += p[n];
    for (int64_t i = 0; i < c.dim; i++) {
      to.y[at + i] += p[n] * valueOf(seen[n], i);
      dp[n] += x.dy[at + i] * valueOf(seen[n], i);
    }
    radial += p[n] * dp[n];
  }
  for (std::size_t n = 0; n < seen.size(); n++) {
    const double dScore = p[n] * (dp[n] - radial) * scale;
    Values64& dKeys = seen[n].slot < 0 ? to.dk : to.dMemoryKeys;
    Values64& dValues = seen[n].slot < 0 ? to.dv : to.dMemoryValues;
    for (int64_t i = 0; i < c.dim; i++) {
      to.dq[at + i] += dScore * keyOf(seen[n], i);
      dKeys[seen[n].at + i] += dScore * x.q[at + i];
      dValues[seen[n].at + i] += p[n] * x.dy[at + i];
    }
  }
}

void checkAttention(Context& context, const AttentionCase& c) {
  const int64_t queries = c.batch * c.tokens * c.heads * c.dim, keys = c.batch * c.room * c.kvHeads * c.dim;
  const AttentionArrays x{values(queries, 1, 3),         values(keys, 2, 3),           values(keys, 3),
                          values(c.memoryValues(), 4, 3), values(c.memoryValues(), 5), values(queries, 6)};
  Attended<Values64> expected(c, queries, keys);
  for (int64_t row = 0; row < c.batch * c.tokens * c.heads; row++) {
    attendNaively(c, x, row / c.heads / c.tokens, row / c.heads % c.tokens, row % c.heads, expected);
  }
  Attended<Values32> actual(c, queries, keys);
  const std::vector<int32_t> first = c.firstVisible();
  attention(context, in(x.q), in(x.k), in(x.v), in(x.memoryKeys), in(x.memoryValues), in(c.lengths), in(c.index), in(first),
            c.shape(), out(actual.y), out(actual.share), out(actual.lse));
  attentionGrad(context, in(x.q), in(x.k), in(x.v), in(x.memoryKeys), in(x.memoryValues), in(c.lengths), in(c.index),
                in(first), c.shape(), in(x.dy), in(actual.y), in(actual.lse), out(actual.dq), out(actual.dk),
                out(actual.dv), out(actual.dMemoryKeys), out(actual.dMemoryValues));
  report(c.name, std::max({errorOf(actual.y, expected.y), errorOf(actual.share, expected.share),
                           errorOf(actual.lse, expected.lse)}));
  report("  gradients", std::max({errorOf(actual.dq, expected.dq), errorOf(actual.dk, expected.dk),
                                  errorOf(actual.dv, expected.dv), errorOf(actual.dMemoryKeys, expected.dMemoryKeys),
                                  errorOf(actual.dMemoryValues, expected.dMemoryValues)}));
}

void checkAll(Context& context) {
  checkVectorMaths();
  checkProducts(context);
  checkRmsNorm(context);
  for (const int64_t rows : {3100, 77}) checkLinear(context, rows);
  checkSwiglu(context);
  checkRope(context);
  checkCrossEntropy(context);
  checkAdamw(context);
  for (const AttentionCase& each : ATTENTION) checkAttention(context, each);
}

}  // namespace

int main() {
  bool passed = true;
  for (const Tiles* tiles : availableTiles()) {
    for (const int threads : {1, 3}) {
      Context context{std::make_unique<ThreadPool>(threads, prepareThread), tiles, {}, {}};
      checkAll(context);
      passed = summarise(tiles->name, threads) && passed;
    }
  }
  return passed ? 0 : 1;
}
