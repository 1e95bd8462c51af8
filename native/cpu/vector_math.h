/** Elementary functions that the compiler can vectorise. */
#pragma once

#include <cstring>

#include "common.h"

namespace memory3 {

/**
 * e^x to 2 ulp: x = n·ln 2 + r, a polynomial for e^r (the coefficients of Cephes), times 2^n by its bits. Arguments below
 * −87.7 give 0 (n = −127, whose bits are those of 0), above 88 about 1.7e38; a NaN stays one.
 */
MEMORY3_INLINE float fastExp(float x) {
  const float bounded = x < -88.0f ? -88.0f : x;
  const float clamped = bounded > 88.0f ? 88.0f : bounded;
  // Adding 1.5·2^23 rounds to an integer, which then stands in the low bits of the sum.
  const float shifted = clamped * 1.44269504f + 12582912.0f;
  const float n = shifted - 12582912.0f;
  const float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const float value = p * (r * r) + (r + 1.0f);
  int32_t bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  const int32_t exponent = static_cast<int32_t>((static_cast<uint32_t>(bits) - 0x4B400000u + 127u) << 23);
  float power;
  std::memcpy(&power, &exponent, sizeof power);
  return value * power;
}

MEMORY3_INLINE float sigmoid(float x) { return 1.0f / (1.0f + fastExp(-x)); }

/** Cuts a count that is a multiple of 16 so that the compiler knows it is: vector loops then need no tail. */
MEMORY3_INLINE int64_t sixteens(int64_t count) { return count & ~int64_t{15}; }

// Sums of short rows. A reduction by the compiler adds the lanes of its last vector one after the other, 60 cycles that a
// row of a few vectors cannot hide; here they are added in pairs. Likewise the largest, which Clang would not vectorise.

using Lanes16 = float __attribute__((vector_size(64)));
using Lanes8 = float __attribute__((vector_size(32)));
using Lanes4 = float __attribute__((vector_size(16)));

template <class Vector>
MEMORY3_INLINE void load(const void* from, Vector& to) {
  std::memcpy(&to, from, sizeof to);
}

/** Sums lanes until four are left. */
MEMORY3_INLINE Lanes4 foldToFour(const Lanes4& lanes) { return lanes; }

MEMORY3_INLINE Lanes4 foldToFour(const Lanes8& lanes) {
  Lanes4 low, high;
  load(&lanes, low);
  load(reinterpret_cast<const char*>(&lanes) + sizeof low, high);
  return low + high;
}

MEMORY3_INLINE Lanes4 foldToFour(const Lanes16& lanes) {
  Lanes8 low, high;
  load(&lanes, low);
  load(reinterpret_cast<const char*>(&lanes) + sizeof low, high);
  return foldToFour(low + high);
}

template <class Vector>
MEMORY3_INLINE float sumOfLanes(const Vector& lanes) {
  const Lanes4 four = foldToFour(lanes);
  return (four[0] + four[2]) + (four[1] + four[3]);
}

MEMORY3_INLINE float sumOf(const float* row, int64_t count) {
  Lanes16 sums = {}, next;
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    load(row + i, next);
    sums += next;
  }
  float sum = sumOfLanes(sums);
  for (; i < count; i++) sum += row[i];
  return sum;
}

MEMORY3_INLINE float dot(const float* a, const float* b, int64_t count) {
  Lanes16 sums = {}, left, right;
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    load(a + i, left);
    load(b + i, right);
    sums += left * right;
  }
  float sum = sumOfLanes(sums);
  for (; i < count; i++) sum += a[i] * b[i];
  return sum;
}

template <class Value>
MEMORY3_INLINE Value larger(const Value& a, const Value& b) {
  return a > b ? a : b;
}

/** The largest of `row`; `count` > 0. */
MEMORY3_INLINE float largestOf(const float* row, int64_t count) {
  float largest = row[0];
  int64_t i = 0;
  if (count >= 16) {
    Lanes16 lanes, next;
    load(row, lanes);
    for (i = 16; i + 16 <= count; i += 16) {
      load(row + i, next);
      lanes = next > lanes ? next : lanes;
    }
    Lanes4 fours[4];
    load(&lanes, fours);
    const Lanes4 four = larger(larger(fours[0], fours[1]), larger(fours[2], fours[3]));
    largest = larger(larger(four[0], four[1]), larger(four[2], four[3]));
  }
  for (; i < count; i++) largest = larger(row[i], largest);
  return largest;
}

/** Replaces `row` by e^(x − shift). @returns their sum */
MEMORY3_INLINE float expInPlace(float* row, int64_t count, float shift) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) row[i] = fastExp(row[i] - shift);
  return sumOf(row, count);
}

}  // namespace memory3
