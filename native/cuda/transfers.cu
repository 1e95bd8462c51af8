#include "transfers.h"

#include <cstring>
#include <utility>

namespace memory3 {

namespace {

/** Pinned memory that is kept for the next copies. */
constexpr int64_t kKeptBytes = int64_t{1} << 30;
constexpr int64_t kSmallest = 4096;

int64_t sizeClass(int64_t bytes) {
  int64_t size = kSmallest;
  while (size < bytes) size *= 2;
  return size;
}

void widen(const Bf16* from, float* to, int64_t count) {
  for (int64_t i = 0; i < count; i++) to[i] = toFloat(from[i]);
}

void narrow(const float* from, Bf16* to, int64_t count) {
  for (int64_t i = 0; i < count; i++) to[i] = roundToBf16(from[i]);
}

/** What is wrong after a copy with the fault that was read along: what CUDA says, or what a kernel said. */
std::string problemOf(cudaError_t error, const Fault& fault) {
  if (error != cudaSuccess) {
    return std::string("the work of the GPU failed: ") + cudaGetErrorString(error) + " (" + cudaGetErrorName(error) + ")";
  }
  return Context::describe(fault);
}

}  // namespace

PinnedPool::~PinnedPool() {
  for (const auto& [data, size] : sizes_) cudaFreeHost(data);
}

void* PinnedPool::take(int64_t bytes) {
  const int64_t size = sizeClass(bytes);
  const std::lock_guard<std::mutex> lock(mutex_);
  auto& waiting = free_[size];
  if (!waiting.empty()) {
    void* data = waiting.front();
    waiting.pop_front();
    freeBytes_ -= size;
    return data;
  }
  void* data = nullptr;
  check(cudaHostAlloc(&data, static_cast<std::size_t>(size), cudaHostAllocDefault), "taking pinned memory");
  sizes_.emplace(data, size);
  return data;
}

void PinnedPool::give(void* data) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const int64_t size = sizes_.at(data);
  if (freeBytes_ + size > kKeptBytes) {
    cudaFreeHost(data);
    sizes_.erase(data);
    return;
  }
  freeBytes_ += size;
  free_[size].push_back(data);
}

Transfers::Transfers(Context& context) : context_(context), thread_([this] { work(); }) {}

void Transfers::read(const Tensor& from, void* to, int64_t bytes, Done done) {
  const bool half = !from.empty() && from.type() == Type::bfloat16;
  const int64_t stored = from.empty() ? 0 : from.count * bytesOf(from.type());
  expect(bytes == (half ? 2 * stored : stored), "read: source and target differ in size");
  // The fault comes along, behind the numbers.
  auto* pinned = static_cast<unsigned char*>(pinned_.take(stored + static_cast<int64_t>(sizeof(Fault)) + 16));
  auto* fault = pinned + (stored + 15) / 16 * 16;
  if (stored > 0) {
    context_.awaitUpload(*from.buffer);
    const auto* data = static_cast<const unsigned char*>(from.buffer->data) + from.offset * bytesOf(from.type());
    check(cudaMemcpyAsync(pinned, data, static_cast<std::size_t>(stored), cudaMemcpyDeviceToHost, context_.stream()),
          "reading from the GPU");
  }
  check(cudaMemcpyAsync(fault, context_.fault(), sizeof(Fault), cudaMemcpyDeviceToHost, context_.stream()),
        "reading from the GPU");
  check(cudaMemsetAsync(context_.fault(), 0, sizeof(Fault), context_.stream()), "clearing memory");
  add([this, pinned, fault, to, stored, half, done = std::move(done)](cudaError_t error) {
    Fault found{};
    if (error == cudaSuccess) {
      std::memcpy(&found, fault, sizeof found);
      if (half) {
        widen(reinterpret_cast<const Bf16*>(pinned), static_cast<float*>(to), stored / 2);
      } else if (stored > 0) {
        std::memcpy(to, pinned, static_cast<std::size_t>(stored));
      }
    }
    pinned_.give(pinned);
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
  void* pinned = pinned_.take(stored);
  if (half) {
    narrow(static_cast<const float*>(from), static_cast<Bf16*>(pinned), to.count);
  } else {
    std::memcpy(pinned, from, static_cast<std::size_t>(stored));
  }
  auto* data = static_cast<unsigned char*>(to.buffer->data) + to.offset * bytesOf(to.type());
  check(cudaMemcpyAsync(data, pinned, static_cast<std::size_t>(stored), cudaMemcpyHostToDevice, context_.stream()),
        "writing to the GPU");
  Context::touch(to);
  add([this, pinned](cudaError_t) { pinned_.give(pinned); });
}

void Transfers::add(std::function<void(cudaError_t)> then) {
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "making an event");
  check(cudaEventRecord(event, context_.stream()), "recording an event");
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    expect(!closed_, "the CUDA engine is closed");
    jobs_.push_back({event, std::move(then)});
  }
  came_.notify_one();
}

void Transfers::close() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
  }
  came_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void Transfers::work() {
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
