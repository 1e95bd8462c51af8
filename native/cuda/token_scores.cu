/**
 * How much attention each token of a reference receives (paper §3.3): w_j = Σ_i softmax_j(q_i · k_j / √D) over the tokens i
 * and the G = H/K query heads that share a key-value head, or with plain exponentials relative to the largest score. B
 * references, T tokens, H and K heads, D head dimension; q [B, T, H, D], k [B, T, K, D], out [B, K, T] float32.
 *
 * 2·B·H·T²·D operations, and B·T·(H + K)·D numbers read: bound by arithmetic, so bfloat16 goes to the tensor cores. A block
 * has a reference and key-value head. It takes 64 queries at a time, brings their scores with all keys to memory, shared
 * where they fit and else its own of the device, turns each row into weights and adds up the columns in order. Queries and
 * keys come in pieces of 64 rows and 32 dimensions, rows of shared memory padded so that no two lanes meet in a bank.
 * For sm_90a 80 registers with bfloat16 and 95 with float32; for 128 tokens 43 KiB of shared memory.
 */

#include <cmath>

#include "elements.cuh"
#include "kernels.h"
#include "mma.cuh"

namespace memory3 {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarpSize;
constexpr int kRows = 64, kDepth = 32;  // queries or keys, and dimensions, of a piece
constexpr int kPieceGroups = kRows * kDepth / kGroup;
static_assert(kPieceGroups == kThreads, "a thread brings one group");
constexpr int64_t kMostShared = 96 * 1024;  // so that two blocks fit a multiprocessor of sm_90

/** How the 16 sums of a thread lie in a tile of 64 queries and 64 keys, and how they are made of a piece of each. */
template <class T>
struct Tile;

/** Thread (x, y) of 16 by 16 has the queries y + 16·i and the keys x + 16·j. */
template <>
struct Tile<float> {
  static constexpr int kStride = kDepth + 1;
  static __device__ int row(int i, int) { return static_cast<int>(threadIdx.x) / 16 + 16 * i; }
  static __device__ int column(int, int j) { return static_cast<int>(threadIdx.x) % 16 + 16 * j; }
  static __device__ void multiply(const float* queries, const float* keys, float (&sums)[4][4]) {
#pragma unroll 4
    for (int d = 0; d < kDepth; d++) {
      float q[4], k[4];
#pragma unroll
      for (int i = 0; i < 4; i++) {
        q[i] = queries[row(i, 0) * kStride + d];
        k[i] = keys[column(0, i) * kStride + d];
      }
#pragma unroll
      for (int i = 0; i < 4; i++) {
#pragma unroll
        for (int j = 0; j < 4; j++) sums[i][j] += q[i] * k[j];
      }
    }
  }
};

/** A warp has 16 queries and 32 keys: sums[i] is the C tile of keys 8·i to 8·i + 7 (see mma.cuh). */
template <>
struct Tile<Bf16> {
  static constexpr int kStride = kDepth + 8;
  static __device__ int lane() { return static_cast<int>(threadIdx.x) % kWarpSize; }
  static __device__ int firstRow() { return static_cast<int>(threadIdx.x) / kWarpSize % 4 * 16; }
  static __device__ int firstColumn() { return static_cast<int>(threadIdx.x) / kWarpSize / 4 * 32; }
  static __device__ int row(int, int j) { return firstRow() + lane() / 4 + j / 2 * 8; }
  static __device__ int column(int i, int j) { return firstColumn() + 8 * i + lane() % 4 * 2 + j % 2; }
  static __device__ void multiply(const Bf16* queries, const Bf16* keys, float (&sums)[4][4]) {
    const int l = lane();
    const Bf16* query = queries + (firstRow() + l % 16) * kStride + l / 16 * 8;
    const Bf16* key = keys + (firstColumn() + l % 8 + l / 16 * 8) * kStride + l / 8 % 2 * 8;
#pragma unroll
    for (int d = 0; d < kDepth; d += 16) {
      uint32_t a[4];
      loadMatrix4(a, query + d);
#pragma unroll
      for (int pair = 0; pair < 2; pair++) {
        uint32_t b[4];
        loadMatrix4(b, key + pair * 16 * kStride + d);
        const uint32_t first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
        mma16816(sums[2 * pair], a, first);
        mma16816(sums[2 * pair + 1], a, second);
      }
    }
  }
};

/** The group of dimensions from `d` on of a row of D numbers; 0 behind its end, and of no row. */
template <class T>
__device__ Group<T, kGroup> groupOf(const T* row, int64_t d, int64_t dim, bool vectors) {
  Group<T, kGroup> group{};
  if (row == nullptr || d >= dim) return group;
  if (vectors) return loadGroup<kGroup>(row + d);
#pragma unroll
  for (int j = 0; j < kGroup; j++) {
    if (d + j < dim) group.at[j] = row[d + j];
  }
  return group;
}

template <class T>
struct Scores {
  const T* q;
  const T* k;
  const int32_t* lengths;
  int64_t tasks, tokens, heads, kvHeads, dim, skip;
  bool softmax, vectors;
  float* out;
  float* scratch;  // [blocks, 64, tokens − skip], null where shared memory holds the scores

  __device__ int64_t group() const { return heads / kvHeads; }
};

/** What a block works at: a reference and key-value head, the tokens of it that take part, its G·real queries. */
template <class T>
struct Task {
  const T* q;  // of the first token that takes part and the first head
  const T* k;
  int64_t qStride, kStride;  // from token to token
  int64_t dim;
  uint32_t real, rows;
  bool vectors;

  __device__ Task(const Scores<T>& given, int64_t task, int64_t real_)
      : qStride(given.heads * given.dim),
        kStride(given.kvHeads * given.dim),
        dim(given.dim),
        real(static_cast<uint32_t>(real_)),
        rows(static_cast<uint32_t>(given.group() * real_)),
        vectors(given.vectors) {
    const int64_t token = task / given.kvHeads * given.tokens + given.skip, head = task % given.kvHeads;
    q = given.q + token * qStride + head * given.group() * given.dim;
    k = given.k + token * kStride + head * given.dim;
  }
  /** Queries are numbered [G, real]; null where there is none of this number. */
  __device__ const T* query(uint32_t row) const {
    return row < rows ? q + row % real * qStride + row / real * dim : nullptr;
  }
  __device__ const T* key(uint32_t token) const { return token < real ? k + token * kStride : nullptr; }
};

/** Puts a thread's group of a piece into shared memory. */
template <class T>
__device__ void putGroup(T* piece, int row, int group, const Group<T, kGroup>& values) {
  T* to = piece + row * Tile<T>::kStride + group * kGroup;
  if constexpr (std::is_same_v<T, Bf16>) {
    Vector<T> vector;
#pragma unroll
    for (int j = 0; j < kGroup; j++) vector.at[j] = values.at[j];
    storeVector(to, vector);
  } else {
#pragma unroll
    for (int j = 0; j < kGroup; j++) to[j] = values.at[j];
  }
}

/**
 * scores [64, real] of the queries from `first` on with all keys, and a barrier. Rows behind the last query are left. While
 * a piece is multiplied the next one is on its way to the registers.
 */
template <class T>
__device__ void scoreRows(const Task<T>& task, uint32_t first, T* queries, T* keys, float* scores) {
  const int row = static_cast<int>(threadIdx.x) / (kDepth / kGroup), group = static_cast<int>(threadIdx.x) % (kDepth / kGroup);
  const float scale = 1.0f / sqrtf(static_cast<float>(task.dim));
  const T* query = task.query(first + row);
  for (uint32_t firstKey = 0; firstKey < task.real; firstKey += kRows) {
    const T* key = task.key(firstKey + row);
    float sums[4][4] = {};
    int64_t at = group * kGroup;
    Group<T, kGroup> nextQuery = groupOf(query, at, task.dim, task.vectors);
    Group<T, kGroup> nextKey = groupOf(key, at, task.dim, task.vectors);
    for (int64_t d = 0; d < task.dim; d += kDepth) {
      __syncthreads();
      putGroup(queries, row, group, nextQuery);
      putGroup(keys, row, group, nextKey);
      __syncthreads();
      at += kDepth;
      nextQuery = groupOf(query, at, task.dim, task.vectors);
      nextKey = groupOf(key, at, task.dim, task.vectors);
      // Not all lanes have a row to read, but all multiply.
      __syncwarp();
      Tile<T>::multiply(queries, keys, sums);
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const uint32_t column = firstKey + Tile<T>::column(i, j), place = Tile<T>::row(i, j);
        if (column < task.real && first + place < task.rows) {
          scores[static_cast<int64_t>(place) * task.real + column] = sums[i][j] * scale;
        }
      }
    }
  }
  __syncthreads();
}

/** Each row becomes its softmax; a warp takes every 8th row. */
__device__ void softmaxRows(float* scores, int64_t rows, int64_t real) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  for (int64_t row = threadIdx.x / kWarpSize; row < rows; row += kWarps) {
    float* own = scores + row * real;
    float largest = -INFINITY, sum = 0;
    for (int64_t j = lane; j < real; j += kWarpSize) largest = fmaxf(largest, own[j]);
    largest = warpMax(largest);
    for (int64_t j = lane; j < real; j += kWarpSize) {
      own[j] = __expf(own[j] - largest);
      sum += own[j];
    }
    const float scale = 1.0f / warpSum(sum);
    for (int64_t j = lane; j < real; j += kWarpSize) own[j] *= scale;
  }
}

/** Each score becomes its exponential relative to the largest so far, which is returned. */
__device__ float exponentials(float* scores, int64_t count, float largest, float* room) {
  for (int64_t i = threadIdx.x; i < count; i += kThreads) largest = fmaxf(largest, scores[i]);
  largest = blockMax(largest, room);
  for (int64_t i = threadIdx.x; i < count; i += kThreads) scores[i] = __expf(scores[i] - largest);
  return largest;
}

template <class T>
__global__ void tokenScoresKernel(const __grid_constant__ Scores<T> given) {
  auto* room = sharedMemory<float>();
  T* queries = reinterpret_cast<T*>(room + kWarpSize);
  T* keys = queries + kRows * Tile<T>::kStride;
  const int64_t most = given.tokens - given.skip;
  float* scores = given.scratch != nullptr ? given.scratch + blockIdx.x * kRows * most
                                           : reinterpret_cast<float*>(keys + kRows * Tile<T>::kStride);
  for (int64_t task = blockIdx.x; task < given.tasks; task += gridDim.x) {
    const int64_t length = given.lengths[task / given.kvHeads];
    const int64_t end = min(length, given.tokens), real = end - given.skip;
    float* out = given.out + task * given.tokens;
    for (int64_t j = threadIdx.x; j < given.tokens; j += kThreads) out[j] = j >= given.skip && j < end ? 0.0f : -1.0f;
    if (real <= 0) continue;
    const Task<T> own(given, task, real);
    float largest = -INFINITY;
    for (uint32_t first = 0; first < own.rows; first += kRows) {
      scoreRows(own, first, queries, keys, scores);
      const int64_t here = min(own.rows - first, static_cast<uint32_t>(kRows));
      float factor = 1.0f;
      if (given.softmax) {
        softmaxRows(scores, here, real);
      } else {
        const float now = exponentials(scores, here * real, largest, room);
        factor = __expf(largest - now);
        largest = now;
      }
      __syncthreads();
      for (int64_t j = threadIdx.x; j < real; j += kThreads) {
        float sum = out[given.skip + j] * factor;
        for (int64_t row = 0; row < here; row++) sum += scores[row * real + j];
        out[given.skip + j] = sum;
      }
    }
  }
}

template <class T>
void launchScores(Context& context, Scores<T> given) {
  given.vectors = given.dim % kGroup == 0 && aligned(given.q, given.k);
  const int64_t pieces = kWarpSize * sizeof(float) + 2 * kRows * Tile<T>::kStride * sizeof(T);
  const int64_t scores = kRows * std::max<int64_t>(given.tokens - given.skip, 0);
  const bool fits = pieces + scores * static_cast<int64_t>(sizeof(float)) <= kMostShared;
  const int64_t blocks = fits ? given.tasks : std::min<int64_t>(given.tasks, 4 * context.multiprocessors());
  expect(blocks < (int64_t{1} << 31) && given.heads * given.tokens < (int64_t{1} << 31), "tokenScores: too many tokens");
  const Scratch<float> scratch(context, fits ? 0 : blocks * scores);
  given.scratch = scratch.data();
  context.launch(tokenScoresKernel<T>, static_cast<unsigned>(blocks), kThreads,
                 static_cast<std::size_t>(pieces + (fits ? scores * static_cast<int64_t>(sizeof(float)) : 0)), given);
}

}  // namespace

void tokenScores(Context& context, Tensor q, Tensor k, Tensor lengths, int64_t tokens, int64_t heads, int64_t kvHeads,
                 int64_t skip, bool softmax, Tensor out) {
  const int64_t batch = lengths.count;
  if (batch == 0 || tokens == 0) return;
  expect(kvHeads > 0 && heads > 0 && heads % kvHeads == 0, "tokenScores: the key-value heads do not divide the heads");
  expect(skip >= 0, "tokenScores: a prefix of a negative length");
  const int64_t dim = q.count / (batch * tokens * heads);
  expect(dim > 0 && q.count == batch * tokens * heads * dim, "tokenScores: q does not fit the lengths");
  expect(k.count == batch * tokens * kvHeads * dim, "tokenScores: k does not fit q");
  expect(out.count == batch * kvHeads * tokens, "tokenScores: the result has another size");
  Context::touch(out);
  withType(q.type(), [&](auto type) {
    using T = decltype(type);
    const Operand<T> queries(context, q), keys(context, k);
    launchScores<T>(context, {queries.data(), keys.data(), lengths.as<int32_t>(), batch * kvHeads, tokens, heads, kvHeads,
                              dim, skip, softmax, false, out.as<float>(), nullptr});
  });
}

}  // namespace memory3
