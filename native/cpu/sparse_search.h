/** Exact search over vectors that are mostly zero. Legend: n queries, d dimensions, k results of a query. */
#pragma once

#include <cstdint>
#include <vector>

#include "common.h"

namespace memory3 {

/** Vectors of one block, a power of two: their sums stay in the first cache. */
constexpr int64_t SPARSE_BLOCK = 16384;

/** Up to SPARSE_BLOCK vectors: the numbers of dimension j that are not zero are [starts[j], starts[j + 1]). */
struct SparseBlock {
  /** Vectors in it. */
  int64_t size;
  /** [d + 1] */
  Array<const int32_t> starts;
  /** Vectors that the numbers belong to, ascending in each dimension. */
  Array<const uint16_t> rows;
  Array<const float> values;
};

/** @throws std::invalid_argument when the arrays of a block do not fit together */
void checkSparseBlock(const SparseBlock& block, int64_t dimensions);

/**
 * The k vectors with the greatest inner product for each of `queries` [n, d], the greatest first and of equal ones the first;
 * vectors are numbered through the blocks. `ids` and `scores` [n, k]: −1 and −infinity where there are fewer.
 * The same bits for any number of threads. The blocks must have been checked.
 */
void sparseSearch(const std::vector<SparseBlock>& blocks, Floats queries, int64_t dimensions, int64_t k, int threads,
                  IntsOut ids, FloatsOut scores);

}  // namespace memory3
