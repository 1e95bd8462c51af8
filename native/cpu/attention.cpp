/**
 * `Attention`: grouped-query attention, causal over the context and unmasked over the memories of a query's chunk, one
 * softmax over both. Each (sequence, key-value head) is a task of its own, which packs its keys and values once and then
 * walks blocks of queries that share their memories; only the scores of a block exist. Inside a block the queries of one
 * head go in strips, and a strip computes only from the first key that its first query sees to the last of its last query.
 * Legend: B batch, T query tokens, Tk context tokens, H query heads, K key-value heads, G = H/K, D headDim, M memories,
 * S kept tokens per memory, C chunks, R memory slots per chunk, Z places of keys in a block: those of the memories, padded
 * to a multiple of 16, then the context from the first panel that the block sees.
 */

#include "attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels.h"
#include "tile.h"
#include "vector_math.h"

namespace memory3 {

/** Rows (queries times group) of a block, about. */
static constexpr int64_t BLOCK_ROWS = 96;
static constexpr int64_t MIN_BLOCK_TOKENS = 24;
/** Up to so many rows are computed from keys and values as they lie: to pack them would cost as much. */
static constexpr int64_t FEW_ROWS = 8;
/** The score of a key that is not to be seen; its exponential is 0. */
static constexpr float HIDDEN = -std::numeric_limits<float>::infinity();

/** Queries [begin, end), all of one chunk or, with chunk −1, of none. */
struct Block {
  int64_t begin;
  int64_t end;
  int64_t chunk;
  int64_t tokens() const { return end - begin; }
};

/** Keys of the context that are read for some queries: from the panel of the first that one sees to the last, plus one. */
struct Keys {
  int64_t begin;  // a multiple of PANEL
  int64_t end;
  int64_t count() const { return end - begin; }
};

/** A memory that a chunk reads. */
struct Slot {
  int64_t slot;
  int64_t memory;
  int64_t offset;  // of its keys among those of the block
  int64_t count;
};

/** Keys and values of one origin in the forms that the products want; `places` is a multiple of 16. */
struct Packed {
  int64_t places = 0;
  float* keysTransposed = nullptr;    // [places/16, D, 16]
  float* valuesTransposed = nullptr;  // the same; backward only
  float* keyColumns = nullptr;        // [Dp/16, places, 16]; backward only
  float* valueColumns = nullptr;      // the same; forward only
};

static std::vector<Block> blocksOf(const AttentionInputs& in) {
  const AttentionShape& s = in.shape;
  const int64_t longest = std::max(MIN_BLOCK_TOKENS, BLOCK_ROWS / s.group() / STRIP_ROWS * STRIP_ROWS);
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
  std::vector<Slot> slots;
  std::vector<float> sums;
  Packed memory;
  Packed context;
  int64_t stride = 0;  // of the scores
  float* queries;      // [rows, Dp], scaled
  float* output;       // [rows, Dp]
  float* dOutput;      // [rows, Dp]
  float* scores;       // [rows, stride]
  float* dScores;      // [rows, stride]
  float* rest;         // last columns of values, [max(Tk, S), 16]; for few rows
  float* dMemoryRows;  // keys, then values, [places, Dp] each
  float* dMemories;    // keys, then values, [M, K, S, D] each; null when not wanted
};

/** Deals out parts of a scratch; with a null base it only counts. */
struct Dealer {
  float* base;
  int64_t used = 0;

  float* take(int64_t count) {
    const int64_t at = used;
    used += padded(count);
    return base ? base + at : nullptr;
  }
};

/** What of the rows of a strip is to be seen: the keys of memories, and of the context one more in each row. */
struct Visible {
  int64_t memoryKeys;
  int64_t memoryPlaces;
  int64_t contextBegin;  // key of the context at the first place behind the memories
  const int32_t* first;  // first key of the context that each row sees; null: all from the start
  int64_t seen;          // keys of the context up to the last that the first row sees
  int64_t extent;        // columns to work on, a multiple of 16
};

class Task {
 public:
  Task(const Tiles& tiles, const AttentionInputs& in, int64_t batch, int64_t kvHead, Workspace& work, bool backward)
      : tiles_(tiles), in_(in), s_(in.shape), b_(batch), kvHead_(kvHead), work_(work), backward_(backward) {}

  /** Keys and values of the context, for all blocks. */
  void packContext();
  void forward(const Block& block, const AttentionOutputs& out);
  void forwardFew(const Block& block, const AttentionOutputs& out);
  void backward(const Block& block, const AttentionGradients& out);

 private:
  void findSlots(const Block& block);
  void packMemories();
  void packRows(const Block& block, const float* from, float scale, float* to) const;
  void unpackRows(const Block& block, const float* from, float scale, float* to) const;
  void score(const Block& block, const float* queries, bool values, float* scores) const;
  void combine(const Block& block, const float* scores, bool keys, float* to) const;
  void addValues(const float* weights, int64_t weightStep, const float* values, int64_t stride, int64_t count,
                 float* to) const;
  void addKeyGradients(const Block& block, const AttentionGradients& out);
  void addSlotGradients();
  void writeShares(const Block& block, float* share) const;
  template <class Body>
  void forStrips(const Block& block, const Body& body) const;
  int64_t paddedDim() const { return padded(s_.dim); }
  int64_t rowsOf(const Block& block) const { return block.tokens() * s_.group(); }
  /** The first key of the context that a query sees. */
  int64_t firstSeenBy(int64_t token) const {
    return in_.firstVisible.size > 0 ? in_.firstVisible.data[b_ * s_.tokens + token] : 0;
  }
  /** The keys of the context for queries [begin, end); the first key does not fall from one query to the next. */
  Keys contextOf(int64_t begin, int64_t end) const {
    return {firstSeenBy(begin) / PANEL * PANEL, end + s_.keyTokens - s_.tokens};
  }
  Keys contextOf(const Block& block) const { return contextOf(block.begin, block.end); }
  /** Place of a key of the context in the rows of a block. */
  int64_t placeOf(const Block& block, int64_t key) const {
    return work_.memory.places + key - contextOf(block).begin;
  }
  /** Places that are worked on up to a key of the context, a multiple of 16. */
  int64_t extent(const Block& block, int64_t end) const { return placeOf(block, padded(end)); }
  Visible visibleTo(const Block& block, int64_t row, int64_t count, Keys keys) const;
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(s_.dim)); }
  int64_t contextStride() const { return s_.kvHeads * s_.dim; }
  int64_t contextAt() const { return (b_ * s_.room * s_.kvHeads + kvHead_) * s_.dim; }
  int64_t memoryAt(const Slot& slot) const { return (slot.memory * s_.kvHeads + kvHead_) * s_.kept * s_.dim; }
  int64_t memoryKeyCount() const { return work_.slots.empty() ? 0 : work_.slots.back().offset + work_.slots.back().count; }
  int64_t lseAt(int64_t g) const { return (b_ * s_.heads + kvHead_ * s_.group() + g) * s_.tokens; }

  const Tiles& tiles_;
  const AttentionInputs& in_;
  const AttentionShape& s_;
  int64_t b_;
  int64_t kvHead_;
  Workspace& work_;
  bool backward_;
};

void Task::packContext() {
  Packed& to = work_.context;
  to.places = padded(s_.keyTokens);
  const float* keys = in_.k.data + contextAt();
  const float* values = in_.v.data + contextAt();
  const int64_t count = s_.keyTokens;
  const int64_t last = (to.places - PANEL) * s_.dim;
  const int64_t panel = PANEL * s_.dim;
  std::fill(to.keysTransposed + last, to.keysTransposed + last + panel, 0.0f);
  packTransposed(keys, contextStride(), count, s_.dim, 0, to.keysTransposed);
  if (backward_) {
    std::fill(to.valuesTransposed + last, to.valuesTransposed + last + panel, 0.0f);
    packTransposed(values, contextStride(), count, s_.dim, 0, to.valuesTransposed);
    packColumns(keys, contextStride(), count, s_.dim, 0, to.places, to.keyColumns);
  } else {
    packColumns(values, contextStride(), count, s_.dim, 0, to.places, to.valueColumns);
  }
}

/** The memories of the block's chunk that have tokens. */
void Task::findSlots(const Block& block) {
  work_.slots.clear();
  int64_t offset = 0;
  for (int64_t slot = 0; block.chunk >= 0 && slot < s_.slots; slot++) {
    const int64_t memory = in_.index.data[(b_ * s_.chunks + block.chunk) * s_.slots + slot];
    const int64_t count = memory < 0 ? 0 : in_.lengths.data[memory];
    if (count == 0) continue;
    work_.slots.push_back({slot, memory, offset, count});
    offset += count;
  }
  work_.memory.places = padded(offset);
}

/** The memories side by side; places behind the last key get keys and values of 0. */
void Task::packMemories() {
  Packed& to = work_.memory;
  const int64_t transposed = to.places * s_.dim;
  const int64_t columns = to.places * paddedDim();
  std::fill(to.keysTransposed, to.keysTransposed + transposed, 0.0f);
  std::fill(backward_ ? to.valuesTransposed : to.valueColumns,
            backward_ ? to.valuesTransposed + transposed : to.valueColumns + columns, 0.0f);
  if (backward_) std::fill(to.keyColumns, to.keyColumns + columns, 0.0f);
  for (const Slot& slot : work_.slots) {
    const float* keys = in_.memoryKeys.data + memoryAt(slot);
    const float* values = in_.memoryValues.data + memoryAt(slot);
    packTransposed(keys, s_.dim, slot.count, s_.dim, slot.offset, to.keysTransposed);
    if (backward_) {
      packTransposed(values, s_.dim, slot.count, s_.dim, slot.offset, to.valuesTransposed);
      packColumns(keys, s_.dim, slot.count, s_.dim, slot.offset, to.places, to.keyColumns);
    } else {
      packColumns(values, s_.dim, slot.count, s_.dim, slot.offset, to.places, to.valueColumns);
    }
  }
}

/** Rows of the block's queries out of `[B, T, H, D]`, head by head, zeros behind the last dimension. */
void Task::packRows(const Block& block, const float* from, float scale, float* to) const {
  for (int64_t g = 0; g < s_.group(); g++) {
    for (int64_t token = block.begin; token < block.end; token++, to += paddedDim()) {
      const float* row = from + s_.rowAt(b_, token, kvHead_ * s_.group() + g);
      for (int64_t i = 0; i < s_.dim; i++) to[i] = row[i] * scale;
      for (int64_t i = s_.dim; i < paddedDim(); i++) to[i] = 0;
    }
  }
}

void Task::unpackRows(const Block& block, const float* from, float scale, float* to) const {
  for (int64_t g = 0; g < s_.group(); g++) {
    for (int64_t token = block.begin; token < block.end; token++, from += paddedDim()) {
      float* row = to + s_.rowAt(b_, token, kvHead_ * s_.group() + g);
      for (int64_t i = 0; i < s_.dim; i++) row[i] = from[i] * scale;
    }
  }
}

/** Calls `body(first row, rows, keys of the context that its queries see)` for each strip of a block. */
template <class Body>
void Task::forStrips(const Block& block, const Body& body) const {
  for (int64_t g = 0; g < s_.group(); g++) {
    for (int64_t token = 0; token < block.tokens(); token += STRIP_ROWS) {
      const int64_t rows = std::min(STRIP_ROWS, block.tokens() - token);
      const int64_t begin = block.begin + token;
      body(g * block.tokens() + token, rows, contextOf(begin, begin + rows));
    }
  }
}

/** What the rows of a strip see, of which its queries read `keys` of the context. */
Visible Task::visibleTo(const Block& block, int64_t row, int64_t count, Keys keys) const {
  const int64_t token = block.begin + row % block.tokens();
  const int32_t* first = in_.firstVisible.size > 0 ? in_.firstVisible.data + b_ * s_.tokens + token : nullptr;
  return {memoryKeyCount(), work_.memory.places, contextOf(block).begin, first, keys.end - count + 1,
          extent(block, keys.end)};
}

/** Products of the rows of a block with keys, or with values. */
void Task::score(const Block& block, const float* queries, bool values, float* scores) const {
  const auto panels = [&](const Packed& packed, int64_t key) {
    return Panels{(values ? packed.valuesTransposed : packed.keysTransposed) + key * s_.dim, s_.dim * PANEL};
  };
  forStrips(block, [&](int64_t row, int64_t rows, Keys keys) {
    const Left from{queries + row * paddedDim(), paddedDim(), 1};
    float* to = scores + row * work_.stride;
    tiles_.strip(rows, from, panels(work_.memory, 0), s_.dim, {to, work_.stride, work_.memory.places, nullptr});
    tiles_.strip(rows, from, panels(work_.context, keys.begin), s_.dim,
                 {to + placeOf(block, keys.begin), work_.stride, padded(keys.count()), nullptr});
  });
}

/** Sums of values, or of keys, weighted by the scores, for the rows of a block. */
void Task::combine(const Block& block, const float* scores, bool keys, float* to) const {
  const auto panels = [&](const Packed& packed, int64_t key) {
    return Panels{(keys ? packed.keyColumns : packed.valueColumns) + key * PANEL, packed.places * PANEL};
  };
  const int64_t memoryPlaces = work_.memory.places;
  forStrips(block, [&](int64_t row, int64_t rows, Keys context) {
    const float* from = scores + row * work_.stride;
    float* out = to + row * paddedDim();
    const auto add = [&](Panels summed, int64_t place, int64_t count, const float* before) {
      tiles_.strip(rows, {from + place, work_.stride, 1}, summed, count, {out, paddedDim(), paddedDim(), before});
    };
    if (memoryPlaces > 0) add(panels(work_.memory, 0), 0, memoryPlaces, nullptr);
    add(panels(work_.context, context.begin), placeOf(block, context.begin), context.count(),
        memoryPlaces > 0 ? out : nullptr);
  });
}

/** Hides the places [from, to) of a row. */
MEMORY3_INLINE void hide(float* row, int64_t from, int64_t to, float hidden) {
  for (int64_t j = from; j < to; j++) row[j] = hidden;
}

MEMORY3_INLINE void hideUnseen(float* row, int64_t index, const Visible& visible, float hidden) {
  hide(row, visible.memoryKeys, visible.memoryPlaces, hidden);
  const int64_t context = visible.memoryPlaces - visible.contextBegin;
  if (visible.first) hide(row, visible.memoryPlaces, context + visible.first[index], hidden);
  hide(row, context + visible.seen + index, visible.extent, hidden);
}

/** Scores to exponentials relative to the largest of the row. Gives the sums and the largest. */
MEMORY3_VECTORISED static void exponentiateRows(float* scores, int64_t rows, int64_t stride, Visible visible,
                                                float* sums, float* largest) {
  for (int64_t row = 0; row < rows; row++, scores += stride) {
    hideUnseen(scores, row, visible, HIDDEN);
    largest[row] = largestOf(scores, sixteens(visible.extent));
    sums[row] = expInPlace(scores, sixteens(visible.extent), largest[row]);
  }
}

MEMORY3_VECTORISED static void divideRows(float* x, const float* sums, int64_t rows, int64_t width) {
  for (int64_t row = 0; row < rows; row++, x += width) {
    const float inverse = 1.0f / sums[row];
#pragma omp simd
    for (int64_t i = 0; i < width; i++) x[i] *= inverse;
  }
}

void Task::forward(const Block& block, const AttentionOutputs& out) {
  findSlots(block);
  packMemories();
  const int64_t rows = rowsOf(block);
  work_.sums.resize(2 * rows);
  float* sums = work_.sums.data();
  float* largest = sums + rows;
  packRows(block, in_.q.data, scale(), work_.queries);
  score(block, work_.queries, false, work_.scores);
  forStrips(block, [&](int64_t row, int64_t count, Keys keys) {
    exponentiateRows(work_.scores + row * work_.stride, count, work_.stride, visibleTo(block, row, count, keys),
                     sums + row, largest + row);
  });
  combine(block, work_.scores, false, work_.output);
  divideRows(work_.output, sums, rows, paddedDim());
  unpackRows(block, work_.output, 1, out.out.data);
  for (int64_t row = 0; row < rows; row++) {
    out.lse.data[lseAt(row / block.tokens()) + block.begin + row % block.tokens()] = largest[row] + std::log(sums[row]);
  }
  if (s_.slots > 0) writeShares(block, out.share.data);
}

MEMORY3_VECTORISED static void scaleRow(const float* from, float factor, int64_t count, float* to) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) to[i] = from[i] * factor;
}

MEMORY3_VECTORISED static float exponentiateRow(float* scores, int64_t count, float* largest) {
  *largest = largestOf(scores, count);
  return expInPlace(scores, count, *largest);
}

/** The same for the few queries of a decoding step: the query heads of a token are the rows. */
void Task::forwardFew(const Block& block, const AttentionOutputs& out) {
  findSlots(block);
  work_.memory.places = memoryKeyCount();
  work_.sums.resize(rowsOf(block));
  const int64_t group = s_.group();
  for (int64_t token = 0; token < block.tokens(); token++) {
    const int64_t first = firstSeenBy(block.begin + token);
    const int64_t seen = block.begin + token + s_.keyTokens - s_.tokens + 1 - first;
    const int64_t contextFrom = contextAt() + first * contextStride();
    const int64_t at = s_.rowAt(b_, block.begin + token, kvHead_ * group);
    scaleRow(in_.q.data + at, scale(), group * s_.dim, work_.queries);
    float* scores = work_.scores + token * work_.stride;
    const int64_t rowStep = block.tokens() * work_.stride;
    const auto score = [&](const float* keys, int64_t stride, int64_t place, int64_t count) {
      tiles_.dots(group, work_.queries, s_.dim, keys, stride, s_.dim, {scores + place, rowStep, count, nullptr});
    };
    for (const Slot& slot : work_.slots) score(in_.memoryKeys.data + memoryAt(slot), s_.dim, slot.offset, slot.count);
    score(in_.k.data + contextFrom, contextStride(), memoryKeyCount(), seen);
    for (int64_t g = 0; g < group; g++) {
      float largest;
      float& sum = work_.sums[g * block.tokens() + token];
      sum = exponentiateRow(scores + g * rowStep, memoryKeyCount() + seen, &largest);
      out.lse.data[lseAt(g) + block.begin + token] = largest + std::log(sum);
    }
    float* to = out.out.data + at;
    std::fill(to, to + group * s_.dim, 0.0f);
    for (const Slot& slot : work_.slots) {
      addValues(scores + slot.offset, rowStep, in_.memoryValues.data + memoryAt(slot), s_.dim, slot.count, to);
    }
    addValues(scores + memoryKeyCount(), rowStep, in_.v.data + contextFrom, contextStride(), seen, to);
    for (int64_t g = 0; g < group; g++) divideRows(to + g * s_.dim, &work_.sums[g * block.tokens() + token], 1, s_.dim);
  }
  if (s_.slots > 0) writeShares(block, out.share.data);
}

/** Adds values as they lie, weighted, to one row for each query head. */
void Task::addValues(const float* weights, int64_t weightStep, const float* values, int64_t stride, int64_t count,
                     float* to) const {
  // Whole panels are read where they lie; the rest of a row is copied, since behind it may be the end of the array.
  const int64_t whole = s_.dim / PANEL * PANEL;
  const auto add = [&](Panels panels, int64_t column, int64_t columns) {
    for (int64_t g = 0; g < s_.group(); g += STRIP_ROWS) {
      float* own = to + g * s_.dim + column;
      tiles_.strip(std::min(STRIP_ROWS, s_.group() - g), {weights + g * weightStep, weightStep, 1}, panels, count,
                   {own, s_.dim, columns, own});
    }
  };
  if (whole > 0) add({values, PANEL, stride}, 0, whole);
  if (whole == s_.dim) return;
  packColumns(values + whole, stride, count, s_.dim - whole, 0, count, work_.rest);
  add({work_.rest, 0}, whole, s_.dim - whole);
}

/** Attention mass on each slot; the slots without tokens keep the zeros that are there. */
void Task::writeShares(const Block& block, float* share) const {
  for (const Slot& slot : work_.slots) {
    const float* row = work_.scores + slot.offset;
    const float* sum = work_.sums.data();
    for (int64_t g = 0; g < s_.group(); g++) {
      for (int64_t token = block.begin; token < block.end; token++, row += work_.stride, sum++) {
        float mass = 0;
        for (int64_t j = 0; j < slot.count; j++) mass += row[j];
        share[((b_ * s_.tokens + token) * s_.heads + kvHead_ * s_.group() + g) * s_.slots + slot.slot] = mass / *sum;
      }
    }
  }
}

/**
 * Scores to probabilities p, and the gradients of p to those of the scores, p ∘ (dp − radial), where radial is the product
 * of the output with its gradient. Both are 0 from the end of the strip to the end of the block.
 */
MEMORY3_VECTORISED static void scoreGradRows(float* scores, float* dScores, int64_t rows, int64_t stride,
                                             Visible visible, int64_t end, const float* lse, const float* output,
                                             const float* dOutput, int64_t dim) {
  for (int64_t row = 0; row < rows; row++, scores += stride, dScores += stride) {
    hideUnseen(scores, row, visible, HIDDEN);
    hideUnseen(dScores, row, visible, 0);
    const float radial = dot(output + row * dim, dOutput + row * dim, dim);
    const float normaliser = lse[row];
#pragma omp simd
    for (int64_t j = 0; j < sixteens(visible.extent); j++) {
      scores[j] = fastExp(scores[j] - normaliser);
      dScores[j] = scores[j] * (dScores[j] - radial);
    }
    hide(scores, visible.extent, end, 0);
    hide(dScores, visible.extent, end, 0);
  }
}

void Task::backward(const Block& block, const AttentionGradients& out) {
  findSlots(block);
  packMemories();
  packRows(block, in_.q.data, scale(), work_.queries);
  packRows(block, out.dy.data, 1, work_.dOutput);
  packRows(block, out.out.data, 1, work_.output);
  score(block, work_.queries, false, work_.scores);
  score(block, work_.dOutput, true, work_.dScores);
  const int64_t end = extent(block, contextOf(block).end);
  forStrips(block, [&](int64_t row, int64_t count, Keys keys) {
    const float* lse = out.lse.data + lseAt(row / block.tokens()) + block.begin + row % block.tokens();
    scoreGradRows(work_.scores + row * work_.stride, work_.dScores + row * work_.stride, count, work_.stride,
                  visibleTo(block, row, count, keys), end, lse, work_.output + row * paddedDim(),
                  work_.dOutput + row * paddedDim(), paddedDim());
  });
  // The packed output has done its duty; its place takes the gradient of the queries.
  combine(block, work_.dScores, true, work_.output);
  unpackRows(block, work_.output, scale(), out.dq.data);
  addKeyGradients(block, out);
}

void Task::addKeyGradients(const Block& block, const AttentionGradients& out) {
  const int64_t rows = rowsOf(block);
  // For each of `keys` keys the sum over rows of its weight times the row, added to `to`.
  const auto spread = [&](const float* weights, int64_t keys, const float* x, float* to, int64_t toStride) {
    for (int64_t key = 0; key < keys; key += STRIP_ROWS) {
      float* own = to + key * toStride;
      tiles_.strip(std::min(STRIP_ROWS, keys - key), {weights + key, 1, work_.stride}, {x, PANEL, paddedDim()}, rows,
                   {own, toStride, s_.dim, own});
    }
  };
  const int64_t places = work_.memory.places;
  const Keys keys = contextOf(block);
  const int64_t at = contextAt() + keys.begin * contextStride();
  spread(work_.dScores + places, keys.count(), work_.queries, out.dk.data + at, contextStride());
  spread(work_.scores + places, keys.count(), work_.dOutput, out.dv.data + at, contextStride());
  if (!work_.dMemories || places == 0) return;
  float* dKeys = work_.dMemoryRows;
  float* dValues = dKeys + places * s_.dim;
  std::fill(dKeys, dKeys + 2 * places * s_.dim, 0.0f);
  spread(work_.dScores, memoryKeyCount(), work_.queries, dKeys, s_.dim);
  spread(work_.scores, memoryKeyCount(), work_.dOutput, dValues, s_.dim);
  addSlotGradients();
}

void Task::addSlotGradients() {
  const float* dKeys = work_.dMemoryRows;
  const float* dValues = dKeys + work_.memory.places * s_.dim;
  for (const Slot& slot : work_.slots) {
    float* keys = work_.dMemories + memoryAt(slot);
    float* values = keys + in_.memoryKeys.size;
    for (int64_t i = 0; i < slot.count * s_.dim; i++) {
      keys[i] += dKeys[slot.offset * s_.dim + i];
      values[i] += dValues[slot.offset * s_.dim + i];
    }
  }
}

/** How a call is cut into parts, each with a scratch of its own; sizes by the largest block. */
struct Plan {
  const AttentionInputs& in;
  bool backward;
  bool memoryGradients;
  std::vector<Block> blocks;
  int64_t rows = 0;
  int parts;
  int64_t floatsPerPart;
  float* scratch;

  Plan(Context& context, const AttentionInputs& inputs, bool isBackward, bool wantsMemories)
      : in(inputs), backward(isBackward), memoryGradients(wantsMemories), blocks(blocksOf(inputs)) {
    const AttentionShape& s = in.shape;
    for (const Block& block : blocks) rows = std::max(rows, block.tokens() * s.group());
    const double work = static_cast<double>(s.batch) * s.heads * s.tokens * (s.slots * s.kept + s.keyTokens) * s.dim / 4;
    parts = static_cast<int>(std::min<int64_t>(partsFor(context, work), s.batch * s.kvHeads));
    Dealer counter{nullptr};
    deal(counter);
    floatsPerPart = counter.used;
    scratch = context.scratch.floats(parts * floatsPerPart);
  }

  bool few() const { return !backward && rows <= FEW_ROWS; }

  float* dMemories(int part) const { return scratch + part * floatsPerPart; }

  Workspace workspace(int part) const {
    Dealer dealer{scratch + part * floatsPerPart};
    Workspace work = deal(dealer);
    if (work.dMemories) std::memset(work.dMemories, 0, 2 * in.memoryKeys.size * sizeof(float));
    return work;
  }

  /** Calls `run(task, block)` for all tasks and blocks. */
  template <class Run>
  void forAll(const Context& context, const Run& run) const {
    context.pool->run(parts, [&](int part) {
      Workspace work = workspace(part);
      const Range own = partOf(in.shape.batch * in.shape.kvHeads, part, parts);
      for (int64_t n = own.begin; n < own.end; n++) {
        Task task(*context.tiles, in, n / in.shape.kvHeads, n % in.shape.kvHeads, work, backward);
        if (!few()) task.packContext();
        for (const Block& block : blocks) run(task, block);
      }
    });
  }

 private:
  Workspace deal(Dealer& dealer) const {
    const AttentionShape& s = in.shape;
    const int64_t memoryPlaces = padded(s.slots * s.kept);
    const int64_t dim = padded(s.dim);
    Workspace work;
    // The first, so that the parts can be added up.
    float* dMemories = dealer.take(memoryGradients ? 2 * in.memoryKeys.size : 0);
    work.dMemories = memoryGradients ? dMemories : nullptr;
    // An odd number of cache lines: rows of a column then lie in different sets of the cache.
    work.stride = memoryPlaces + padded(s.keyTokens);
    if (work.stride / PANEL % 2 == 0) work.stride += PANEL;
    for (float** x : {&work.queries, &work.output, &work.dOutput}) *x = dealer.take(rows * dim);
    work.scores = dealer.take(rows * work.stride);
    work.dScores = backward ? dealer.take(rows * work.stride) : nullptr;
    work.dMemoryRows = memoryGradients ? dealer.take(2 * memoryPlaces * s.dim) : nullptr;
    const auto take = [&](Packed& packed, int64_t places) {
      packed.keysTransposed = dealer.take(places * s.dim);
      (backward ? packed.valuesTransposed : packed.valueColumns) = dealer.take(places * dim);
      if (backward) packed.keyColumns = dealer.take(places * dim);
    };
    if (few()) {
      work.rest = dealer.take(std::max(s.keyTokens, s.kept) * PANEL);
      return work;
    }
    take(work.memory, memoryPlaces);
    take(work.context, padded(s.keyTokens));
    return work;
  }
};

void attend(Context& context, const AttentionInputs& in, const AttentionOutputs& out) {
  std::fill(out.share.data, out.share.data + out.share.size, 0.0f);
  const Plan plan(context, in, false, false);
  plan.forAll(context, [&](Task& task, const Block& block) {
    if (plan.few()) {
      task.forwardFew(block, out);
    } else {
      task.forward(block, out);
    }
  });
}

void attendGrad(Context& context, const AttentionInputs& in, const AttentionGradients& out) {
  std::memset(out.dk.data, 0, out.dk.size * sizeof(float));
  std::memset(out.dv.data, 0, out.dv.size * sizeof(float));
  const bool memoryGradients = out.dMemoryKeys.size > 0;
  const Plan plan(context, in, true, memoryGradients);
  plan.forAll(context, [&](Task& task, const Block& block) { task.backward(block, out); });
  if (!memoryGradients) return;
  const int64_t size = in.memoryKeys.size;
  parallelRanges(context, partsFor(context, 2.0 * plan.parts * size), size, [&](Range own) {
    const float* keys = plan.dMemories(0) + own.begin;
    sumParts(keys, plan.floatsPerPart, plan.parts, own.size(), out.dMemoryKeys.data + own.begin);
    sumParts(keys + size, plan.floatsPerPart, plan.parts, own.size(), out.dMemoryValues.data + own.begin);
  });
}

// What JavaScript calls: the shape as one array of numbers.

static AttentionShape shapeFrom(Numbers n) {
  expectSize("Attention: shape", static_cast<int64_t>(n.size()), 12);
  return {n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], n[8], n[9], n[10], n[11]};
}

static void expectFirstVisible(const AttentionInputs& in) {
  const AttentionShape& s = in.shape;
  if (in.firstVisible.size == 0) return;
  expectSize("Attention: firstVisible", in.firstVisible.size, s.batch * s.tokens);
  for (int64_t i = 0; i < in.firstVisible.size; i++) {
    const int64_t token = i % s.tokens, before = token == 0 ? 0 : in.firstVisible.data[i - 1];
    expect(in.firstVisible.data[i] >= before, "Attention: firstVisible is negative or falls in a row");
    expect(in.firstVisible.data[i] <= token + s.keyTokens - s.tokens, "Attention: a token that does not see itself");
  }
}

static void expectInputs(const AttentionInputs& in) {
  const AttentionShape& s = in.shape;
  expect(s.batch > 0 && s.tokens > 0 && s.keyTokens >= s.tokens && s.dim > 0, "Attention: an empty or impossible shape");
  expect(s.kvHeads > 0 && s.heads > 0 && s.heads % s.kvHeads == 0,
         "Attention: the key-value heads do not divide the heads");
  expectSize("Attention: q", in.q.size, s.batch * s.tokens * s.heads * s.dim);
  expect(s.room >= s.keyTokens, "Attention: more key tokens than there is room for");
  expectSize("Attention: k", in.k.size, s.batch * s.room * s.kvHeads * s.dim);
  expectSize("Attention: v", in.v.size, in.k.size);
  expectSize("Attention: memoryKeys", in.memoryKeys.size, in.lengths.size * s.kvHeads * s.kept * s.dim);
  expectSize("Attention: memoryValues", in.memoryValues.size, in.memoryKeys.size);
  expectSize("Attention: index", in.index.size, s.batch * s.chunks * s.slots);
  expectFirstVisible(in);
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
               Ints index, Ints firstVisible, Numbers shape, FloatsOut out, FloatsOut share, FloatsOut lse) {
  const AttentionInputs in{shapeFrom(shape), q, k, v, memoryKeys, memoryValues, lengths, index, firstVisible};
  expectInputs(in);
  const AttentionShape& s = in.shape;
  expectSize("Attention: out", out.size, q.size);
  expectSize("Attention: share", share.size, s.batch * s.tokens * s.heads * s.slots);
  expectSize("Attention: lse", lse.size, s.batch * s.heads * s.tokens);
  attend(context, in, {out, share, lse});
}

void attentionGrad(Context& context, Floats q, Floats k, Floats v, Floats memoryKeys, Floats memoryValues, Ints lengths,
                   Ints index, Ints firstVisible, Numbers shape, Floats dy, Floats out, Floats lse, FloatsOut dq,
                   FloatsOut dk, FloatsOut dv, FloatsOut dMemoryKeys, FloatsOut dMemoryValues) {
  const AttentionInputs in{shapeFrom(shape), q, k, v, memoryKeys, memoryValues, lengths, index, firstVisible};
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
