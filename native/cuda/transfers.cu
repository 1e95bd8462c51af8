#include "transfers.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace memory3 {

namespace {

constexpr int64_t kMostBytes = int64_t{1} << 30;
constexpr int64_t kKeptBytes = int64_t{1} << 28;

/** `bytes` rounded up, by an eighth at most where it is much, so that few sizes occur. */
int64_t sizeClass(int64_t bytes) {
  int64_t step = 4096;
  while (step * 16 < bytes) step *= 2;
  return blocksFor(bytes, step) * step;
}

void widen(const Bf16* from, float* to, int64_t count) {
  for (int64_t i = 0; i < count; i++) to[i] = toFloat(from[i]);
}

/** What is wrong after a copy with the fault that was read along: what CUDA says, or what a kernel said. */
std::string problemOf(cudaError_t error, const Fault& fault) {
  if (error != cudaSuccess) {
    return std::string("the work of the GPU failed: ") + cudaGetErrorString(error) + " (" + cudaGetErrorName(error) + ")";
  }
  return Context::describe(fault);
}

}  // namespace

void narrow(const float* from, Bf16* to, int64_t count) {
  for (int64_t i = 0; i < count; i++) to[i] = roundToBf16(from[i]);
}

PinnedPool::~PinnedPool() { drop(0); }

Pinned PinnedPool::take(int64_t bytes) {
  const int64_t size = sizeClass(std::max<int64_t>(bytes, 1));
  unsigned char* data = nullptr;
  {
    std::unique_lock<std::mutex> lock(mutex_);
    came_.wait(lock, [&] { return usedBytes_ == 0 || usedBytes_ + size <= kMostBytes; });
    data = find(size);
    usedBytes_ += size;
  }
  if (data == nullptr) {
    void* fresh = nullptr;
    const cudaError_t error = cudaHostAlloc(&fresh, static_cast<std::size_t>(size), cudaHostAllocDefault);
    if (error != cudaSuccess) {
      const std::lock_guard<std::mutex> lock(mutex_);
      usedBytes_ -= size;
    }
    check(error, "taking pinned memory");
    data = static_cast<unsigned char*>(fresh);
  }
  return {data, [this, size](unsigned char* used) { give(used, size); }};
}

/** A free block of this size, or null. */
unsigned char* PinnedPool::find(int64_t size) {
  const auto found = free_.find(size);
  if (found == free_.end()) return nullptr;
  unsigned char* data = found->second.back();
  found->second.pop_back();
  if (found->second.empty()) free_.erase(found);
  freeBytes_ -= size;
  return data;
}

void PinnedPool::give(unsigned char* data, int64_t size) {
  const std::lock_guard<std::mutex> lock(mutex_);
  usedBytes_ -= size;
  free_[size].push_back(data);
  freeBytes_ += size;
  drop(kKeptBytes);
  came_.notify_all();
}

/** Frees the largest blocks until no more than `keptBytes` wait: the small ones are those of every step. */
void PinnedPool::drop(int64_t keptBytes) {
  while (freeBytes_ > keptBytes) cudaFreeHost(find(free_.rbegin()->first));
}

Transfers::~Transfers() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
  }
  came_.notify_one();
  thread_.join();
}

void Transfers::read(const Tensor& from, void* to, int64_t bytes, Done done) {
  const bool half = !from.empty() && from.type() == Type::bfloat16;
  const int64_t stored = from.empty() ? 0 : from.count * bytesOf(from.type());
  expect(bytes == (half ? 2 * stored : stored), "read: source and target differ in size");
  if (stored > 0) context_.awaitUpload(*from.buffer);
  // The fault comes along, behind the numbers.
  const int64_t faultAt = blocksFor(stored, 16) * 16;
  const Pinned pinned = pinned_.take(faultAt + static_cast<int64_t>(sizeof(Fault)));
  const auto copy = [&] {
    if (stored > 0) {
      const auto* data = static_cast<const unsigned char*>(from.buffer->data) + from.offset * bytesOf(from.type());
      check(cudaMemcpyAsync(pinned.get(), data, static_cast<std::size_t>(stored), cudaMemcpyDeviceToHost,
                            context_.stream()),
            "reading from the GPU");
    }
    check(cudaMemcpyAsync(pinned.get() + faultAt, context_.fault(), sizeof(Fault), cudaMemcpyDeviceToHost,
                          context_.stream()),
          "reading from the GPU");
    check(cudaMemsetAsync(context_.fault(), 0, sizeof(Fault), context_.stream()), "clearing memory");
  };
  add(copy, [pinned, faultAt, to, stored, half, done = std::move(done)](cudaError_t error) {
    Fault found{};
    if (error == cudaSuccess) {
      std::memcpy(&found, pinned.get() + faultAt, sizeof found);
      if (half) {
        widen(reinterpret_cast<const Bf16*>(pinned.get()), static_cast<float*>(to), stored / 2);
      } else if (stored > 0) {
        std::memcpy(to, pinned.get(), static_cast<std::size_t>(stored));
      }
    }
    done(problemOf(error, found));
  });
}

void Transfers::write(const void* from, int64_t bytes, const Tensor& to) {
  if (to.empty()) {
    expect(bytes == 0, "write: values and target differ in size");
    return;
  }
  const bool half = to.type() == Type::bfloat16;
  const int64_t stored = to.count * bytesOf(to.type());
  expect(bytes == (half ? 2 * stored : stored), "write: values and target differ in size");
  const Pinned pinned = pinned_.take(stored);
  if (half) {
    narrow(static_cast<const float*>(from), reinterpret_cast<Bf16*>(pinned.get()), to.count);
  } else {
    std::memcpy(pinned.get(), from, static_cast<std::size_t>(stored));
  }
  auto* data = static_cast<unsigned char*>(to.buffer->data) + to.offset * bytesOf(to.type());
  Context::touch(to);
  const auto copy = [&] {
    check(cudaMemcpyAsync(data, pinned.get(), static_cast<std::size_t>(stored), cudaMemcpyHostToDevice,
                          context_.stream()),
          "writing to the GPU");
  };
  add(copy, [pinned](cudaError_t) {});
}

void Transfers::add(const std::function<void()>& copy, std::function<void(cudaError_t)> then) {
  Job job{nullptr, std::move(then)};
  // The thread that waits sleeps: a whole step may pass, and another core is worth more than the microseconds.
  check(cudaEventCreateWithFlags(&job.event, cudaEventDisableTiming | cudaEventBlockingSync), "making an event");
  try {
    copy();
    check(cudaEventRecord(job.event, context_.stream()), "recording an event");
    const std::lock_guard<std::mutex> lock(mutex_);
    jobs_.push_back(std::move(job));
  } catch (...) {
    // A copy may be under way that uses the memory that goes back now.
    cudaStreamSynchronize(context_.stream());
    cudaEventDestroy(job.event);
    throw;
  }
  came_.notify_one();
}

void Transfers::work() {
  context_.makeCurrent();
  for (;;) {
    Job job{};
    {
      std::unique_lock<std::mutex> lock(mutex_);
      came_.wait(lock, [&] { return closed_ || !jobs_.empty(); });
      if (jobs_.empty()) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    const cudaError_t error = cudaEventSynchronize(job.event);
    cudaEventDestroy(job.event);
    job.then(error);
  }
}

}  // namespace memory3
