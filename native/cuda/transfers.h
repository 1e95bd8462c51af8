/** The way of numbers between the host and the device, through pinned memory and without making the host wait. */
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>

#include "context.h"

namespace memory3 {

/** Memory of the host that the device reads and writes by itself. Blocks go round; a limit bounds those that wait. */
class PinnedPool {
 public:
  ~PinnedPool();
  /** At least `bytes` bytes. */
  void* take(int64_t bytes);
  void give(void* data);

 private:
  std::mutex mutex_;
  std::map<int64_t, std::deque<void*>> free_;
  std::map<void*, int64_t> sizes_;
  int64_t freeBytes_ = 0;
};

/**
 * Copies in the order of the context's stream. What has to happen on the host once a copy has come through, a thread of its
 * own does: it waits for the device, moves the numbers out of pinned memory and tells who asked.
 */
class Transfers {
 public:
  /** Called on the thread of Transfers when a read is over; `error` is empty when it went well. */
  using Done = std::function<void(const std::string& error)>;

  explicit Transfers(Context& context);
  ~Transfers() { close(); }
  Transfers(const Transfers&) = delete;
  Transfers& operator=(const Transfers&) = delete;

  /** Brings what `from` holds when the stream comes to it to `to`, `bytes` bytes; bfloat16 arrives as float32. */
  void read(const Tensor& from, void* to, int64_t bytes, Done done);
  /** Brings what `from` holds now, `bytes` bytes, to `to` when the stream comes to it; float32 goes to bfloat16 rounded. */
  void write(const void* from, int64_t bytes, const Tensor& to);
  /** Ends the thread when all copies are through. */
  void close();

 private:
  struct Job {
    cudaEvent_t event;
    std::function<void(cudaError_t)> then;
  };
  void add(std::function<void(cudaError_t)> then);
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
