/**
 * `Attention`: grouped-query attention, causal over the context and unmasked over the memories of a query's chunk, one
 * softmax over both. Each (sequence, key-value head) is a task of its own; a task walks blocks of queries that share
 * their memories and the causal part of the context, so that scores of a block only exist.
 * Legend: B batch, T query tokens, Tk context tokens, H query heads, K key-value heads, G = H/K, D headDim, M memories,
 * S kept tokens per memory, C chunks, R memory slots per chunk, Z keys that a block sees.
 */

#include "attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "gemm.h"
#include "kernels.h"
#include "vector_math.h"

namespace memory3 {

/** Rows (queries times group) of a block, about: enough for an efficient product, few beyond the causal border. */
static constexpr int64_t BLOCK_ROWS = 64;
static constexpr int64_t MIN_BLOCK_TOKENS = 16;
/** The score of a key that is not to be seen; its exponential is 0. */
static constexpr float HIDDEN = -std::numeric_limits<float>::infinity();

/** Queries [begin, end), all of one chunk or, with chunk −1, of none. */
struct Block {
  int64_t begin;
  int64_t end;
  int64_t chunk;
};

/** Keys and values that stand together in memory. */
struct Segment {
  int64_t memory;  // −1 for the context
  int64_t slot;
  int64_t offset;  // among the Z keys of the block
  int64_t count;
  int64_t stride;
  const float* keys;
  const float* values;
};

static std::vector<Block> blocksOf(const AttentionInputs& in) {
  const AttentionShape& s = in.shape;
  const int64_t longest = std::max(MIN_BLOCK_TOKENS, BLOCK_ROWS / s.group());
  std::vector<Block> blocks;
  int64_t token = 0;
  while (token < s.tokens) {
    int64_t chunk = -1;
    int64_t border = s.tokens;
    if (s.slots > 0 && token < s.start) border = std::min(border, s.start);
    if (s.slots > 0 && token >= s.start) {
      chunk = std::min((token - s.start) / s.chunkLength, s.chunks - 1);
      if (chunk < s.chunks - 1) border = std::min(border, s.start + (chunk + 1) * s.chunkLength);
    }
    const int64_t end = std::min(border, token + longest);
    blocks.push_back({token, end, chunk});
    token = end;
  }
  return blocks;
}

/** What a task works with; the pointers lead into the scratch of its part. */
struct Workspace {
  std::vector<Segment> segments;
  std::vector<float> sums;
  float* queries;    // [rows, D], scaled
  float* output;     // [rows, D]
  float* dOutput;    // [rows, D]
  float* scores;     // [rows, Z]
  float* dScores;    // [rows, Z]
  float* dMemories;  // keys, then values, [M, K, S, D] each
};

class Task {
 public:
  Task(const AttentionInputs& in, int64_t batch, int64_t kvHead, Workspace& work)
      : in_(in), s_(in.shape), b_(batch), kvHead_(kvHead), work_(work) {}

  void forward(const Block& block, const AttentionOutputs& out);
  void backward(const Block& block, const AttentionGradients& out);

 private:
  void findSegments(const Block& block);
  void pack(const Block& block, const float* from, float scale, float* to) const;
  void unpack(const Block& block, const float* from, float* to) const;
  void scoreSegments(const Block& block);
  void addKeyGradients(const Block& block, const AttentionGradients& out);
  void writeShares(const Block& block, float* share) const;
  int64_t rowsOf(const Block& block) const { return (block.end - block.begin) * s_.group(); }
  /** Context tokens that the first query of a block sees. */
  int64_t seenBy(const Block& block) const { return block.begin + s_.keyTokens - s_.tokens + 1; }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(s_.dim)); }
  int64_t memoryKeys() const { return work_.segments.back().offset; }
  int64_t stride() const { return padded(work_.segments.back().offset + work_.segments.back().count); }
  int64_t lseAt(int64_t g) const { return (b_ * s_.heads + kvHead_ * s_.group() + g) * s_.tokens; }

  const AttentionInputs& in_;
  const AttentionShape& s_;
  int64_t b_;
  int64_t kvHead_;
  Workspace& work_;
};

/** The valid tokens of the chunk's memories, then the context up to the last query of the block. */
void Task::findSegments(const Block& block) {
  work_.segments.clear();
  int64_t offset = 0;
  for (int64_t slot = 0; block.chunk >= 0 && slot < s_.slots; slot++) {
    const int64_t memory = in_.index.data[(b_ * s_.chunks + block.chunk) * s_.slots + slot];
    const int64_t count = memory < 0 ? 0 : in_.lengths.data[memory];
    if (count == 0) continue;
    const int64_t at = (memory * s_.kvHeads + kvHead_) * s_.kept * s_.dim;
    work_.segments.push_back(
        {memory, slot, offset, count, s_.dim, in_.memoryKeys.data + at, in_.memoryValues.data + at});
    offset += count;
  }
  const int64_t at = (b_ * s_.keyTokens * s_.kvHeads + kvHead_) * s_.dim;
  work_.segments.push_back({-1, -1, offset, block.end + s_.keyTokens - s_.tokens, s_.kvHeads * s_.dim, in_.k.data + at,
                            in_.v.data + at});
}

/** Rows of the block's queries out of `[B, T, H, D]`, head by head. */
void Task::pack(const Block& block, const float* from, float scale, float* to) const {
  for (int64_t g = 0; g < s_.group(); g++) {
    for (int64_t token = block.begin; token < block.end; token++, to += s_.dim) {
      const float* row = from + s_.rowAt(b_, token, kvHead_ * s_.group() + g);
      for (int64_t i = 0; i < s_.dim; i++) to[i] = row[i] * scale;
    }
  }
}

void Task::unpack(const Block& block, const float* from, float* to) const {
  for (int64_t g = 0; g < s_.group(); g++) {
    for (int64_t token = block.begin; token < block.end; token++, from += s_.dim) {
      std::memcpy(to + s_.rowAt(b_, token, kvHead_ * s_.group() + g), from, s_.dim * sizeof(float));
    }
  }
}

void Task::scoreSegments(const Block& block) {
  for (const Segment& segment : work_.segments) {
    gemm(rowsOf(block), segment.count, s_.dim, 1, {work_.queries, s_.dim}, {segment.keys, segment.stride, true}, 0,
         work_.scores + segment.offset, stride());
  }
}

/**
 * Hides the keys from `valid` on. The loop begins at `from`, the same for all rows of a block, and has no branch inside:
 * rows are short, and a jump that the processor does not foresee would cost as much as a row.
 */
MEMORY3_INLINE void hideFrom(int64_t valid, int64_t from, int64_t stride, float* row, float hidden) {
  const int32_t border = static_cast<int32_t>(valid - from);
  const int32_t count = static_cast<int32_t>(sixteens(stride - from));
#pragma omp simd
  for (int32_t j = 0; j < count; j++) row[from + j] = j < border ? row[from + j] : hidden;
}

/**
 * Scores of one head to exponentials relative to the largest, 0 behind the causal border: row i sees `seen` + i keys.
 * Gives the sum of each row and the logarithm of the normaliser.
 */
MEMORY3_VECTORISED static void exponentiateRows(float* scores, int64_t rows, int64_t stride, int64_t seen, float* sums,
                                                float* lse) {
  for (int64_t row = 0; row < rows; row++, scores += stride) {
    hideFrom(seen + row, sixteens(seen), stride, scores, HIDDEN);
    const float largest = largestOf(scores, sixteens(stride));
    sums[row] = expInPlace(scores, sixteens(stride), largest);
    lse[row] = largest;
  }
  // Not in the loop above: a call there would cost all vector registers.
  for (int64_t row = 0; row < rows; row++) lse[row] += std::log(sums[row]);
}

MEMORY3_VECTORISED static void divideRows(float* x, const float* sums, int64_t rows, int64_t width) {
  for (int64_t row = 0; row < rows; row++, x += width) {
    const float inverse = 1.0f / sums[row];
#pragma omp simd
    for (int64_t i = 0; i < width; i++) x[i] *= inverse;
  }
}

void Task::forward(const Block& block, const AttentionOutputs& out) {
  findSegments(block);
  const int64_t rows = rowsOf(block);
  const int64_t tokens = block.end - block.begin;
  work_.sums.resize(rows);
  pack(block, in_.q.data, scale(), work_.queries);
  scoreSegments(block);
  for (int64_t g = 0; g < s_.group(); g++) {
    exponentiateRows(work_.scores + g * tokens * stride(), tokens, stride(), memoryKeys() + seenBy(block),
                     work_.sums.data() + g * tokens, out.lse.data + lseAt(g) + block.begin);
  }
  float beta = 0;
  for (const Segment& segment : work_.segments) {
    gemm(rows, s_.dim, segment.count, 1, {work_.scores + segment.offset, stride()}, {segment.values, segment.stride},
         beta, work_.output, s_.dim);
    beta = 1;
  }
  divideRows(work_.output, work_.sums.data(), rows, s_.dim);
  unpack(block, work_.output, out.out.data);
  if (s_.slots > 0) writeShares(block, out.share.data);
}

/** Attention mass on each slot; the slots without tokens keep the zeros that are there. */
void Task::writeShares(const Block& block, float* share) const {
  for (const Segment& segment : work_.segments) {
    if (segment.memory < 0) continue;
    const float* row = work_.scores + segment.offset;
    const float* sum = work_.sums.data();
    for (int64_t g = 0; g < s_.group(); g++) {
      for (int64_t token = block.begin; token < block.end; token++, row += stride(), sum++) {
        float mass = 0;
        for (int64_t j = 0; j < segment.count; j++) mass += row[j];
        share[((b_ * s_.tokens + token) * s_.heads + kvHead_ * s_.group() + g) * s_.slots + segment.slot] = mass / *sum;
      }
    }
  }
}

/**
 * Scores of one head to probabilities p, and the gradients of p to those of the scores, p ∘ (dp − radial), where radial
 * is the product of the output with its gradient.
 */
MEMORY3_VECTORISED static void scoreGradRows(float* scores, float* dScores, int64_t rows, int64_t stride, int64_t seen,
                                             const float* lse, const float* output, const float* dOutput, int64_t dim) {
  for (int64_t row = 0; row < rows; row++, scores += stride, dScores += stride) {
    hideFrom(seen + row, sixteens(seen), stride, scores, HIDDEN);
    hideFrom(seen + row, sixteens(seen), stride, dScores, 0);
    const float radial = dot(output + row * dim, dOutput + row * dim, dim);
    const float normaliser = lse[row];
#pragma omp simd
    for (int64_t j = 0; j < sixteens(stride); j++) {
      scores[j] = fastExp(scores[j] - normaliser);
      dScores[j] = scores[j] * (dScores[j] - radial);
    }
  }
}

void Task::backward(const Block& block, const AttentionGradients& out) {
  findSegments(block);
  const int64_t rows = rowsOf(block);
  const int64_t tokens = block.end - block.begin;
  pack(block, in_.q.data, scale(), work_.queries);
  pack(block, out.dy.data, 1, work_.dOutput);
  pack(block, out.out.data, 1, work_.output);
  scoreSegments(block);
  for (const Segment& segment : work_.segments) {
    gemm(rows, segment.count, s_.dim, 1, {work_.dOutput, s_.dim}, {segment.values, segment.stride, true}, 0,
         work_.dScores + segment.offset, stride());
  }
  for (int64_t g = 0; g < s_.group(); g++) {
    const int64_t row = g * tokens;
    scoreGradRows(work_.scores + row * stride(), work_.dScores + row * stride(), tokens, stride(),
                  memoryKeys() + seenBy(block), out.lse.data + lseAt(g) + block.begin, work_.output + row * s_.dim,
                  work_.dOutput + row * s_.dim, s_.dim);
  }
  // The packed output has done its duty; its place takes the gradient of the queries.
  float beta = 0;
  for (const Segment& segment : work_.segments) {
    gemm(rows, s_.dim, segment.count, scale(), {work_.dScores + segment.offset, stride()},
         {segment.keys, segment.stride}, beta, work_.output, s_.dim);
    beta = 1;
  }
  unpack(block, work_.output, out.dq.data);
  addKeyGradients(block, out);
}

void Task::addKeyGradients(const Block& block, const AttentionGradients& out) {
  const int64_t rows = rowsOf(block);
  const int64_t memorySize = in_.memoryKeys.size;
  for (const Segment& segment : work_.segments) {
    float* dKeys = out.dk.data + (segment.keys - in_.k.data);
    float* dValues = out.dv.data + (segment.values - in_.v.data);
    if (segment.memory >= 0) {
      if (!work_.dMemories) continue;
      dKeys = work_.dMemories + (segment.keys - in_.memoryKeys.data);
      dValues = work_.dMemories + memorySize + (segment.values - in_.memoryValues.data);
    }
    gemm(segment.count, s_.dim, rows, 1, {work_.dScores + segment.offset, stride(), true}, {work_.queries, s_.dim}, 1,
         dKeys, segment.stride);
    gemm(segment.count, s_.dim, rows, 1, {work_.scores + segment.offset, stride(), true}, {work_.dOutput, s_.dim}, 1,
         dValues, segment.stride);
  }
}

/** How a call is cut into parts, each with a scratch of its own; sizes by the largest block. */
struct Plan {
  std::vector<Block> blocks;
  int parts;
  int64_t rowFloats;
  int64_t scoreFloats;
  int64_t memoryFloats;
  float* scratch;

  Plan(Context& context, const AttentionInputs& in, bool memoryGradients) : blocks(blocksOf(in)) {
    const AttentionShape& s = in.shape;
    int64_t rows = 0;
    for (const Block& block : blocks) rows = std::max(rows, (block.end - block.begin) * s.group());
    const int64_t keys = s.slots * s.kept + s.keyTokens;
    parts = partsFor(context, static_cast<double>(s.batch) * s.heads * s.tokens * keys * s.dim / 4);
    parts = static_cast<int>(std::min<int64_t>(parts, s.batch * s.kvHeads));
    rowFloats = padded(rows * s.dim);
    scoreFloats = rows * padded(keys);
    memoryFloats = memoryGradients ? padded(2 * in.memoryKeys.size) : 0;
    scratch = context.scratch.floats(parts * floatsPerPart());
  }

  int64_t floatsPerPart() const { return 3 * rowFloats + 2 * scoreFloats + memoryFloats; }

  float* dMemories(int part) const { return scratch + part * floatsPerPart() + 3 * rowFloats + 2 * scoreFloats; }

  Workspace workspace(int part) const {
    float* queries = scratch + part * floatsPerPart();
    float* scores = queries + 3 * rowFloats;
    if (memoryFloats > 0) std::memset(dMemories(part), 0, memoryFloats * sizeof(float));
    return {{},     {},
            queries, queries + rowFloats,
            queries + 2 * rowFloats, scores,
            scores + scoreFloats, memoryFloats > 0 ? dMemories(part) : nullptr};
  }

  /** Calls `run(task, block)` for all tasks and blocks. */
  template <class Run>
  void forAll(const Context& context, const AttentionInputs& in, const Run& run) const {
    context.pool->run(parts, [&](int part) {
      Workspace work = workspace(part);
      const Range own = partOf(in.shape.batch * in.shape.kvHeads, part, parts);
      for (int64_t n = own.begin; n < own.end; n++) {
        Task task(in, n / in.shape.kvHeads, n % in.shape.kvHeads, work);
        for (const Block& block : blocks) run(task, block);
      }
    });
  }
};

void attend(Context& context, const AttentionInputs& in, const AttentionOutputs& out) {
  std::memset(out.share.data, 0, out.share.size * sizeof(float));
  Plan(context, in, false).forAll(context, in, [&](Task& task, const Block& block) { task.forward(block, out); });
}

/** Adds what the parts found, always in the same order. */
MEMORY3_VECTORISED static void sumParts(const float* first, int64_t step, int parts, int64_t count, float* out) {
  std::memcpy(out, first, count * sizeof(float));
  for (int part = 1; part < parts; part++) {
    const float* other = first + part * step;
#pragma omp simd
    for (int64_t i = 0; i < count; i++) out[i] += other[i];
  }
}

void attendGrad(Context& context, const AttentionInputs& in, const AttentionGradients& out) {
  std::memset(out.dk.data, 0, out.dk.size * sizeof(float));
  std::memset(out.dv.data, 0, out.dv.size * sizeof(float));
  const bool memoryGradients = out.dMemoryKeys.size > 0;
  const Plan plan(context, in, memoryGradients);
  plan.forAll(context, in, [&](Task& task, const Block& block) { task.backward(block, out); });
  if (!memoryGradients) return;
  const int64_t size = in.memoryKeys.size;
  parallelRanges(context, partsFor(context, 2.0 * plan.parts * size), size, [&](Range own) {
    const float* keys = plan.dMemories(0) + own.begin;
    sumParts(keys, plan.floatsPerPart(), plan.parts, own.size(), out.dMemoryKeys.data + own.begin);
    sumParts(keys + size, plan.floatsPerPart(), plan.parts, own.size(), out.dMemoryValues.data + own.begin);
  });
}

// What JavaScript calls: the shape as one array of numbers.

static AttentionShape shapeFrom(Numbers n) {
  expectSize("Attention: shape", static_cast<int64_t>(n.size()), 11);
  return {n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], n[8], n[9], n[10]};
}

static void expectInputs(const AttentionInputs& in) {
  const AttentionShape& s = in.shape;
  expect(s.batch > 0 && s.tokens > 0 && s.keyTokens >= s.tokens && s.dim > 0, "Attention: an empty or impossible shape");
  expect(s.kvHeads > 0 && s.heads > 0 && s.heads % s.kvHeads == 0,
         "Attention: the key-value heads do not divide the heads");
  expectSize("Attention: q", in.q.size, s.batch * s.tokens * s.heads * s.dim);
  expectSize("Attention: k", in.k.size, s.batch * s.keyTokens * s.kvHeads * s.dim);
  expectSize("Attention: v", in.v.size, in.k.size);
  expectSize("Attention: memoryKeys", in.memoryKeys.size, in.lengths.size * s.kvHeads * s.kept * s.dim);
  expectSize("Attention: memoryValues", in.memoryValues.size, in.memoryKeys.size);
  expectSize("Attention: index", in.index.size, s.batch * s.chunks * s.slots);
  if (s.slots == 0) return;
  expect(s.chunks > 0 && s.chunkLength > 0 && s.start >= 0, "Attention: an impossible chunk");
  for (int64_t m = 0; m < in.lengths.size; m++) {
    expect(in.lengths.data[m] >= 0 && in.lengths.data[m] <= s.kept, "Attention: a memory's length is not in [0, S]");
  }
  for (int64_t i = 0; i < in.index.size; i++) {
    expect(in.index.data[i] < in.lengths.size, "Attention: a slot names a memory that is not there");
  }
}

void attention(Context& context, Floats q, Floats k, Floats v, Floats memoryKeys, Floats memoryValues, Ints lengths,
               Ints index, Numbers shape, FloatsOut out, FloatsOut share, FloatsOut lse) {
  const AttentionInputs in{shapeFrom(shape), q, k, v, memoryKeys, memoryValues, lengths, index};
  expectInputs(in);
  const AttentionShape& s = in.shape;
  expectSize("Attention: out", out.size, q.size);
  expectSize("Attention: share", share.size, s.batch * s.tokens * s.heads * s.slots);
  expectSize("Attention: lse", lse.size, s.batch * s.heads * s.tokens);
  attend(context, in, {out, share, lse});
}

void attentionGrad(Context& context, Floats q, Floats k, Floats v, Floats memoryKeys, Floats memoryValues, Ints lengths,
                   Ints index, Numbers shape, Floats dy, Floats out, Floats lse, FloatsOut dq, FloatsOut dk, FloatsOut dv,
                   FloatsOut dMemoryKeys, FloatsOut dMemoryValues) {
  const AttentionInputs in{shapeFrom(shape), q, k, v, memoryKeys, memoryValues, lengths, index};
  expectInputs(in);
  expectSize("AttentionGrad: dy", dy.size, q.size);
  expectSize("AttentionGrad: out", out.size, q.size);
  expectSize("AttentionGrad: lse", lse.size, in.shape.batch * in.shape.heads * in.shape.tokens);
  expectSize("AttentionGrad: dq", dq.size, q.size);
  expectSize("AttentionGrad: dk", dk.size, k.size);
  expectSize("AttentionGrad: dv", dv.size, v.size);
  if (dMemoryKeys.size > 0) expectSize("AttentionGrad: dMemoryKeys", dMemoryKeys.size, memoryKeys.size);
  expectSize("AttentionGrad: dMemoryValues", dMemoryValues.size, dMemoryKeys.size);
  attendGrad(context, in, {dy, out, lse, dq, dk, dv, dMemoryKeys, dMemoryValues});
}

}  // namespace memory3
