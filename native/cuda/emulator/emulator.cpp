/** The device of cuda_runtime.h in this folder: each thread of a block is a fiber, and blocks run one after the other. */

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <string>
#include <vector>

#include "cuda_runtime.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

thread_local uint3 threadIdx, blockIdx;
thread_local dim3 blockDim, gridDim;

namespace memory3::emulator {

namespace {

constexpr std::size_t kStackBytes = 256 * 1024;
constexpr std::size_t kSlotBytes = 64;

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "emulated device: %s\n", what.c_str());
  std::abort();
}

enum class State { ready, atBlock, atWarp, finished };

struct Copy {
  unsigned char* to;
  const unsigned char* from;
  int bytes, zeros;
};

struct Fiber {
  uint3 place;
  State state = State::finished;
  jmp_buf saved;
  ucontext_t context;
  std::unique_ptr<unsigned char[]> stack{new unsigned char[kStackBytes]};
  bool started = false;
  std::vector<std::vector<Copy>> groups;  // asynchronous copies: committed groups, then the open one
  unsigned exchanges = 0;
#if defined(__SANITIZE_ADDRESS__)
  void* fake = nullptr;
#endif
};

/** What the lanes of a warp put down for each other: two sets, so that one may fill while the other is read. */
struct Warp {
  unsigned char slots[2][kWarp * kSlotBytes];
  unsigned arrived = 0, mask = 0;
  std::size_t bytes = 0;  // that each lane puts down
};

struct Block {
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<Warp> warps;
  std::vector<unsigned char> shared;
  int threads = 0, current = 0, atBlock = 0, alive = 0;
  jmp_buf scheduler;
  const std::function<void()>* kernel = nullptr;
  const char* what = "";
#if defined(__SANITIZE_ADDRESS__)
  void* schedulerFake = nullptr;
  const void* schedulerStack = nullptr;
  std::size_t schedulerSize = 0;
#endif
};

Block& block() {
  static thread_local Block only;
  return only;
}

void toScheduler(bool last) {
  Block& b = block();
#if defined(__SANITIZE_ADDRESS__)
  Fiber& fiber = *b.fibers[b.current];
  __sanitizer_start_switch_fiber(last ? nullptr : &fiber.fake, b.schedulerStack, b.schedulerSize);
#endif
  if (last) _longjmp(b.scheduler, 1);
  Fiber& own = *b.fibers[b.current];
  if (_setjmp(own.saved) == 0) _longjmp(b.scheduler, 1);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(own.fake, &b.schedulerStack, &b.schedulerSize);
#endif
}

void fiberMain() {
  Block& b = block();
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &b.schedulerStack, &b.schedulerSize);
#endif
  (*b.kernel)();
  b.fibers[b.current]->state = State::finished;
  toScheduler(true);
}

void resume(int number) {
  Block& b = block();
  Fiber& fiber = *b.fibers[number];
  b.current = number;
  threadIdx = fiber.place;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&b.schedulerFake, fiber.stack.get(), kStackBytes);
#endif
  if (_setjmp(b.scheduler) == 0) {
    if (fiber.started) _longjmp(fiber.saved, 1);
    fiber.started = true;
    setcontext(&fiber.context);
  }
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(b.schedulerFake, nullptr, nullptr);
#endif
}

void prepare(int number, uint3 place) {
  Block& b = block();
  if (static_cast<int>(b.fibers.size()) <= number) b.fibers.push_back(std::make_unique<Fiber>());
  Fiber& fiber = *b.fibers[number];
  fiber.place = place;
  fiber.state = State::ready;
  fiber.started = false;
  fiber.exchanges = 0;
  fiber.groups.assign(1, {});
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.get();
  fiber.context.uc_stack.ss_size = kStackBytes;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, fiberMain, 0);
}

/** Lets those go on who wait at a barrier that all living threads have reached. */
void releaseBlock() {
  Block& b = block();
  if (b.atBlock == 0 || b.atBlock < b.alive) return;
  for (int i = 0; i < b.threads; i++) {
    if (b.fibers[i]->state == State::atBlock) b.fibers[i]->state = State::ready;
  }
  b.atBlock = 0;
}

/** The order in which the threads of a block are looked at. */
std::vector<int> orderOf(int threads) {
  std::vector<int> order(threads);
  std::iota(order.begin(), order.end(), 0);
  const char* wanted = std::getenv("MEMORY3_EMULATOR_ORDER");
  if (wanted == nullptr || std::string(wanted) == "forward") return order;
  if (std::string(wanted) == "backward") {
    std::reverse(order.begin(), order.end());
    return order;
  }
  uint64_t state = std::strtoull(wanted, nullptr, 10) * 2654435761u + 1;
  for (int i = threads - 1; i > 0; i--) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    std::swap(order[i], order[(state >> 33) % static_cast<uint64_t>(i + 1)]);
  }
  return order;
}

void runBlock(const std::vector<int>& order) {
  Block& b = block();
  while (b.alive > 0) {
    bool moved = false;
    for (const int number : order) {
      Fiber& fiber = *b.fibers[number];
      if (fiber.state != State::ready) continue;
      resume(number);
      moved = true;
      if (fiber.state == State::finished) b.alive--;
      releaseBlock();
    }
    if (!moved) fail(std::string(b.what) + ": a barrier or a warp's exchange is not reached by all of its threads");
  }
}

}  // namespace

int threadNumber() { return block().current; }

void syncThreads() {
  Block& b = block();
  b.fibers[b.current]->state = State::atBlock;
  b.atBlock++;
  toScheduler(false);
}

const unsigned char* exchange(unsigned mask, const void* data, std::size_t bytes) {
  Block& b = block();
  const int number = b.current, lane = number % kWarp;
  if (bytes > kSlotBytes) fail("a lane can put down 64 bytes");
  if ((mask >> lane & 1) == 0) fail("a lane calls a warp's exchange whose mask leaves it out");
  Warp& warp = b.warps[number / kWarp];
  Fiber& fiber = *b.fibers[number];
  unsigned char* slots = warp.slots[fiber.exchanges++ % 2];
  std::memcpy(slots + kSlotBytes * lane, data, bytes);
  if (warp.arrived == 0) {
    warp.mask = mask;
    warp.bytes = bytes;
  }
  if (warp.mask != mask) fail("the lanes of a warp give different masks");
  if (warp.bytes != bytes) fail("the lanes of a warp are at different instructions for all of them");
  warp.arrived |= 1u << lane;
  if (warp.arrived != mask) {
    fiber.state = State::atWarp;
    toScheduler(false);
    return slots;
  }
  warp.arrived = 0;
  for (int i = 0; i < kWarp; i++) {
    const int other = number / kWarp * kWarp + i;
    if (other < b.threads && other != number && (mask >> i & 1) != 0) b.fibers[other]->state = State::ready;
  }
  return slots;
}

void* sharedMemory() {
  auto address = reinterpret_cast<std::uintptr_t>(block().shared.data());
  return reinterpret_cast<void*>((address + 127) / 128 * 128);
}

static void make(const Copy& copy) {
  std::memcpy(copy.to, copy.from, static_cast<std::size_t>(copy.bytes));
  std::memset(copy.to + copy.bytes, 0, static_cast<std::size_t>(copy.zeros));
}

void copyLater(void* to, const void* from, int bytes, int zeros) {
  if (reinterpret_cast<std::uintptr_t>(to) % 16 != 0 || reinterpret_cast<std::uintptr_t>(from) % 16 != 0) {
    fail("an asynchronous copy is not aligned to 16 bytes");
  }
  static const char* const wanted = std::getenv("MEMORY3_EMULATOR_COPIES");
  static const bool early = wanted != nullptr && std::string(wanted) == "early";
  const Copy copy{static_cast<unsigned char*>(to), static_cast<const unsigned char*>(from), bytes, zeros};
  if (early) return make(copy);
  block().fibers[block().current]->groups.back().push_back(copy);
}

void copyCommit() { block().fibers[block().current]->groups.emplace_back(); }

void copyWait(int groupsLeft) {
  auto& groups = block().fibers[block().current]->groups;
  // The last one is still open.
  while (static_cast<int>(groups.size()) - 1 > groupsLeft) {
    for (const Copy& copy : groups.front()) make(copy);
    groups.erase(groups.begin());
  }
}

/** Shared memory of NaN for a block, with nothing behind it. */
static void prepareShared(std::size_t bytes) {
  std::vector<unsigned char>& shared = block().shared;
#if defined(__SANITIZE_ADDRESS__)
  ASAN_UNPOISON_MEMORY_REGION(shared.data(), shared.size());
#endif
  shared.assign(bytes + 128, 0xff);
  shared.shrink_to_fit();
#if defined(__SANITIZE_ADDRESS__)
  unsigned char* end = static_cast<unsigned char*>(sharedMemory()) + bytes;
  ASAN_POISON_MEMORY_REGION(end, static_cast<std::size_t>(shared.data() + shared.size() - end));
#endif
}

void run(const char* what, dim3 grid, dim3 size, std::size_t sharedBytes, const std::function<void()>& kernel) {
  Block& b = block();
  b.what = what;
  b.kernel = &kernel;
  b.threads = static_cast<int>(size.x * size.y * size.z);
  const std::vector<int> order = orderOf(b.threads);
  blockDim = size;
  gridDim = grid;
  for (unsigned z = 0; z < grid.z; z++) {
    for (unsigned y = 0; y < grid.y; y++) {
      for (unsigned x = 0; x < grid.x; x++) {
        blockIdx = {x, y, z};
        prepareShared(sharedBytes);
        b.warps.assign((b.threads + kWarp - 1) / kWarp, {});
        b.alive = b.threads;
        b.atBlock = 0;
        for (int i = 0; i < b.threads; i++) {
          const auto number = static_cast<unsigned>(i);
          const uint3 inBlock{number % size.x, number / size.x % size.y, number / (size.x * size.y)};
          prepare(i, inBlock);
        }
        runBlock(order);
      }
    }
  }
}

namespace {

constexpr std::size_t kGuardBytes = 64;
constexpr unsigned char kGuard = 0xa5, kFresh = 0xff, kFreed = 0xdb;

struct Header {
  std::size_t bytes;
  void* begin;
};

std::atomic<std::size_t> usedBytes{0};
std::size_t limitBytes = 0;

std::size_t limit() {
  if (limitBytes == 0) {
    const char* given = std::getenv("MEMORY3_EMULATOR_BYTES");
    limitBytes = given != nullptr ? std::strtoull(given, nullptr, 10) : std::size_t{8} << 30;
  }
  return limitBytes;
}

}  // namespace
}  // namespace memory3::emulator

using memory3::emulator::Header;
using memory3::emulator::kFreed;
using memory3::emulator::kFresh;
using memory3::emulator::kGuard;
using memory3::emulator::kGuardBytes;

const char* cudaGetErrorString(cudaError_t error) {
  if (error == cudaErrorMemoryAllocation) return "out of memory";
  return error == cudaSuccess ? "no error" : "invalid argument";
}
const char* cudaGetErrorName(cudaError_t error) {
  if (error == cudaErrorMemoryAllocation) return "cudaErrorMemoryAllocation";
  return error == cudaSuccess ? "cudaSuccess" : "cudaErrorInvalidValue";
}
cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int) { return cudaSuccess; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  std::strcpy(properties->name, "emulated device");
  properties->totalGlobalMem = memory3::emulator::limit();
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = 3; break;
    case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = memory3::emulator::kMostShared; break;
  }
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  *total = memory3::emulator::limit();
  *free = *total - memory3::emulator::usedBytes;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int) {
  *pool = nullptr;
  return cudaSuccess;
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return cudaSuccess; }
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t, cudaMemPoolAttr, void* value) {
  *static_cast<uint64_t*>(value) = memory3::emulator::usedBytes;
  return cudaSuccess;
}
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, std::size_t) { return cudaSuccess; }

// Streams. Copies between host and device wait in theirs until something has to come after them, so that whoever reads or
// reuses memory too early sees it; everything else happens at once.

struct EmulatedStream {
  /** Stands first: so a library that computes in a stream (test/cuda/fake_cublaslt.cpp) finds it, knowing nothing else. */
  void (*finishCopies)(cudaStream_t) = memory3::emulator::finishCopies;
  std::deque<std::function<void()>> copies;
  int64_t added = 0, done = 0;
};
struct EmulatedEvent {
  std::shared_ptr<EmulatedStream> stream;
  int64_t after = 0;
  std::chrono::steady_clock::time_point at;
};

namespace memory3::emulator {
namespace {

std::mutex streamsMutex;
/** The streams that live; an event may outlive its own. */
std::map<cudaStream_t, std::shared_ptr<EmulatedStream>> streams;

void finish(EmulatedStream& stream, int64_t until) {
  for (; stream.done < until; stream.done++) {
    stream.copies.front()();
    stream.copies.pop_front();
  }
}

}  // namespace

void finishCopies(cudaStream_t stream) {
  const std::lock_guard<std::mutex> lock(streamsMutex);
  const auto found = streams.find(stream);
  if (found == streams.end()) fail("a call names a stream that is not there");
  finish(*found->second, found->second->added);
}

}  // namespace memory3::emulator

cudaError_t cudaMallocAsync(void** address, std::size_t bytes, cudaStream_t) {
  using namespace memory3::emulator;
  if (usedBytes + bytes > limit()) return cudaErrorMemoryAllocation;
  const std::size_t before = 256;
#if defined(__SANITIZE_ADDRESS__)
  const std::size_t behind = 0;
#else
  const std::size_t behind = kGuardBytes;
#endif
  void* block = nullptr;
  if (posix_memalign(&block, 256, before + bytes + behind) != 0) return cudaErrorMemoryAllocation;
  auto* begin = static_cast<unsigned char*>(block);
  unsigned char* data = begin + before;
  const Header header{bytes, begin};
  std::memset(begin, kGuard, before);
  std::memcpy(begin, &header, sizeof header);
  std::memset(data, kFresh, bytes);
  std::memset(data + bytes, kGuard, behind);
  usedBytes += bytes;
  *address = data;
  return cudaSuccess;
}

cudaError_t cudaFreeAsync(void* address, cudaStream_t stream) {
  if (address == nullptr) return cudaSuccess;
  memory3::emulator::finishCopies(stream);
  auto* data = static_cast<unsigned char*>(address);
  Header header{};
  std::memcpy(&header, data - 256, sizeof header);
  bool whole = true;
  for (std::size_t i = sizeof header; i < 256; i++) whole = whole && data[static_cast<std::ptrdiff_t>(i) - 256] == kGuard;
#if !defined(__SANITIZE_ADDRESS__)
  for (std::size_t i = 0; i < kGuardBytes; i++) whole = whole && data[header.bytes + i] == kGuard;
#endif
  if (!whole) memory3::emulator::fail("a kernel wrote outside of a block of " + std::to_string(header.bytes) + " bytes");
  std::memset(data, kFreed, header.bytes);
  memory3::emulator::usedBytes -= header.bytes;
  std::free(header.begin);
  return cudaSuccess;
}

cudaError_t cudaHostAlloc(void** address, std::size_t bytes, unsigned) {
  *address = std::malloc(bytes > 0 ? bytes : 1);
  return *address != nullptr ? cudaSuccess : cudaErrorMemoryAllocation;
}
cudaError_t cudaFreeHost(void* address) {
  std::free(address);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  if (kind == cudaMemcpyDeviceToDevice) {
    memory3::emulator::finishCopies(stream);
    std::memcpy(to, from, bytes);
    return cudaSuccess;
  }
  const std::lock_guard<std::mutex> lock(memory3::emulator::streamsMutex);
  stream->copies.push_back([=] { std::memcpy(to, from, bytes); });
  stream->added++;
  return cudaSuccess;
}
cudaError_t cudaMemcpy2DAsync(void* to, std::size_t toPitch, const void* from, std::size_t fromPitch, std::size_t width,
                              std::size_t height, cudaMemcpyKind, cudaStream_t stream) {
  memory3::emulator::finishCopies(stream);
  if (width > toPitch || width > fromPitch) return cudaErrorInvalidValue;
  for (std::size_t row = 0; row < height; row++) {
    std::memcpy(static_cast<char*>(to) + row * toPitch, static_cast<const char*>(from) + row * fromPitch, width);
  }
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  memory3::emulator::finishCopies(stream);
  if (bytes > 0) std::memset(to, value, bytes);
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  auto made = std::make_shared<EmulatedStream>();
  *stream = made.get();
  const std::lock_guard<std::mutex> lock(memory3::emulator::streamsMutex);
  memory3::emulator::streams.emplace(*stream, std::move(made));
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  memory3::emulator::finishCopies(stream);
  const std::lock_guard<std::mutex> lock(memory3::emulator::streamsMutex);
  memory3::emulator::streams.erase(stream);
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  memory3::emulator::finishCopies(stream);
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t event, unsigned) { return cudaEventSynchronize(event); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new EmulatedEvent;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const std::lock_guard<std::mutex> lock(memory3::emulator::streamsMutex);
  event->stream = memory3::emulator::streams.at(stream);
  event->after = stream->added;
  event->at = std::chrono::steady_clock::now();
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const std::lock_guard<std::mutex> lock(memory3::emulator::streamsMutex);
  if (event->stream != nullptr) memory3::emulator::finish(*event->stream, event->after);
  return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {
  *milliseconds = std::chrono::duration<float, std::milli>(to->at - from->at).count();
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) { return cudaSuccess; }
