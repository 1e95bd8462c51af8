/**
 * Shapes and arrays of attention. Legend: B batch, T query tokens, Tk context tokens, H query heads, K key-value heads,
 * D headDim, M memories, S kept tokens per memory, C chunks, R memory slots per chunk.
 */
#pragma once

#include <vector>

#include "common.h"

namespace memory3 {

struct AttentionShape {
  int64_t batch;
  int64_t tokens;     // T
  int64_t keyTokens;  // Tk
  int64_t heads;      // H
  int64_t kvHeads;    // K
  int64_t dim;        // D
  int64_t kept;       // S
  int64_t chunks;     // C
  int64_t slots;      // R, 0 without memories
  int64_t start;      // first query that belongs to a chunk
  int64_t chunkLength;
  int64_t room;  // tokens that k and v hold, the first Tk of them real

  int64_t group() const { return heads / kvHeads; }
  int64_t rowAt(int64_t b, int64_t token, int64_t head) const { return ((b * tokens + token) * heads + head) * dim; }
};

struct AttentionInputs {
  AttentionShape shape;
  Floats q;             // [B, T, H, D]
  Floats k;             // [B, room, K, D]
  Floats v;             // [B, room, K, D]
  Floats memoryKeys;    // [M, K, S, D]
  Floats memoryValues;  // [M, K, S, D]
  Ints lengths;         // [M]
  Ints index;           // [B, C, R], negative for an empty slot
  Ints firstVisible;    // [B, T], first key of the context that a query sees, rising in a row; empty: all from the start
};

struct AttentionOutputs {
  FloatsOut out;    // [B, T, H, D]
  FloatsOut share;  // [B, T, H, R]
  FloatsOut lse;    // logarithm of the softmax's normaliser, [B, H, T]
};

struct AttentionGradients {
  Floats dy;
  Floats out;
  Floats lse;
  FloatsOut dq;
  FloatsOut dk;
  FloatsOut dv;
  FloatsOut dMemoryKeys;  // empty when not wanted
  FloatsOut dMemoryValues;
};

}  // namespace memory3
