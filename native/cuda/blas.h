/** Products of matrices by cuBLASLt, which is looked for when the first one is asked for. */
#pragma once

#include <memory>
#include <string>

#include "context.h"

namespace memory3 {

/** A matrix in rows: element (r, c) stands at r · stride + c. */
struct Matrix {
  const void* data;
  Type type;  // float32 or bfloat16
  int64_t rows, columns;
  int64_t stride;
  bool transposed = false;  // whether its transposed is meant: `rows` and `columns` are those of what is stored
};

/** One handle, one workspace and the plans of all shapes met so far. */
class Blas {
 public:
  /** Loads cuBLASLt. Throws std::runtime_error that says where it was looked for and how to name another place. */
  Blas();
  ~Blas();
  Blas(const Blas&) = delete;
  Blas& operator=(const Blas&) = delete;

  /**
   * out = a · b + beta · addend, sums in float32. `a` and `b` are of one type; `out` is of that type or float32; `addend`
   * is of the type and layout of `out`, may be `out` itself, and is not read when beta is 0.
   */
  void multiply(Context& context, const Matrix& a, const Matrix& b, const Matrix& out, const void* addend, float beta);

  /** Which library this is and where it was found. */
  std::string describe() const;

 private:
  struct Library;
  std::unique_ptr<Library> library_;
};

}  // namespace memory3
