#include "uploads.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "transfers.h"

namespace memory3 {

namespace {

constexpr int64_t kBlockBytes = int64_t{32} << 20;

}  // namespace

Upload::Upload() { check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "making an event"); }

Upload::~Upload() { cudaEventDestroy(event_); }

void Upload::finish(cudaStream_t copyStream, std::string error) {
  const cudaError_t recorded = cudaEventRecord(event_, copyStream);
  if (recorded != cudaSuccess && error.empty()) error = cudaGetErrorString(recorded);
  // Whoever gives the memory back must not do so under a copy that no event stands behind.
  if (!error.empty()) cudaStreamSynchronize(copyStream);
  const std::lock_guard<std::mutex> lock(mutex_);
  error_ = std::move(error);
  finished_ = true;
  came_.notify_all();
}

bool Upload::finished() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return finished_;
}

std::string Upload::orderBefore(cudaStream_t stream) {
  std::unique_lock<std::mutex> lock(mutex_);
  came_.wait(lock, [&] { return finished_; });
  if (!error_.empty()) return error_;
  const cudaError_t error = cudaStreamWaitEvent(stream, event_, 0);
  return error == cudaSuccess ? "" : cudaGetErrorString(error);
}

Uploads::~Uploads() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
  }
  came_.notify_one();
  thread_.join();
}

Buffer* Uploads::start(const void* from, int64_t count, Type type) {
  auto upload = count > 0 ? std::make_shared<Upload>() : nullptr;
  Buffer* buffer = context_.allocate(count, type, context_.copyStream());
  if (upload == nullptr) return buffer;
  buffer->upload = upload;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    jobs_.push_back({from, buffer->data, count, type, std::move(upload)});
  }
  came_.notify_one();
  return buffer;
}

void Uploads::work() {
  context_.makeCurrent();
  for (;;) {
    Job job{};
    {
      std::unique_lock<std::mutex> lock(mutex_);
      came_.wait(lock, [&] { return closed_ || !jobs_.empty(); });
      if (jobs_.empty()) break;
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    std::string error;
    try {
      send(job);
    } catch (const std::exception& failure) {
      error = failure.what();
    }
    job.upload->finish(context_.copyStream(), std::move(error));
  }
  cudaStreamSynchronize(context_.copyStream());
  for (const Block& block : blocks_) {
    if (block.data != nullptr) cudaFreeHost(block.data);
    if (block.free != nullptr) cudaEventDestroy(block.free);
  }
}

void Uploads::send(const Job& job) {
  const int64_t width = bytesOf(job.type);
  for (int64_t done = 0; done < job.count;) {
    if (closed_ || job.upload->cancelled()) throw std::runtime_error("it was given up");
    const int64_t count = std::min(job.count - done, kBlockBytes / width);
    Block& block = nextBlock();
    if (job.type == Type::bfloat16) {
      narrow(static_cast<const float*>(job.from) + done, static_cast<Bf16*>(block.data), count);
    } else {
      std::memcpy(block.data, static_cast<const char*>(job.from) + done * width, static_cast<std::size_t>(count * width));
    }
    check(cudaMemcpyAsync(static_cast<char*>(job.to) + done * width, block.data, static_cast<std::size_t>(count * width),
                          cudaMemcpyHostToDevice, context_.copyStream()),
          "writing to the GPU");
    check(cudaEventRecord(block.free, context_.copyStream()), "recording an event");
    done += count;
  }
}

/** The block that was filled before the last one, once the device has fetched it. */
Uploads::Block& Uploads::nextBlock() {
  Block& block = blocks_[turn_];
  turn_ = 1 - turn_;
  if (block.free == nullptr) {
    check(cudaEventCreateWithFlags(&block.free, cudaEventDisableTiming | cudaEventBlockingSync), "making an event");
  }
  if (block.data == nullptr) {
    check(cudaHostAlloc(&block.data, kBlockBytes, cudaHostAllocDefault), "taking pinned memory");
  }
  check(cudaEventSynchronize(block.free), "writing to the GPU");
  return block;
}

}  // namespace memory3
