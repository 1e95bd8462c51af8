/** `UnpackMemories`. A stored memory is [Lmem, keys and values, K · S · D], float32, float16 or bfloat16. */

#include <cstring>

#include "kernels.h"

namespace memory3 {

static MEMORY3_INLINE float fromBits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

MEMORY3_VECTORISED static void unpackBfloat16(const uint16_t* from, int64_t count, float* to) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) to[i] = fromBits(uint32_t{from[i]} << 16);
}

/** Numbers below 2^-14 have no hidden bit: one is added and subtracted again. No step meets a denormal float32. */
MEMORY3_VECTORISED static void unpackFloat16(const uint16_t* from, int64_t count, float* to) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) {
    const uint32_t magnitude = from[i] & 0x7fffu;
    const uint32_t sign = (from[i] & 0x8000u) << 16;
    const uint32_t normal = (magnitude << 13) + (112u << 23);
    const float smallValue = fromBits(normal + (1u << 23)) - fromBits(113u << 23);
    uint32_t small;
    std::memcpy(&small, &smallValue, sizeof small);
    const uint32_t special = (magnitude << 13) | 0x7f800000u;
    const uint32_t bits = magnitude >= 0x7c00u ? special : magnitude >= 0x400u ? normal : small;
    to[i] = fromBits(bits | sign);
  }
}

static void unpackNumbers(StorageType type, const uint8_t* from, int64_t count, float* to) {
  switch (type) {
    case StorageType::float32: std::memcpy(to, from, count * sizeof(float)); return;
    case StorageType::float16: return unpackFloat16(reinterpret_cast<const uint16_t*>(from), count, to);
    case StorageType::bfloat16: return unpackBfloat16(reinterpret_cast<const uint16_t*>(from), count, to);
  }
}

void unpackMemories(Context& context, Ints rows, int64_t type, int64_t memories, FloatsOutList parts) {
  expect(type >= 0 && type <= 2, "UnpackMemories: unknown storage type");
  const auto storage = static_cast<StorageType>(type);
  const int64_t width = storage == StorageType::float32 ? 4 : 2;
  const int64_t count = parts.size();
  if (memories == 0 || count == 0) return;
  const int64_t size = parts[0].size / memories;
  for (const FloatsOut& part : parts) expectSize("UnpackMemories: part", part.size, memories * size);
  expectSize("UnpackMemories: bytes of rows", rows.size * 4, memories * count * size * width);
  const auto* bytes = reinterpret_cast<const uint8_t*>(rows.data);
  parallelRanges(context, partsFor(context, memories * count * size), memories * count, [&](Range range) {
    for (int64_t i = range.begin; i < range.end; i++) {
      unpackNumbers(storage, bytes + i * size * width, size, parts[i % count].data + i / count * size);
    }
  });
}

}  // namespace memory3
