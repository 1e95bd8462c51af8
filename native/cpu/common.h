/** What all CPU kernels share: arrays with a length, the context of an engine, parallel ranges, vectorised loops. */
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>

// A function marked MEMORY3_VECTORISED is compiled for several instruction sets and the processor's is chosen when the
// library is loaded, so that one binary runs anywhere. It must not contain an OpenMP region: the compiler moves the body
// of a region into a function of its own, which stays at the baseline.
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#define MEMORY3_VECTORISED __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define MEMORY3_VECTORISED
#endif
#define MEMORY3_INLINE inline __attribute__((always_inline))

namespace memory3 {

/** Elements that belong to somebody else, usually to a tensor. */
template <class T>
struct Array {
  T* data;
  int64_t size;
};

using Floats = Array<const float>;
using Ints = Array<const int32_t>;
using FloatsOut = Array<float>;

/** Throws unless an array has as many elements as the shapes say. */
inline void expectSize(const char* what, int64_t actual, int64_t expected) {
  if (actual == expected) return;
  throw std::invalid_argument(std::string(what) + " has " + std::to_string(actual) + " elements, expected " +
                              std::to_string(expected));
}

inline void expect(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}

/** Memory that a kernel needs while it runs; kept for the next call, since to get pages from the system is slow. */
class Scratch {
 public:
  /** `count` floats that are aligned for vectors, with undefined values, until the next call. */
  float* floats(int64_t count);

 private:
  struct Free {
    void operator()(void* memory) const;
  };
  std::unique_ptr<float, Free> memory_;
  int64_t capacity_ = 0;
};

/** The state of one engine. */
struct Context {
  int threads = 1;
  Scratch scratch;
};

/** Multiples of 16 floats keep the parts of a scratch aligned and out of each other's cache lines. */
inline int64_t padded(int64_t count) { return (count + 15) / 16 * 16; }

/** Part `part` of `parts` of `count` things; the same split each time. */
struct Range {
  int64_t begin;
  int64_t end;
  int64_t size() const { return end - begin; }
};

inline Range partOf(int64_t count, int part, int parts) { return {count * part / parts, count * (part + 1) / parts}; }

/** Threads worth waking for `work` element operations: a parallel region costs about as much as 16,000 of them. */
inline int threadsFor(const Context& context, double work) {
  const double useful = 1 + work / 16384;
  return useful < context.threads ? static_cast<int>(useful) : context.threads;
}

/** Calls `body(range)` on every thread, with equal contiguous ranges of [0, count) in order. */
template <class Body>
void parallelRanges(int threads, int64_t count, const Body& body) {
  if (threads > count) threads = count > 1 ? static_cast<int>(count) : 1;
  if (threads == 1) {
    body(Range{0, count});
    return;
  }
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int thread = 0; thread < threads; thread++) body(partOf(count, thread, threads));
}

}  // namespace memory3
