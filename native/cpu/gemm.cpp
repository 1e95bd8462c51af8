#include "gemm.h"

#ifdef MEMORY3_BLAS
#include <cblas.h>

// There when OpenBLAS is the build with OpenMP. That build looks at the OpenMP setting of the calling thread and forgets
// its own; its threads then turn in waiting loops beside ours.
extern "C" void omp_set_num_threads(int) __attribute__((weak));
#endif

namespace memory3 {

#ifdef MEMORY3_BLAS

std::string blasName() {
#ifdef OPENBLAS_VERSION
  return std::string(OPENBLAS_VERSION) + " (" + openblas_get_corename() + ")";
#else
  return "CBLAS";
#endif
}

void useOneBlasThread() {
  if (omp_set_num_threads) omp_set_num_threads(1);
#ifdef OPENBLAS_VERSION
  openblas_set_num_threads(1);
#endif
}

void gemm(int64_t rows, int64_t columns, int64_t inner, float alpha, Matrix a, Matrix b, float beta, float* out,
          int64_t outStride) {
  if (rows == 0 || columns == 0) return;
  const auto order = [](const Matrix& x) { return x.transposed ? CblasTrans : CblasNoTrans; };
  const auto narrow = [](int64_t value) { return static_cast<blasint>(value); };
  cblas_sgemm(CblasRowMajor, order(a), order(b), narrow(rows), narrow(columns), narrow(inner), alpha, a.data,
              narrow(a.stride), b.data, narrow(b.stride), beta, out, narrow(outStride));
}

#else

std::string blasName() { return "no BLAS"; }

void useOneBlasThread() {}

/** One row of the product; the loop over columns has no dependences, so it vectorises. */
MEMORY3_VECTORISED static void addRow(int64_t columns, int64_t inner, float alpha, const float* a, int64_t aStep,
                                      const float* b, int64_t bRow, int64_t bColumn, float* out) {
  if (bColumn == 1) {
    for (int64_t k = 0; k < inner; k++) {
      const float factor = alpha * a[k * aStep];
#pragma omp simd
      for (int64_t j = 0; j < columns; j++) out[j] += factor * b[k * bRow + j];
    }
    return;
  }
  for (int64_t j = 0; j < columns; j++) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t k = 0; k < inner; k++) sum += a[k * aStep] * b[k * bRow + j * bColumn];
    out[j] += alpha * sum;
  }
}

void gemm(int64_t rows, int64_t columns, int64_t inner, float alpha, Matrix a, Matrix b, float beta, float* out,
          int64_t outStride) {
  for (int64_t i = 0; i < rows; i++) {
    float* row = out + i * outStride;
    for (int64_t j = 0; j < columns; j++) row[j] = beta == 0 ? 0 : beta * row[j];
    const float* aRow = a.transposed ? a.data + i : a.data + i * a.stride;
    addRow(columns, inner, alpha, aRow, a.transposed ? a.stride : 1, b.data, b.transposed ? 1 : b.stride,
           b.transposed ? b.stride : 1, row);
  }
}

#endif

void parallelGemm(const Context& context, int64_t rows, int64_t columns, int64_t inner, Matrix a, Matrix b, float* out,
                  int64_t outStride) {
  const int parts = partsFor(context, static_cast<double>(rows) * columns * inner / 8);
  if (rows >= columns) {
    parallelRanges(context, parts, rows, [&](Range part) {
      const Matrix own{a.data + part.begin * (a.transposed ? 1 : a.stride), a.stride, a.transposed};
      gemm(part.size(), columns, inner, 1, own, b, 0, out + part.begin * outStride, outStride);
    });
  } else {
    parallelRanges(context, parts, columns, [&](Range part) {
      const Matrix own{b.data + part.begin * (b.transposed ? b.stride : 1), b.stride, b.transposed};
      gemm(rows, part.size(), inner, 1, a, own, 0, out + part.begin, outStride);
    });
  }
}

}  // namespace memory3
