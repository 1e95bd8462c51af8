/** What all CPU kernels share: arrays with a length, the context of an engine, parallel ranges, vectorised loops. */
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "thread_pool.h"

// A function marked MEMORY3_VECTORISED is compiled for several instruction sets and the processor's is chosen when the
// library is loaded, so that one binary runs anywhere. A lambda inside it would stay at the baseline.
#if !defined(MEMORY3_NO_DISPATCH) && defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
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
using IntsOut = Array<int32_t>;

/** The element types of tensors. */
enum class Type { float32, int32, boolean };

/** Elements of any type. */
struct Values {
  void* data;
  int64_t size;
  Type type;
};

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

/** Adds up what the parts of a kernel have left in a scratch, `step` apart, always in the same order; parts > 0. */
void sumParts(const float* first, int64_t step, int64_t parts, int64_t count, float* out);

/** Cosines and sines of positions. */
struct RopeTable {
  std::vector<int32_t> positions;
  int64_t dim;
  double theta;
  std::vector<float> values;
};

struct Tiles;

/** The state of one engine; its kernels run one at a time. */
struct Context {
  std::unique_ptr<ThreadPool> pool;
  const Tiles* tiles;
  Scratch scratch;
  /** The last ones used come first. */
  std::list<RopeTable> ropeTables;
};

/** Into how many parts long work is cut for each thread. */
constexpr int PARTS_A_THREAD = 4;

/** Multiples of 16 floats keep the parts of a scratch aligned and out of each other's cache lines. */
inline int64_t padded(int64_t count) { return (count + 15) / 16 * 16; }

/** Part `part` of `parts` of `count` things; the same split each time. */
struct Range {
  int64_t begin;
  int64_t end;
  int64_t size() const { return end - begin; }
};

inline Range partOf(int64_t count, int part, int parts) { return {count * part / parts, count * (part + 1) / parts}; }

/**
 * Parts worth cutting `work` element operations into: to hand out a part costs about 16,000. Long work is cut finer than
 * there are threads, so that one that the system holds up leaves parts to the others.
 */
inline int partsFor(const Context& context, double work) {
  const double useful = 1 + work / 16384;
  const int threads = context.pool->threads();
  const int most = threads > 1 && useful > 64 * threads ? PARTS_A_THREAD * threads : threads;
  return useful < most ? static_cast<int>(useful) : most;
}

/** Cuts [0, count) into `parts` equal contiguous ranges and calls `body(range)` for each, on all threads. */
template <class Body>
void parallelRanges(const Context& context, int parts, int64_t count, const Body& body) {
  if (parts > count) parts = count > 1 ? static_cast<int>(count) : 1;
  context.pool->run(parts, [&](int part) { body(partOf(count, part, parts)); });
}

}  // namespace memory3
