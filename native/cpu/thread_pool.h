/** The threads of an engine. */
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace memory3 {

/**
 * Runs the parts of a job on several threads, the caller's among them. A part goes to whoever is free, so a thread that
 * the system keeps waiting (other processes on the same cores) holds nobody up unless it has begun; an OpenMP region ends
 * with a barrier for all of its threads instead, and took ten times as long on a busy machine. What a part computes
 * depends on its number alone, so results do not depend on who ran it. Threads wait in a short loop, then they sleep.
 */
class ThreadPool {
 public:
  /**
   * @param threads all threads, with the caller's; at least 1
   * @param prepare called first on each new thread
   */
  ThreadPool(int threads, void (*prepare)());
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  /** Calls `body(part)` for the parts 0 … parts − 1 and returns when all are done; `body` must not throw. */
  template <class Body>
  void run(int parts, const Body& body) {
    if (parts == 1 || workers_.empty()) {
      for (int part = 0; part < parts; part++) body(part);
      return;
    }
    runJob(parts, [](const void* context, int part) { (*static_cast<const Body*>(context))(part); }, &body);
  }

 private:
  using Function = void (*)(const void* context, int part);

  void runJob(int parts, Function function, const void* context);
  void work();
  bool takePart();
  bool hasPart() const;
  void sleepUntilWork();

  std::vector<std::thread> workers_;
  // The job. Its fields are valid for whoever has taken a part of it, for it ends only when that part is done.
  Function function_ = nullptr;
  const void* context_ = nullptr;
  /** Number of the job (so that no part of an old job is taken for one of the new), its parts, the next part to take. */
  alignas(64) std::atomic<uint64_t> next_{0};
  alignas(64) std::atomic<int> unfinished_{0};
  alignas(64) std::atomic<int> sleepers_{0};
  std::atomic<bool> callerSleeps_{false};
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::condition_variable workCame_;
  std::condition_variable jobDone_;
};

}  // namespace memory3
