/**
 * A CUDA device of one processor, in place of the header of this name: kernels are compiled by a C++ compiler and run here
 * thread by thread, so that their index arithmetic, their barriers and their results are tested where no GPU is. Only what
 * the kernels of this project use is there; nothing is fast. What a GPU leaves undefined is made to show:
 *
 * - fresh memory and fresh shared memory hold NaN; each block of memory has guards, looked at when it is freed;
 * - asynchronous copies into shared memory arrive as late as they may, and so do copies between host and device;
 * - threads run in an order that MEMORY3_EMULATOR_ORDER chooses (forward, backward, or a number that shuffles), so that a
 *   result that depends on a missing barrier changes;
 * - a barrier that not all threads reach ends the process with a message.
 */
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) alignas(n)

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }

/** The place of the thread that runs now. */
extern thread_local uint3 threadIdx, blockIdx;
extern thread_local dim3 blockDim, gridDim;

using cudaStream_t = struct EmulatedStream*;

namespace memory3::emulator {

constexpr int kWarp = 32;

/** The number of the running thread in its block. */
int threadNumber();
void syncThreads();
/** Puts `bytes` of each lane of `mask` side by side, 64 bytes apart; valid until the next exchange but one. */
const unsigned char* exchange(unsigned mask, const void* data, std::size_t bytes);
/** Shared memory of the block. */
void* sharedMemory();
/** Asynchronous copies of the running thread: kept back until `copyWait` asks for their group. */
void copyLater(void* to, const void* from, int bytes, int zeros);
void copyCommit();
void copyWait(int groupsLeft);

/** Makes the copies that wait in a stream. */
void finishCopies(cudaStream_t stream);

void run(const char* what, dim3 grid, dim3 block, std::size_t sharedBytes, const std::function<void()>& kernel);

template <class T>
T shuffle(unsigned mask, T value, int fromLane) {
  const unsigned char* all = exchange(mask, &value, sizeof value);
  T found;
  std::memcpy(&found, all + 64 * (fromLane & (kWarp - 1)), sizeof found);
  return found;
}

}  // namespace memory3::emulator

inline void __syncthreads() { memory3::emulator::syncThreads(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) {
  const char nothing = 0;
  memory3::emulator::exchange(mask, &nothing, 1);
}
template <class T>
T __shfl_sync(unsigned mask, T value, int lane) {
  return memory3::emulator::shuffle(mask, value, lane);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int laneMask) {
  return memory3::emulator::shuffle(mask, value, memory3::emulator::threadNumber() ^ laneMask);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned by) {
  const int lane = memory3::emulator::threadNumber() % memory3::emulator::kWarp;
  const int from = lane + static_cast<int>(by);
  return memory3::emulator::shuffle(mask, value, from < memory3::emulator::kWarp ? from : lane);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by) {
  const int lane = memory3::emulator::threadNumber() % memory3::emulator::kWarp;
  const int from = lane - static_cast<int>(by);
  return memory3::emulator::shuffle(mask, value, from >= 0 ? from : lane);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const unsigned char* all = memory3::emulator::exchange(mask, &predicate, sizeof predicate);
  unsigned votes = 0;
  for (int lane = 0; lane < memory3::emulator::kWarp; lane++) {
    int vote;
    std::memcpy(&vote, all + 64 * lane, sizeof vote);
    if ((mask >> lane & 1) != 0 && vote != 0) votes |= 1u << lane;
  }
  return votes;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == mask; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }

template <class T>
T __ldg(const T* address) {
  return *address;
}
template <class T>
void __stwb(T* address, T value) {
  memcpy(address, &value, sizeof value);
}
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline void sincospif(float x, float* sine, float* cosine) {
  *sine = static_cast<float>(std::sin(3.141592653589793 * x));
  *cosine = static_cast<float>(std::cos(3.141592653589793 * x));
}
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __int_as_float(int x) {
  float y;
  std::memcpy(&y, &x, 4);
  return y;
}
inline int __float_as_int(float x) {
  int y;
  std::memcpy(&y, &x, 4);
  return y;
}
inline unsigned __float_as_uint(float x) { return static_cast<unsigned>(__float_as_int(x)); }
inline float __uint_as_float(unsigned x) { return __int_as_float(static_cast<int>(x)); }
template <class T>
T atomicAdd(T* address, T value) {
  const T before = *address;
  *address = before + value;
  return before;
}
template <class T>
T atomicCAS(T* address, T expected, T value) {
  const T before = *address;
  if (before == expected) *address = value;
  return before;
}
inline void __threadfence() {}
template <class T>
constexpr T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
constexpr T max(T a, T b) {
  return a < b ? b : a;
}

// The runtime. All work but copies is done when a function returns.

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInsufficientDriver = 35,
  cudaErrorNotReady = 600,
};
using cudaEvent_t = struct EmulatedEvent*;
using cudaMemPool_t = struct EmulatedPool*;
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3 };
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum cudaMemPoolAttr { cudaMemPoolAttrReleaseThreshold = 4, cudaMemPoolAttrReservedMemCurrent = 5, cudaMemPoolAttrUsedMemCurrent = 7 };
constexpr unsigned cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2, cudaHostAllocDefault = 0;

struct cudaDeviceProp {
  char name[256];
  std::size_t totalGlobalMem;
};

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes;
  cudaStream_t stream;
  void* attrs;
  unsigned numAttrs;
};

const char* cudaGetErrorString(cudaError_t error);
const char* cudaGetErrorName(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaRuntimeGetVersion(int* version);
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaDeviceSynchronize();
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total);
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device);
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value);
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value);
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, std::size_t keep);
cudaError_t cudaMallocAsync(void** address, std::size_t bytes, cudaStream_t stream);
cudaError_t cudaFreeAsync(void* address, cudaStream_t stream);
cudaError_t cudaHostAlloc(void** address, std::size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void* address);
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemcpy2DAsync(void* to, std::size_t toPitch, const void* from, std::size_t fromPitch, std::size_t width,
                              std::size_t height, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value);

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  if (config->gridDim.x == 0 || config->gridDim.y == 0 || config->gridDim.z == 0 || config->gridDim.y > 65535 ||
      config->gridDim.z > 65535 || config->blockDim.x * config->blockDim.y * config->blockDim.z > 1024 ||
      config->dynamicSmemBytes > 232448) {
    return cudaErrorInvalidValue;
  }
  memory3::emulator::finishCopies(config->stream);
  memory3::emulator::run("kernel", config->gridDim, config->blockDim, config->dynamicSmemBytes,
                         [&] { kernel(static_cast<Parameters>(arguments)...); });
  return cudaSuccess;
}
