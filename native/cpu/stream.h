/** The order of work: JavaScript hands in kernels, one thread runs them one after the other. */
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace memory3 {

/** What the jobs of one name took. */
struct Profile {
  const char* name;
  int64_t calls;
  double seconds;
};

/**
 * A queue of jobs with a thread of its own, as a GPU has. Who adds a job goes on at once; jobs run in the order in which
 * they were added, so that a job may use what the ones before it have written and may overwrite what they have read.
 */
class Stream {
 public:
  using Job = std::function<void()>;

  /** @param prepare called first on the thread */
  explicit Stream(void (*prepare)());
  ~Stream() { close(); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  /** @param name of the kernel, for the profile; must stay valid */
  void add(const char* name, Job job);
  /** Lets the job that runs end and drops the others; from then on `add` throws. */
  void close();
  /** Returns when all jobs are done. */
  void wait();
  bool idle() const { return done_ == added_; }
  /** Jobs added so far; a job is finished when `done()` has reached the number that `added()` had after it. */
  uint64_t added() const { return added_; }
  uint64_t done() const { return done_; }
  /** Calls and seconds by name since the last call, the longest first. */
  std::vector<Profile> takeProfile();
  /** What the first job that threw since the last call said; empty when none did. */
  std::string takeError();

 private:
  struct Named {
    const char* name;
    Job job;
  };

  void work(void (*prepare)());
  bool next(Named& job);
  void runJob(const Job& job);

  std::mutex mutex_;
  std::condition_variable jobCame_;
  std::condition_variable jobsDone_;
  std::deque<Named> jobs_;
  std::map<const char*, Profile> profile_;
  std::string error_;
  std::atomic<uint64_t> added_{0};
  std::atomic<uint64_t> done_{0};
  bool waiting_ = false;
  bool running_ = false;
  bool closed_ = false;
  std::thread thread_;
};

}  // namespace memory3
