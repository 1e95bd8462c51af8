/**
 * What all kernels share: numbers of 16 bits, sums over warps and blocks, vectors of 16 bytes, and how a kernel says that
 * an index does not fit. Compiled by nvcc, or by a C++ compiler with emulator/ in front of CUDA's headers.
 */
#pragma once

#include <cuda_runtime.h>

#if !defined(MEMORY3_EMULATED)
#include <cuda_bf16.h>
#endif

#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace memory3 {

constexpr int kWarpSize = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

/** bfloat16: the upper half of a float32, rounded to the nearest, ties to even. */
struct Bf16 {
  uint16_t bits;
};

__host__ __device__ inline Bf16 roundToBf16(float x) {
#if defined(__CUDA_ARCH__)
  return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
#else
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>(bits >> 16 | 0x40u)};
  return {static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
#endif
}

__host__ __device__ inline float toFloat(Bf16 x) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(static_cast<uint32_t>(x.bits) << 16);
#else
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float y;
  std::memcpy(&y, &bits, sizeof y);
  return y;
#endif
}
__host__ __device__ inline float toFloat(float x) { return x; }

/** A float32 as a T, float or Bf16. */
template <class T>
__host__ __device__ inline T fromFloat(float x);
template <>
__host__ __device__ inline float fromFloat<float>(float x) {
  return x;
}
template <>
__host__ __device__ inline Bf16 fromFloat<Bf16>(float x) {
  return roundToBf16(x);
}

/** What a kernel found wrong, for the host to read: see Context. The first one stays. */
struct Fault {
  int32_t code;  // FaultCode, 0 when nothing is wrong
  int32_t value;
  int32_t limit;
};

enum FaultCode : int32_t {
  kNoFault = 0,
  kTokenOutOfRange,    // a token id that the embedding has no row for
  kTargetOutOfRange,   // a target that is no token
  kIndexOutOfRange,    // an index of a token or memory that is not there
  kLengthOutOfRange,   // a memory longer than the tokens it keeps
  kVisibleOutOfRange,  // a first visible token behind the query, or one that falls
};

#if defined(__CUDACC__) || defined(MEMORY3_EMULATED)

/** Two numbers as bfloat16 in one word, `low` in its lower half, as the tensor cores want them. */
__device__ inline uint32_t packBf16(float low, float high) {
#if defined(__CUDA_ARCH__)
  const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
  return static_cast<uint32_t>(__bfloat16_as_ushort(both.x)) |
         static_cast<uint32_t>(__bfloat16_as_ushort(both.y)) << 16;
#else
  return static_cast<uint32_t>(roundToBf16(low).bits) | static_cast<uint32_t>(roundToBf16(high).bits) << 16;
#endif
}
__device__ inline float lowBf16(uint32_t both) { return __uint_as_float(both << 16); }
__device__ inline float highBf16(uint32_t both) { return __uint_as_float(both & 0xffff0000u); }

/** Elements of T in 16 bytes. */
template <class T>
constexpr int kVector = 16 / static_cast<int>(sizeof(T));

/** 16 bytes of Ts, read or written by one instruction. */
template <class T>
struct alignas(16) Vector {
  T at[kVector<T>];
};

/** On the emulated device an address that a GPU would not take ends the process. */
__device__ inline void expectAligned([[maybe_unused]] const void* address) {
#if defined(MEMORY3_EMULATED)
  if (reinterpret_cast<uintptr_t>(address) % 16 != 0) abort();
#endif
}

template <class T>
__device__ inline Vector<T> loadVector(const T* from) {
  expectAligned(from);
  return *reinterpret_cast<const Vector<T>*>(from);
}
template <class T>
__device__ inline void storeVector(T* to, const Vector<T>& values) {
  expectAligned(to);
  *reinterpret_cast<Vector<T>*>(to) = values;
}

/** The shared memory that the launch asked for, aligned to 16 bytes. The only shared memory there is. */
template <class T>
__device__ inline T* sharedMemory() {
#if defined(MEMORY3_EMULATED)
  return static_cast<T*>(emulator::sharedMemory());
#else
  extern __shared__ __align__(128) unsigned char memory3Shared[];
  return reinterpret_cast<T*>(memory3Shared);
#endif
}

/** The sum over the lanes of a warp, in all lanes, always added in the same order. */
__device__ inline float warpSum(float x) {
#pragma unroll
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(kAllLanes, x, offset);
  return x;
}

__device__ inline float warpMax(float x) {
#pragma unroll
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, offset));
  return x;
}

/**
 * The sum over the threads of a block of whole warps, in all threads. `room` are 32 floats of shared memory that nobody
 * else uses until the next barrier.
 */
__device__ inline float blockSum(float x, float* room) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize, warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int warps = static_cast<int>(blockDim.x) / kWarpSize;
  x = warpSum(x);
  __syncthreads();
  if (lane == 0) room[warp] = x;
  __syncthreads();
  return warpSum(lane < warps ? room[lane] : 0.0f);
}

__device__ inline float blockMax(float x, float* room) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize, warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int warps = static_cast<int>(blockDim.x) / kWarpSize;
  x = warpMax(x);
  __syncthreads();
  if (lane == 0) room[warp] = x;
  __syncthreads();
  return warpMax(lane < warps ? room[lane] : -INFINITY);
}

__device__ inline void raise(Fault* fault, FaultCode code, int32_t value, int32_t limit) {
  if (atomicCAS(&fault->code, static_cast<int32_t>(kNoFault), static_cast<int32_t>(code)) != kNoFault) return;
  fault->value = value;
  fault->limit = limit;
}

#endif

}  // namespace memory3
