#include "sparse_search.h"

#include <algorithm>
#include <limits>
#include <system_error>
#include <thread>

namespace memory3 {
namespace {

/** The best results of each query so far, [n, k]. */
struct Best {
  int64_t k;
  std::vector<int32_t> ids;
  std::vector<float> scores;

  Best(int64_t queries, int64_t k)
      : k(k), ids(queries * k, -1), scores(queries * k, -std::numeric_limits<float>::infinity()) {}

  /** The least score that a vector needs to be among the best of a query, if its number is higher than theirs. */
  float needed(int64_t query) const { return scores[(query + 1) * k - 1]; }

  /** Vectors must come in the order of their numbers. */
  void insert(int64_t query, int32_t id, float score) {
    int64_t slot = (query + 1) * k - 1;
    for (; slot > query * k && scores[slot - 1] < score; slot--) {
      scores[slot] = scores[slot - 1];
      ids[slot] = ids[slot - 1];
    }
    scores[slot] = score;
    ids[slot] = id;
  }
};

/** The inner products of a query with the vectors of a block. */
void products(const SparseBlock& block, const float* query, int64_t dimensions, float* sums) {
  std::fill(sums, sums + block.size, 0.0f);
  for (int64_t dimension = 0; dimension < dimensions; dimension++) {
    const float weight = query[dimension];
    if (weight == 0) continue;
    const int32_t end = block.starts.data[dimension + 1];
    for (int32_t i = block.starts.data[dimension]; i < end; i++) {
      // The mask keeps a number that is not right inside of the sums.
      sums[block.rows.data[i] & (SPARSE_BLOCK - 1)] += weight * block.values.data[i];
    }
  }
}

/** Whether any of 16 sums exceeds `needed`; few do, so that they are looked at in groups. */
MEMORY3_INLINE bool anyAbove(const float* sums, float needed) {
  int above = 0;
  for (int i = 0; i < 16; i++) above |= sums[i] > needed;
  return above != 0;
}

MEMORY3_VECTORISED void keepBest(const float* sums, int64_t size, int32_t first, int64_t query, Best& best) {
  for (int64_t row = 0; row < size; row += 16) {
    if (row + 16 <= size && !anyAbove(sums + row, best.needed(query))) continue;
    for (int64_t i = row; i < std::min(row + 16, size); i++) {
      if (sums[i] > best.needed(query)) best.insert(query, first + static_cast<int32_t>(i), sums[i]);
    }
  }
}

/** Blocks [begin, end), the first of whose vectors is number `first`. */
void searchBlocks(const std::vector<SparseBlock>& blocks, int64_t begin, int64_t end, int64_t first, Floats queries,
                  int64_t dimensions, float* sums, Best& best) {
  const int64_t count = queries.size / dimensions;
  for (int64_t number = begin; number < end; number++) {
    const SparseBlock& block = blocks[number];
    for (int64_t query = 0; query < count; query++) {
      products(block, queries.data + query * dimensions, dimensions, sums);
      keepBest(sums, block.size, static_cast<int32_t>(first), query, best);
    }
    first += block.size;
  }
}

/** Begins work on a thread of its own; false when the system gives none. */
template <class Work>
bool started(std::vector<std::thread>& running, const Work& work) {
  try {
    running.emplace_back(work);
    return true;
  } catch (const std::system_error&) {
    return false;
  }
}

}  // namespace

void checkSparseBlock(const SparseBlock& block, int64_t dimensions) {
  expect(block.size >= 0 && block.size <= SPARSE_BLOCK, "sparse search: a block has too many vectors");
  expectSize("sparse search: starts", block.starts.size, dimensions + 1);
  expectSize("sparse search: rows", block.rows.size, block.values.size);
  const int32_t* starts = block.starts.data;
  expect(starts[0] == 0 && starts[dimensions] == block.rows.size && std::is_sorted(starts, starts + dimensions + 1),
         "sparse search: the starts of a block do not ascend from zero to the number of its values");
}

void sparseSearch(const std::vector<SparseBlock>& blocks, Floats queries, int64_t dimensions, int64_t k, int threads,
                  IntsOut ids, FloatsOut scores) {
  const int64_t count = queries.size / dimensions;
  const auto all = static_cast<int64_t>(blocks.size());
  const int64_t parts = std::max<int64_t>(1, std::min<int64_t>(threads, all));
  std::vector<Best> best(parts, Best(count, k));
  std::vector<float> sums(parts * SPARSE_BLOCK);
  std::vector<std::thread> running;
  running.reserve(parts);
  int64_t first = 0;
  for (int64_t part = 0, begin = 0; part < parts; part++) {
    const int64_t end = all * (part + 1) / parts;
    const auto work = [&, part, begin, end, first] {
      searchBlocks(blocks, begin, end, first, queries, dimensions, sums.data() + part * SPARSE_BLOCK, best[part]);
    };
    if (part + 1 == parts || !started(running, work)) work();
    for (; begin < end; begin++) first += blocks[begin].size;
  }
  for (std::thread& thread : running) thread.join();
  // The parts in order: numbers go on ascending.
  for (int64_t part = 1; part < parts; part++) {
    for (int64_t query = 0; query < count; query++) {
      for (int64_t slot = query * k; slot < (query + 1) * k && best[part].ids[slot] >= 0; slot++) {
        if (best[part].scores[slot] > best[0].needed(query)) {
          best[0].insert(query, best[part].ids[slot], best[part].scores[slot]);
        }
      }
    }
  }
  std::copy(best[0].ids.begin(), best[0].ids.end(), ids.data);
  std::copy(best[0].scores.begin(), best[0].scores.end(), scores.data);
}

}  // namespace memory3
