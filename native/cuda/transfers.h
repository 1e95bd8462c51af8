/** The way of numbers between the host and the device, through pinned memory and without making the host wait. */
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "context.h"

namespace memory3 {

/** Rounds numbers to bfloat16, ties to even. */
void narrow(const float* from, Bf16* to, int64_t count);

/** Memory of the host that the device reads and writes by itself; goes back to its pool with the last holder. */
using Pinned = std::shared_ptr<unsigned char>;

/** Pinned memory goes round. One limit bounds what is in use, another what waits. */
class PinnedPool {
 public:
  ~PinnedPool();
  /**
   * At least `bytes` bytes. Waits while more is in use than may be, though one block is given at any size. The thread that
   * gives blocks back must not call this.
   */
  Pinned take(int64_t bytes);

 private:
  unsigned char* find(int64_t size);
  void give(unsigned char* data, int64_t size);
  void drop(int64_t keptBytes);

  std::mutex mutex_;
  std::condition_variable came_;
  std::map<int64_t, std::vector<unsigned char*>> free_;
  int64_t freeBytes_ = 0;
  int64_t usedBytes_ = 0;
};

/**
 * Copies in the order of the context's stream. What has to happen on the host once a copy has come through, a thread of its
 * own does: it waits for the device, moves the numbers out of pinned memory and tells who asked.
 */
class Transfers {
 public:
  /** Called on the thread of Transfers when a read is over; `error` is empty when it went well. */
  using Done = std::function<void(const std::string& error)>;

  explicit Transfers(Context& context) : context_(context), thread_([this] { work(); }) {}
  /** Waits until all copies are through. */
  ~Transfers();
  Transfers(const Transfers&) = delete;
  Transfers& operator=(const Transfers&) = delete;

  /** Brings what `from` holds when the stream comes to it to `to`, `bytes` bytes; bfloat16 arrives as float32. */
  void read(const Tensor& from, void* to, int64_t bytes, Done done);
  /** Brings what `from` holds now, `bytes` bytes, to `to` when the stream comes to it; float32 goes to bfloat16 rounded. */
  void write(const void* from, int64_t bytes, const Tensor& to);

 private:
  /** What waits for the stream to come to `event`. */
  struct Job {
    cudaEvent_t event;
    std::function<void(cudaError_t)> then;
  };
  /** Puts copies into the stream by `copy` and calls `then` when they are through. */
  void add(const std::function<void()>& copy, std::function<void(cudaError_t)> then);
  void work();

  Context& context_;
  PinnedPool pinned_;
  std::mutex mutex_;
  std::condition_variable came_;
  std::deque<Job> jobs_;
  bool closed_ = false;
  std::thread thread_;
};

}  // namespace memory3
