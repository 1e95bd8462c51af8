/** Numbers that go to the device on a stream of their own, while the kernels of the other stream run. */
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "context.h"

namespace memory3 {

/** One upload, as the thread that makes it and the thread that uses its tensor share it. */
class Upload {
 public:
  Upload();
  ~Upload();
  Upload(const Upload&) = delete;
  Upload& operator=(const Upload&) = delete;

  /** What was handed to the copy stream until now is all there will be; `error` says what is missing, if anything. */
  void finish(cudaStream_t copyStream, std::string error);
  /** Whether the source has been read and may go. */
  bool finished() const;
  /** Waits until all copies are in their stream and lets `stream` wait for them. Returns what went wrong, or nothing. */
  std::string orderBefore(cudaStream_t stream);
  /** Nobody will use the tensor. */
  void cancel() { cancelled_ = true; }
  bool cancelled() const { return cancelled_; }

 private:
  cudaEvent_t event_ = nullptr;
  mutable std::mutex mutex_;
  std::condition_variable came_;
  bool finished_ = false;
  std::string error_;
  std::atomic<bool> cancelled_{false};
};

/**
 * A thread that moves arrays through two blocks of pinned memory in turn to the copy stream: while the device fetches one,
 * the other is filled. Uploads are made in the order in which they were asked for.
 */
class Uploads {
 public:
  explicit Uploads(Context& context) : context_(context), thread_([this] { work(); }) {}
  /** Gives up what is not on its way yet. */
  ~Uploads();
  Uploads(const Uploads&) = delete;
  Uploads& operator=(const Uploads&) = delete;

  /**
   * A new tensor that gets the `count` numbers at `from` (float32 when it is stored as bfloat16); `from` must stay as it is
   * until the tensor's upload is finished. Throws OutOfMemory.
   */
  Buffer* start(const void* from, int64_t count, Type type);

 private:
  struct Job {
    const void* from;
    void* to;
    int64_t count;
    Type type;
    std::shared_ptr<Upload> upload;
  };
  struct Block {
    void* data = nullptr;
    /** Recorded behind the copy that reads `data`. */
    cudaEvent_t free = nullptr;
  };
  void work();
  void send(const Job& job);
  Block& nextBlock();

  Context& context_;
  Block blocks_[2];
  int turn_ = 0;
  std::mutex mutex_;
  std::condition_variable came_;
  std::deque<Job> jobs_;
  std::atomic<bool> closed_{false};
  std::thread thread_;
};

}  // namespace memory3
