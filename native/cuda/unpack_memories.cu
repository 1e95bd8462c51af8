/**
 * Stored memories to the tensors that attention reads. A stored memory is [layers, keys and values, K·S·D] numbers, float32,
 * float16 or bfloat16; each of the 2·layers parts becomes a tensor [memories, K, S, D] of its own. Each number is read and
 * written once. One launch has up to kMostParts parts: their addresses travel with the arguments.
 */

#include "elements.cuh"
#include "kernels.h"

namespace memory3 {
namespace {

struct Float16 {
  uint16_t bits;
};

/** Numbers below 2^-14 have no hidden bit: one is added and subtracted again. */
__host__ __device__ float toFloat(Float16 x) {
  const uint32_t magnitude = x.bits & 0x7fffu, sign = (x.bits & 0x8000u) << 16;
  const uint32_t normal = (magnitude << 13) + (112u << 23);
  const auto bitsOf = [](float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
  };
  const auto floatOf = [](uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
  };
  const uint32_t small = bitsOf(floatOf(normal + (1u << 23)) - floatOf(113u << 23));
  const uint32_t special = magnitude << 13 | 0x7f800000u;
  return floatOf((magnitude >= 0x7c00u ? special : magnitude >= 0x400u ? normal : small) | sign);
}

constexpr int kMostParts = 128;

template <class To>
struct Parts {
  To* at[kMostParts];
};

/** Rows are numbered [memory, part of this launch]. */
template <class From, class To>
struct RowOfPart {
  const From* stored;   // the first part of this launch of the first memory
  int64_t memoryStride;  // numbers of a memory
  uint32_t count;       // parts of this launch
  int64_t size;
  Parts<To> parts;
  __device__ Move<From, To> operator()(uint32_t row) const {
    const uint32_t memory = row / count, part = row % count;
    return {stored + memory * memoryStride + part * size, parts.at[part] + memory * size};
  }
};

template <class From, class To>
void unpackSome(Context& context, const From* stored, int64_t memories, int64_t memoryStride, int64_t size,
                const Tensor* first, int64_t count) {
  RowOfPart<From, To> row{stored, memoryStride, static_cast<uint32_t>(count), size, {}};
  bool vectors = size % kGroup == 0 && aligned(stored);
  for (int64_t part = 0; part < count; part++) {
    row.parts.at[part] = first[part].as<To>();
    vectors = vectors && aligned(row.parts.at[part]);
  }
  moveRows<From, To>(context, row, memories * count, size, vectors);
}

template <class From>
void unpackAll(Context& context, const Tensor& rows, int64_t memories, TensorList parts, int64_t size) {
  const auto* stored = reinterpret_cast<const From*>(rows.as<int32_t>());
  const auto count = static_cast<int64_t>(parts.size());
  withType(parts[0].type(), [&](auto type) {
    for (int64_t part = 0; part < count; part += kMostParts) {
      unpackSome<From, decltype(type)>(context, stored + part * size, memories, count * size, size, &parts[part],
                                       std::min<int64_t>(kMostParts, count - part));
    }
  });
}

}  // namespace

void unpackMemories(Context& context, Tensor rows, int64_t type, int64_t memories, TensorList parts) {
  expect(type >= 0 && type <= 2, "unpackMemories: unknown storage type");
  if (memories == 0 || parts.empty()) return;
  const auto count = static_cast<int64_t>(parts.size());
  const int64_t size = parts[0].count / memories;
  for (const Tensor& part : parts) {
    expect(part.count == memories * size, "unpackMemories: a part has another size");
    expect(part.empty() || part.type() == parts[0].type(), "unpackMemories: parts differ in storage");
    Context::touch(part);
  }
  expect(rows.count * 4 == memories * count * size * (type == 0 ? 4 : 2), "unpackMemories: rows have another size");
  if (size == 0) return;
  switch (type) {
    case 0: return unpackAll<float>(context, rows, memories, parts, size);
    case 1: return unpackAll<Float16>(context, rows, memories, parts, size);
    default: return unpackAll<Bf16>(context, rows, memories, parts, size);
  }
}

}  // namespace memory3
