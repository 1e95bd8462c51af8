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

/** out[rows, columns] = alpha · a[rows, inner] · b[inner, columns] + beta · out, on the calling thread. */
void gemm(int64_t rows, int64_t columns, int64_t inner, float alpha, Matrix a, Matrix b, float beta, float* out,
          int64_t outStride);

/** out = a · b on all threads; each element is computed by one of them. */
void parallelGemm(const Context& context, int64_t rows, int64_t columns, int64_t inner, Matrix a, Matrix b, float* out,
                  int64_t outStride);

/** The library that multiplies. */
std::string blasName();

/** Keeps the BLAS library from using threads of its own. To be called on each thread that multiplies. */
void useOneBlasThread();

}  // namespace memory3
