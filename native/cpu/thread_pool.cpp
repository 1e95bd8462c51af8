#include "thread_pool.h"

#include <chrono>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace memory3 {

/** A little longer than JavaScript takes from one kernel to the next, much shorter than a time slice of the system. */
static constexpr auto WATCH_TIME = std::chrono::microseconds(50);

static void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/** Watches until `holds()`. @returns false when the time is up first */
template <class Condition>
static bool watch(const Condition& holds) {
  const auto end = std::chrono::steady_clock::now() + WATCH_TIME;
  do {
    for (int i = 0; i < 64; i++) {
      if (holds()) return true;
      pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

// Fields of `next_`: job number (32 bits), parts (16), next part (16).
static uint64_t partsOf(uint64_t state) { return state >> 16 & 0xFFFF; }
static uint64_t nextOf(uint64_t state) { return state & 0xFFFF; }

ThreadPool::ThreadPool(int threads, void (*prepare)()) {
  for (int i = 1; i < threads; i++) {
    workers_.emplace_back([this, prepare] {
      prepare();
      work();
    });
  }
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  workCame_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::runJob(int parts, Function function, const void* context) {
  function_ = function;
  context_ = context;
  unfinished_ = parts;
  const uint64_t job = (next_ >> 32) + 1;
  next_ = job << 32 | static_cast<uint64_t>(parts) << 16;
  if (sleepers_ > 0) {
    std::lock_guard<std::mutex> lock(mutex_);
    workCame_.notify_all();
  }
  while (takePart()) continue;
  const auto done = [this] { return unfinished_ == 0; };
  if (watch(done)) return;
  std::unique_lock<std::mutex> lock(mutex_);
  callerSleeps_ = true;
  jobDone_.wait(lock, done);
  callerSleeps_ = false;
}

bool ThreadPool::hasPart() const {
  const uint64_t state = next_;
  return nextOf(state) < partsOf(state);
}

/** Takes a part that nobody has and runs it. @returns false when there is none */
bool ThreadPool::takePart() {
  uint64_t state = next_;
  do {
    if (nextOf(state) >= partsOf(state)) return false;
  } while (!next_.compare_exchange_weak(state, state + 1));
  function_(context_, static_cast<int>(nextOf(state)));
  if (--unfinished_ == 0 && callerSleeps_) {
    std::lock_guard<std::mutex> lock(mutex_);
    jobDone_.notify_one();
  }
  return true;
}

void ThreadPool::work() {
  while (!stopping_) {
    if (takePart()) continue;
    if (!watch([this] { return hasPart() || stopping_; })) sleepUntilWork();
  }
}

void ThreadPool::sleepUntilWork() {
  std::unique_lock<std::mutex> lock(mutex_);
  sleepers_++;
  workCame_.wait(lock, [this] { return hasPart() || stopping_; });
  sleepers_--;
}

}  // namespace memory3
