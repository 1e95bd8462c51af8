#include "stream.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <stdexcept>

namespace memory3 {

Stream::Stream(void (*prepare)()) : thread_([this, prepare] { work(prepare); }) {}

void Stream::close() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
    jobs_.clear();
    added_ = done_ + (running_ ? 1 : 0);
  }
  jobCame_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Stream::add(const char* name, Job job) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (closed_) throw std::runtime_error("the native engine is closed");
    jobs_.push_back({name, std::move(job)});
    added_++;
  }
  jobCame_.notify_one();
}

void Stream::wait() {
  std::unique_lock<std::mutex> lock(mutex_);
  waiting_ = true;
  jobsDone_.wait(lock, [this] { return idle(); });
  waiting_ = false;
}

std::string Stream::takeError() {
  std::lock_guard<std::mutex> lock(mutex_);
  std::string error;
  error.swap(error_);
  return error;
}

std::vector<Profile> Stream::takeProfile() {
  std::vector<Profile> list;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& [name, profile] : profile_) list.push_back(profile);
    profile_.clear();
  }
  std::sort(list.begin(), list.end(), [](const Profile& a, const Profile& b) { return a.seconds > b.seconds; });
  return list;
}

void Stream::work(void (*prepare)()) {
  prepare();
  Named named{};
  while (next(named)) {
    const auto start = std::chrono::steady_clock::now();
    runJob(named.job);
    named.job = nullptr;
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    std::lock_guard<std::mutex> lock(mutex_);
    Profile& profile = profile_[named.name];
    profile = {named.name, profile.calls + 1, profile.seconds + time.count()};
    done_++;
    running_ = false;
    if (waiting_ && idle()) jobsDone_.notify_all();
  }
}

/** Waits for a job. @returns false when the stream ends */
bool Stream::next(Named& job) {
  std::unique_lock<std::mutex> lock(mutex_);
  jobCame_.wait(lock, [this] { return closed_ || !jobs_.empty(); });
  if (closed_) return false;
  job = std::move(jobs_.front());
  jobs_.pop_front();
  running_ = true;
  return true;
}

void Stream::runJob(const Job& job) {
  try {
    job();
  } catch (const std::exception& error) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (error_.empty()) error_ = error.what();
  }
}

}  // namespace memory3
