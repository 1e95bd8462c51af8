/** The products of gemm.h by a CBLAS library, which the build takes in place of gemm.cpp when it is asked to. */

#include <cblas.h>

#include <algorithm>

#include "gemm.h"

// There when OpenBLAS is the build with OpenMP. That build looks at the OpenMP setting of the calling thread and forgets
// its own; its threads then turn in waiting loops beside ours.
extern "C" void omp_set_num_threads(int) __attribute__((weak));

namespace memory3 {

std::string describeProducts(const Context&) {
#ifdef OPENBLAS_VERSION
  return std::string(OPENBLAS_VERSION) + " (" + openblas_get_corename() + ")";
#else
  return "CBLAS";
#endif
}

void prepareThread() {
  if (omp_set_num_threads) omp_set_num_threads(1);
#ifdef OPENBLAS_VERSION
  openblas_set_num_threads(1);
#endif
}

void gemmRows(const Context&, const Product& product, Range rows) {
  const auto& [columns, inner, a, b, out, outStride, before] = product;
  if (rows.size() == 0 || columns == 0) return;
  float* to = out + rows.begin * outStride;
  if (before && before != out) {
    for (int64_t row = rows.begin; row < rows.end; row++) {
      std::copy(before + row * outStride, before + row * outStride + columns, out + row * outStride);
    }
  }
  const auto order = [](const Matrix& x) { return x.transposed ? CblasTrans : CblasNoTrans; };
  const auto narrow = [](int64_t value) { return static_cast<int>(value); };
  cblas_sgemm(CblasRowMajor, order(a), order(b), narrow(rows.size()), narrow(columns), narrow(inner), 1,
              a.data + rows.begin * (a.transposed ? 1 : a.stride), narrow(a.stride), b.data, narrow(b.stride),
              before ? 1 : 0, to, narrow(outStride));
}

void gemm(Context& context, int64_t rows, const Product& product) {
  const double work = static_cast<double>(rows) * product.columns * product.inner;
  parallelRanges(context, partsFor(context, work / 8), rows, [&](Range own) { gemmRows(context, product, own); });
}

void gemm(Context& context, int64_t rows, const std::vector<Product>& products) {
  for (const Product& product : products) gemm(context, rows, product);
}

}  // namespace memory3
