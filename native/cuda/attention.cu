/** Attention as JavaScript calls it: sizes are checked, indices are checked on the device, and a kernel is chosen. */

#include "attention.h"

#include "kernels.h"

namespace memory3 {
namespace {

AttentionShape shapeFrom(Numbers n, const Tensor& lengths) {
  expect(n.size() == 12, "Attention: the shape has 12 numbers");
  return {n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], n[8], n[9], n[10], n[11], lengths.count};
}

void expectSize(const char* what, int64_t size, int64_t expected) {
  if (size == expected) return;
  throw std::invalid_argument(std::string("Attention: ") + what + " has " + std::to_string(size) + " elements, not " +
                              std::to_string(expected));
}

/** Raises what does not fit: a memory that is not there, one longer than it is kept, a query that sees what it may not. */
__global__ void checkIndicesKernel(AttentionShape s, const int32_t* lengths, const int32_t* index,
                                   const int32_t* firstVisible, Fault* fault) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (s.slots > 0) {
    for (int64_t m = first; m < s.memories; m += step) {
      if (lengths[m] < 0 || lengths[m] > s.kept) raise(fault, kLengthOutOfRange, lengths[m], static_cast<int32_t>(s.kept));
    }
    for (int64_t i = first; i < s.batch * s.chunks * s.slots; i += step) {
      if (index[i] >= s.memories) raise(fault, kIndexOutOfRange, index[i], static_cast<int32_t>(s.memories));
    }
  }
  if (firstVisible == nullptr) return;
  for (int64_t i = first; i < s.batch * s.tokens; i += step) {
    const int64_t token = i % s.tokens, last = token + s.keyTokens - s.tokens;
    const int32_t before = token == 0 ? 0 : firstVisible[i - 1];
    if (firstVisible[i] < before || firstVisible[i] > last) {
      raise(fault, kVisibleOutOfRange, firstVisible[i], static_cast<int32_t>(last));
    }
  }
}

/** The tensors that all kernels read; their operands must live as long as this is used. */
template <class T>
struct Inputs {
  Operand<T> q, k, v, memoryKeys, memoryValues;
  AttentionInputs<T> in;

  Inputs(Context& context, const AttentionShape& s, Tensor q_, Tensor k_, Tensor v_, Tensor memoryKeys_,
         Tensor memoryValues_, Tensor lengths, Tensor index, Tensor firstVisible)
      : q(context, q_), k(context, k_), v(context, v_), memoryKeys(context, memoryKeys_),
        memoryValues(context, memoryValues_),
        in{s, q.data(), k.data(), v.data(), memoryKeys.data(), memoryValues.data(), lengths.as<int32_t>(),
           index.as<int32_t>(), firstVisible.as<int32_t>()} {}
};

AttentionShape checked(Context& context, Tensor q, Tensor k, Tensor v, Tensor memoryKeys, Tensor memoryValues,
                       Tensor lengths, Tensor index, Tensor firstVisible, Numbers shape) {
  const AttentionShape s = shapeFrom(shape, lengths);
  expect(s.batch > 0 && s.tokens > 0 && s.keyTokens >= s.tokens && s.dim > 0, "Attention: an empty or impossible shape");
  expect(s.kvHeads > 0 && s.heads > 0 && s.heads % s.kvHeads == 0,
         "Attention: the key-value heads do not divide the heads");
  expect(s.room >= s.keyTokens, "Attention: more key tokens than there is room for");
  expectSize("q", q.count, s.batch * s.tokens * s.heads * s.dim);
  expectSize("k", k.count, s.batch * s.room * s.kvHeads * s.dim);
  expectSize("v", v.count, k.count);
  expectSize("memoryKeys", memoryKeys.count, s.memories * s.kvHeads * s.kept * s.dim);
  expectSize("memoryValues", memoryValues.count, memoryKeys.count);
  expectSize("index", index.count, s.batch * s.chunks * s.slots);
  if (!firstVisible.empty()) expectSize("firstVisible", firstVisible.count, s.batch * s.tokens);
  if (s.slots > 0) expect(s.chunks > 0 && s.chunkLength > 0 && s.start >= 0, "Attention: an impossible chunk");
  if (s.slots > 0 || !firstVisible.empty()) {
    const auto blocks = static_cast<unsigned>(context.multiprocessors());
    context.launch(checkIndicesKernel, blocks, 256, 0, s, lengths.as<int32_t>(), index.as<int32_t>(),
                   firstVisible.as<int32_t>(), context.fault());
  }
  return s;
}

void expectTiles(const AttentionShape& s) {
  if (hasTiles(s.dim)) return;
  throw std::invalid_argument("Attention: the head dimension " + std::to_string(s.dim) +
                              " is no multiple of 16 up to 128, which bfloat16 needs; use precision: float32, or change "
                              "model.headDim");
}

}  // namespace

void attention(Context& context, Tensor q, Tensor k, Tensor v, Tensor memoryKeys, Tensor memoryValues, Tensor lengths,
               Tensor index, Tensor firstVisible, Numbers shape, Tensor out, Tensor share, Tensor lse) {
  const AttentionShape s =
      checked(context, q, k, v, memoryKeys, memoryValues, lengths, index, firstVisible, shape);
  expectSize("out", out.count, q.count);
  expectSize("share", share.count, s.batch * s.tokens * s.heads * s.slots);
  expectSize("lse", lse.count, s.batch * s.heads * s.tokens);
  withType(out.type(), [&](auto type) {
    using T = decltype(type);
    const Inputs<T> given(context, s, q, k, v, memoryKeys, memoryValues, lengths, index, firstVisible);
    const AttentionOutputs<T> outputs{out.as<T>(), share.as<float>(), lse.as<float>()};
    if constexpr (std::is_same_v<T, Bf16>) {
      expectTiles(s);
      if (s.tokens <= kMostDecodedTokens) return attendDecode(context, given.in, outputs);
      return attendTiles(context, given.in, outputs);
    } else {
      attendPlain(context, given.in, outputs);
    }
  });
}

void attentionGrad(Context& context, Tensor q, Tensor k, Tensor v, Tensor memoryKeys, Tensor memoryValues,
                   Tensor lengths, Tensor index, Tensor firstVisible, Numbers shape, Tensor dy, Tensor out, Tensor lse,
                   Tensor dq, Tensor dk, Tensor dv, Tensor dMemoryKeys, Tensor dMemoryValues) {
  const AttentionShape s =
      checked(context, q, k, v, memoryKeys, memoryValues, lengths, index, firstVisible, shape);
  expectSize("dy", dy.count, q.count);
  expectSize("out", out.count, q.count);
  expectSize("lse", lse.count, s.batch * s.heads * s.tokens);
  expectSize("dq", dq.count, q.count);
  expectSize("dk", dk.count, k.count);
  expectSize("dv", dv.count, v.count);
  if (!dMemoryKeys.empty()) expectSize("dMemoryKeys", dMemoryKeys.count, memoryKeys.count);
  expectSize("dMemoryValues", dMemoryValues.count, dMemoryKeys.count);
  withType(dq.type(), [&](auto type) {
    using T = decltype(type);
    const Inputs<T> given(context, s, q, k, v, memoryKeys, memoryValues, lengths, index, firstVisible);
    const Operand<T> upstream(context, dy), forward(context, out);
    const AttentionGradients<T> gradients{upstream.data(),   forward.data(),  lse.as<float>(),
                                          dq.as<T>(),        dk.as<T>(),      dv.as<T>(),
                                          dMemoryKeys.as<T>(), dMemoryValues.as<T>()};
    if constexpr (std::is_same_v<T, Bf16>) {
      expectTiles(s);
      attendTilesGrad(context, given.in, gradients);
    } else {
      attendPlainGrad(context, given.in, gradients);
    }
  });
}

}  // namespace memory3
