/** Matrix products of row-major float32 matrices. */
#pragma once

#include "common.h"

namespace memory3 {

/** A matrix in memory, `stride` elements from row to row, that a product takes as it is or transposed. */
struct Matrix {
  const float* data;
  int64_t stride;
  bool transposed = false;
};

/** out[rows, columns] = a[rows, inner] · b[inner, columns], plus what `before` holds where it is there. */
struct Product {
  int64_t columns;
  int64_t inner;
  Matrix a;
  Matrix b;
  float* out;
  int64_t outStride;
  /** Lies as `out` does, and may be it. */
  const float* before = nullptr;
};

/**
 * Products on all threads. Each element is summed by one of them and in the same order for any number of threads. Must not
 * be called inside of a parallel part.
 */
void gemm(Context& context, int64_t rows, const Product& product);

/** Products of as many rows, one after the other for some rows at a time, so that what they share stays in the caches. */
void gemm(Context& context, int64_t rows, const std::vector<Product>& products);

/** Some rows of a product, on the calling thread, which may be a part of something parallel. */
void gemmRows(const Context& context, const Product& product, Range rows);

/** What multiplies, in words. */
std::string describeProducts(const Context& context);

/** To be called on each thread that multiplies, before. */
void prepareThread();

}  // namespace memory3
