/**
 * Attention and its gradient for any head dimension up to 256, in float32 or bfloat16: one warp computes one row, its lanes
 * lie along the head dimension. It serves `precision: float32`, where nothing else does, and is what the kernels with tiles
 * are compared with. Legend as in attention.h; Z keys that a query sees, those of its memories and of the context.
 *
 * Forward, a warp a query and head: one pass over the keys with an online softmax, and a second one over the memories for
 * their shares. 4·D·Z operations a row.
 * Backward, three kernels: dq by query rows, which also leaves δ = dy·out for the others; dk and dv by key rows, over the
 * queries that see the key; gradients of memories by their tokens, over the places of `index` where the memory stands. Each
 * adds in a fixed order. 7 products of rows a pair of query and key, 14·D operations, instead of 5: nothing is shared, and
 * nothing is added by two writers.
 *
 * A key costs two products, of which each lane adds ⌈D/32⌉ terms, and 5 shuffles for each: bound by instructions, not by
 * memory, since warps of a block are queries side by side, which find their keys in the first cache.
 */

#include "attention.h"

namespace memory3 {
namespace {

constexpr int kThreads = 128;
constexpr int kRows = kThreads / kWarpSize;  // of a block
/** Blocks that a multiprocessor should hold: 64 registers for up to 3 pieces of a row, 128 for more; ptxas spills none. */
template <int Pieces>
constexpr int kBlocks = Pieces <= 3 ? 8 : 4;

/** Of a row of D numbers those of one lane: lane, lane + 32, … */
template <int Pieces>
struct Row {
  float at[Pieces];

  template <class T>
  __device__ static Row load(const T* from, int64_t dim, float scale = 1) {
    Row row;
#pragma unroll
    for (int i = 0; i < Pieces; i++) {
      const int64_t d = lane() + i * kWarpSize;
      row.at[i] = d < dim ? toFloat(from[d]) * scale : 0.0f;
    }
    return row;
  }
  __device__ static Row zeros() {
    Row row;
#pragma unroll
    for (int i = 0; i < Pieces; i++) row.at[i] = 0;
    return row;
  }
  template <class T>
  __device__ void store(T* to, int64_t dim, float scale = 1) const {
#pragma unroll
    for (int i = 0; i < Pieces; i++) {
      const int64_t d = lane() + i * kWarpSize;
      if (d < dim) to[d] = fromFloat<T>(at[i] * scale);
    }
  }
  /** The product with another row, in all lanes. */
  __device__ float dot(const Row& other) const {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < Pieces; i++) sum += at[i] * other.at[i];
    return warpSum(sum);
  }
  __device__ void add(float factor, const Row& other) {
#pragma unroll
    for (int i = 0; i < Pieces; i++) at[i] += factor * other.at[i];
  }
  __device__ void multiply(float factor) {
#pragma unroll
    for (int i = 0; i < Pieces; i++) at[i] *= factor;
  }

 private:
  __device__ static int lane() { return static_cast<int>(threadIdx.x) % kWarpSize; }
};

/** Where rows lie and what a query sees; indices that do not fit are raised elsewhere and count as empty here. */
template <class T>
struct Plain : AttentionInputs<T> {
  using AttentionInputs<T>::shape;

  __device__ int64_t group() const { return shape.heads / shape.kvHeads; }
  __device__ float scale() const { return rsqrtf(static_cast<float>(shape.dim)); }
  /** Of a row of [B, T, H, D] */
  __device__ int64_t queryAt(int64_t b, int64_t token, int64_t head) const {
    return ((b * shape.tokens + token) * shape.heads + head) * shape.dim;
  }
  /** Of a row of [B, room, K, D] */
  __device__ int64_t keyAt(int64_t b, int64_t key, int64_t kvHead) const {
    return ((b * shape.room + key) * shape.kvHeads + kvHead) * shape.dim;
  }
  /** Of a row of [M, K, S, D] */
  __device__ int64_t memoryAt(int64_t memory, int64_t kvHead, int64_t token) const {
    return ((memory * shape.kvHeads + kvHead) * shape.kept + token) * shape.dim;
  }
  /** Of a number of [B, H, T] */
  __device__ int64_t stateAt(int64_t b, int64_t token, int64_t head) const {
    return (b * shape.heads + head) * shape.tokens + token;
  }

  __device__ int64_t firstKey(int64_t b, int64_t token) const {
    if (this->firstVisible == nullptr) return 0;
    return max(static_cast<int64_t>(this->firstVisible[b * shape.tokens + token]), int64_t{0});
  }
  __device__ int64_t lastKey(int64_t token) const { return token + shape.keyTokens - shape.tokens; }
  /** The chunk of a query, −1 for none. */
  __device__ int64_t chunkOf(int64_t token) const {
    if (shape.slots == 0 || token < shape.start) return -1;
    return min((token - shape.start) / shape.chunkLength, shape.chunks - 1);
  }
  /** The queries of a chunk: from here to the begin of the next one. */
  __device__ int64_t chunkBegin(int64_t chunk) const {
    if (chunk == shape.chunks) return shape.tokens;
    return min(shape.start + chunk * shape.chunkLength, shape.tokens);
  }
  /** The memory at a place of `index`, −1 for none. */
  __device__ int64_t memoryOf(int64_t place) const {
    const int64_t memory = this->index[place];
    return memory < shape.memories ? memory : -1;
  }
  __device__ int64_t lengthOf(int64_t memory) const {
    return min(max(static_cast<int64_t>(this->lengths[memory]), int64_t{0}), shape.kept);
  }

  /** Calls `body(key, value)` with rows for the valid tokens of the memory at a place of `index`. */
  template <class Body>
  __device__ void forMemory(int64_t place, int64_t kvHead, const Body& body) const {
    const int64_t memory = memoryOf(place);
    if (memory < 0) return;
    for (int64_t token = 0; token < lengthOf(memory); token++) {
      const int64_t at = memoryAt(memory, kvHead, token);
      body(this->memoryKeys + at, this->memoryValues + at);
    }
  }
  /** Calls `body(key, value)` for all that a query sees. */
  template <class Body>
  __device__ void forKeys(int64_t b, int64_t token, int64_t kvHead, const Body& body) const {
    const int64_t chunk = chunkOf(token);
    for (int64_t slot = 0; chunk >= 0 && slot < shape.slots; slot++) {
      forMemory((b * shape.chunks + chunk) * shape.slots + slot, kvHead, body);
    }
    for (int64_t key = firstKey(b, token); key <= lastKey(token); key++) {
      const int64_t at = keyAt(b, key, kvHead);
      body(this->k + at, this->v + at);
    }
  }
};

/** Number of the row that a warp works on. */
__device__ int64_t rowOfWarp() { return static_cast<int64_t>(blockIdx.x) * kRows + threadIdx.x / kWarpSize; }
__device__ bool isFirstLane() { return threadIdx.x % kWarpSize == 0; }

/** A query of a head; warps of a block are tokens side by side. */
struct Query {
  int64_t b, head, token;

  __device__ explicit Query(const AttentionShape& s) {
    const int64_t row = rowOfWarp();
    b = row / (s.heads * s.tokens);
    head = row / s.tokens % s.heads;
    token = row % s.tokens;
  }
};

template <class T, int Pieces>
__global__ void __launch_bounds__(kThreads, kBlocks<Pieces>) plainKernel(Plain<T> in, AttentionOutputs<T> out) {
  const AttentionShape& s = in.shape;
  const auto [b, head, token] = Query(s);
  if (b >= s.batch) return;
  const int64_t at = in.queryAt(b, token, head), kvHead = head / in.group();
  const auto query = Row<Pieces>::load(in.q + at, s.dim, in.scale());
  auto sum = Row<Pieces>::zeros();
  float largest = -INFINITY, total = 0;
  in.forKeys(b, token, kvHead, [&](const T* key, const T* value) {
    const float score = query.dot(Row<Pieces>::load(key, s.dim));
    const float before = largest;
    largest = fmaxf(largest, score);
    const float shrink = expf(before - largest), weight = expf(score - largest);
    total = total * shrink + weight;
    sum.multiply(shrink);
    sum.add(weight, Row<Pieces>::load(value, s.dim));
  });
  sum.store(out.out + at, s.dim, 1 / total);
  const float lse = largest + logf(total);
  if (isFirstLane()) out.lse[in.stateAt(b, token, head)] = lse;
  const int64_t chunk = in.chunkOf(token);
  for (int64_t slot = 0; slot < s.slots; slot++) {
    float mass = 0;
    if (chunk >= 0) {
      in.forMemory((b * s.chunks + chunk) * s.slots + slot, kvHead, [&](const T* key, const T*) {
        mass += expf(query.dot(Row<Pieces>::load(key, s.dim)) - lse);
      });
    }
    if (isFirstLane()) out.share[((b * s.tokens + token) * s.heads + head) * s.slots + slot] = mass;
  }
}

/** dq, and δ [B, H, T]. */
template <class T, int Pieces>
__global__ void __launch_bounds__(kThreads, kBlocks<Pieces>) plainQueryGradKernel(Plain<T> in, AttentionGradients<T> out, float* delta) {
  const AttentionShape& s = in.shape;
  const auto [b, head, token] = Query(s);
  if (b >= s.batch) return;
  const int64_t at = in.queryAt(b, token, head), state = in.stateAt(b, token, head);
  const auto query = Row<Pieces>::load(in.q + at, s.dim, in.scale()), dy = Row<Pieces>::load(out.dy + at, s.dim);
  const float lse = out.lse[state], radial = dy.dot(Row<Pieces>::load(out.out + at, s.dim));
  auto sum = Row<Pieces>::zeros();
  in.forKeys(b, token, head / in.group(), [&](const T* key, const T* value) {
    const auto row = Row<Pieces>::load(key, s.dim);
    const float p = expf(query.dot(row) - lse);
    sum.add(p * (dy.dot(Row<Pieces>::load(value, s.dim)) - radial), row);
  });
  sum.store(out.dq + at, s.dim, in.scale());
  if (isFirstLane()) delta[state] = radial;
}

/** A key with its value, and the gradients that gather in them. */
template <class T, int Pieces>
struct KeyRow {
  Row<Pieces> key, value, dKey, dValue;

  __device__ KeyRow(const Plain<T>& in, const T* keyAt, const T* valueAt)
      : key(Row<Pieces>::load(keyAt, in.shape.dim, in.scale())),
        value(Row<Pieces>::load(valueAt, in.shape.dim)),
        dKey(Row<Pieces>::zeros()),
        dValue(Row<Pieces>::zeros()) {}

  __device__ void addQuery(const Plain<T>& in, const AttentionGradients<T>& out, const float* delta, int64_t b,
                           int64_t token, int64_t head) {
    const int64_t at = in.queryAt(b, token, head), state = in.stateAt(b, token, head);
    const auto query = Row<Pieces>::load(in.q + at, in.shape.dim), dy = Row<Pieces>::load(out.dy + at, in.shape.dim);
    const float p = expf(key.dot(query) - out.lse[state]);
    dValue.add(p, dy);
    dKey.add(p * (value.dot(dy) - delta[state]), query);
  }
};

/** dk and dv, of all tokens that there is room for. */
template <class T, int Pieces>
__global__ void __launch_bounds__(kThreads, kBlocks<Pieces>)
    plainKeyGradKernel(Plain<T> in, AttentionGradients<T> out, const float* delta) {
  const AttentionShape& s = in.shape;
  const int64_t row = rowOfWarp();
  const int64_t b = row / (s.kvHeads * s.room), kvHead = row / s.room % s.kvHeads, key = row % s.room;
  if (b >= s.batch) return;
  const int64_t at = in.keyAt(b, key, kvHead);
  KeyRow<T, Pieces> own(in, in.k + at, in.v + at);
  const int64_t firstQuery = max(key - (s.keyTokens - s.tokens), int64_t{0});
  for (int64_t head = kvHead * in.group(); head < (kvHead + 1) * in.group(); head++) {
    for (int64_t token = firstQuery; token < s.tokens && in.firstKey(b, token) <= key; token++) {
      own.addQuery(in, out, delta, b, token, head);
    }
  }
  own.dKey.store(out.dk + at, s.dim, in.scale());
  own.dValue.store(out.dv + at, s.dim);
}

/** Gradients of memories; a warp a token. */
template <class T, int Pieces>
__global__ void __launch_bounds__(kThreads, kBlocks<Pieces>)
    plainMemoryGradKernel(Plain<T> in, AttentionGradients<T> out, const float* delta) {
  const AttentionShape& s = in.shape;
  const int64_t row = rowOfWarp();
  const int64_t memory = row / (s.kvHeads * s.kept), kvHead = row / s.kept % s.kvHeads, token = row % s.kept;
  if (memory >= s.memories) return;
  const int64_t at = in.memoryAt(memory, kvHead, token);
  KeyRow<T, Pieces> own(in, in.memoryKeys + at, in.memoryValues + at);
  const int64_t places = token < in.lengthOf(memory) ? s.batch * s.chunks * s.slots : 0;
  for (int64_t place = 0; place < places; place++) {
    if (in.index[place] != memory) continue;
    const int64_t b = place / (s.chunks * s.slots), chunk = place / s.slots % s.chunks;
    for (int64_t head = kvHead * in.group(); head < (kvHead + 1) * in.group(); head++) {
      for (int64_t query = in.chunkBegin(chunk); query < in.chunkBegin(chunk + 1); query++) {
        own.addQuery(in, out, delta, b, query, head);
      }
    }
  }
  own.dKey.store(out.dMemoryKeys + at, s.dim, in.scale());
  own.dValue.store(out.dMemoryValues + at, s.dim);
}

template <int Count>
struct Pieces {
  static constexpr int count = Count;
};

/** Calls `body` with as many pieces of 32 as a row of `dim` needs, or a few more. */
template <class Body>
void withPieces(int64_t dim, const Body& body) {
  expect(dim <= 256, "Attention: the head dimension is larger than 256");
  if (dim <= 32) return body(Pieces<1>{});
  if (dim <= 96) return body(Pieces<3>{});
  body(Pieces<8>{});
}

unsigned blocksOfRows(int64_t rows) { return static_cast<unsigned>(blocksFor(rows, kRows)); }

}  // namespace

template <class T>
void attendPlain(Context& context, const AttentionInputs<T>& in, const AttentionOutputs<T>& out) {
  const AttentionShape& s = in.shape;
  withPieces(s.dim, [&](auto pieces) {
    context.launch(plainKernel<T, decltype(pieces)::count>, blocksOfRows(s.batch * s.heads * s.tokens), kThreads, 0,
                   Plain<T>{in}, out);
  });
}

template <class T>
void attendPlainGrad(Context& context, const AttentionInputs<T>& in, const AttentionGradients<T>& out) {
  const AttentionShape& s = in.shape;
  const Scratch<float> delta(context, s.batch * s.heads * s.tokens);
  withPieces(s.dim, [&](auto pieces) {
    constexpr int count = decltype(pieces)::count;
    context.launch(plainQueryGradKernel<T, count>, blocksOfRows(s.batch * s.heads * s.tokens), kThreads, 0,
                   Plain<T>{in}, out, delta.data());
    context.launch(plainKeyGradKernel<T, count>, blocksOfRows(s.batch * s.kvHeads * s.room), kThreads, 0, Plain<T>{in},
                   out, delta.data());
    if (out.dMemoryKeys == nullptr) return;
    context.launch(plainMemoryGradKernel<T, count>, blocksOfRows(s.memories * s.kvHeads * s.kept), kThreads, 0,
                   Plain<T>{in}, out, delta.data());
  });
}

template void attendPlain(Context&, const AttentionInputs<float>&, const AttentionOutputs<float>&);
template void attendPlain(Context&, const AttentionInputs<Bf16>&, const AttentionOutputs<Bf16>&);
template void attendPlainGrad(Context&, const AttentionInputs<float>&, const AttentionGradients<float>&);
template void attendPlainGrad(Context&, const AttentionInputs<Bf16>&, const AttentionGradients<Bf16>&);

}  // namespace memory3
