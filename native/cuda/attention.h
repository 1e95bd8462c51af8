/**
 * Shapes and arrays of attention, and its kernels by what they are good for. Legend: B batch, T query tokens, Tk context
 * tokens, H query heads, K key-value heads, G = H/K, D headDim, M memories, S kept tokens per memory, C chunks, R memory
 * slots per chunk. The operation is described in src/ops/attention.ts.
 */
#pragma once

#include "context.h"

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
  int64_t room;      // tokens that k and v hold, the first Tk of them real
  int64_t memories;  // M

  __host__ __device__ int64_t group() const { return heads / kvHeads; }
};

/** What kernels read. */
template <class T>
struct AttentionInputs {
  AttentionShape shape;
  const T* q;                   // [B, T, H, D]
  const T* k;                   // [B, room, K, D]
  const T* v;                   // [B, room, K, D]
  const T* memoryKeys;          // [M, K, S, D]
  const T* memoryValues;        // [M, K, S, D]
  const int32_t* lengths;       // [M]
  const int32_t* index;         // [B, C, R], negative for an empty slot
  const int32_t* firstVisible;  // [B, T], first key of the context that a query sees, rising in a row; or null
};

template <class T>
struct AttentionOutputs {
  T* out;        // [B, T, H, D]
  float* share;  // [B, T, H, R]
  float* lse;    // natural logarithm of the softmax's normaliser, [B, H, T]
};

template <class T>
struct AttentionGradients {
  const T* dy;       // [B, T, H, D]
  const T* out;      // [B, T, H, D]
  const float* lse;  // [B, H, T]
  T* dq;
  T* dk;
  T* dv;
  T* dMemoryKeys;  // null when not wanted
  T* dMemoryValues;
};

// attention_plain.cu: any head dimension, float32 or bfloat16, one warp a row; the reference for the others.
template <class T>
void attendPlain(Context& context, const AttentionInputs<T>& in, const AttentionOutputs<T>& out);
template <class T>
void attendPlainGrad(Context& context, const AttentionInputs<T>& in, const AttentionGradients<T>& out);

/** Whether the tensor cores take this head dimension: multiples of 16 up to 128. */
constexpr bool hasTiles(int64_t dim) { return dim % 16 == 0 && dim >= 16 && dim <= 128; }

// attention_forward.cu, attention_backward.cu: tiles on tensor cores, for training.
void attendTiles(Context& context, const AttentionInputs<Bf16>& in, const AttentionOutputs<Bf16>& out);
void attendTilesGrad(Context& context, const AttentionInputs<Bf16>& in, const AttentionGradients<Bf16>& out);

/** Queries up to which attendDecode is the better one. */
constexpr int64_t kMostDecodedTokens = 8;

// attention_decode.cu: a few query tokens over a long cache, cut into parts that blocks read side by side.
void attendDecode(Context& context, const AttentionInputs<Bf16>& in, const AttentionOutputs<Bf16>& out);

}  // namespace memory3
