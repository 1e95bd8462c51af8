/**
 * `Linear`: maps of the same rows, out_i [N, out_i] = x [N, in] · weight_i [out_i, in]ᵀ (+ residual), their gradients, and
 * products of matrices in general.
 * Legend: N rows.
 *
 * Forward a product a map, 2·N·in·out_i operations. The residual is the addend of the product: it is read where it is and
 * nothing is copied. Backward two products a map, dx (+)= dy_i · weight_i and dWeight_i = dy_iᵀ · x. All are cuBLASLt's,
 * which is close to what the tensor cores can do from a few hundred rows on; the transposed operands of all three are read
 * as they are stored. Master weights in float32 are read as bfloat16 from the copy that their buffer keeps (see Operand),
 * their gradients are written in float32 straight from the accumulators.
 */

#include "blas.h"
#include "kernels.h"

namespace memory3 {
namespace {

/** Checks sizes. @returns the width of x */
int64_t inputsOf(const Tensor& x, TensorList weights, int64_t rows) {
  expect(rows > 0 && x.count > 0 && x.count % rows == 0, "Linear: x does not fit its number of rows");
  const int64_t inputs = x.count / rows;
  for (const Tensor& weight : weights) expect(weight.count % inputs == 0, "Linear: a weight does not fit x");
  return inputs;
}

template <class T>
Matrix matrix(const T* data, int64_t rows, int64_t columns, bool transposed = false) {
  return {data, typeOf<std::remove_const_t<T>>(), rows, columns, columns, transposed};
}

/** A result, in the type that it is stored in. */
Matrix resultOf(const Tensor& out, int64_t rows, int64_t columns) {
  Matrix result{nullptr, out.type(), rows, columns, columns};
  withType(out.type(), [&](auto type) { result.data = out.as<decltype(type)>(); });
  return result;
}

void clear(Context& context, const Tensor& out) {
  if (out.empty()) return;
  withType(out.type(), [&](auto type) {
    using T = decltype(type);
    check(cudaMemsetAsync(out.as<T>(), 0, static_cast<std::size_t>(out.count) * sizeof(T), context.stream()),
          "clearing memory");
  });
}

template <class T>
void linearAs(Context& context, const Tensor& x, TensorList weights, const Tensor& residual, int64_t rows,
              TensorList outs) {
  const int64_t inputs = x.count / rows;
  const Operand<T> values(context, x);
  const Operand<T> added(context, residual);
  for (std::size_t i = 0; i < weights.size(); i++) {
    if (outs[i].empty()) continue;
    const int64_t outputs = weights[i].count / inputs;
    const Operand<T> weight(context, weights[i]);
    context.blas().multiply(context, matrix(values.data(), rows, inputs), matrix(weight.data(), outputs, inputs, true),
                            matrix(outs[i].as<T>(), rows, outputs), added.data(), residual.empty() ? 0 : 1);
  }
}

template <class T>
void linearGradAs(Context& context, const Tensor& x, TensorList weights, TensorList dys, int64_t rows, const Tensor& dx,
                  TensorList dWeights) {
  const int64_t inputs = x.count / rows;
  const Operand<T> values(context, x);
  bool begun = false;
  for (std::size_t i = 0; i < weights.size(); i++) {
    if (weights[i].empty()) continue;
    const int64_t outputs = weights[i].count / inputs;
    const Operand<T> weight(context, weights[i]);
    const Operand<T> upstream(context, dys[i]);
    context.blas().multiply(context, matrix(upstream.data(), rows, outputs), matrix(weight.data(), outputs, inputs),
                            matrix(dx.as<T>(), rows, inputs), dx.as<T>(), begun ? 1 : 0);
    begun = true;
    context.blas().multiply(context, matrix(upstream.data(), rows, outputs, true), matrix(values.data(), rows, inputs),
                            resultOf(dWeights[i], outputs, inputs), nullptr, 0);
  }
  if (!begun) clear(context, dx);
}

}  // namespace

void linear(Context& context, Tensor x, TensorList weights, Tensor residual, int64_t rows, TensorList outs) {
  expect(outs.size() == weights.size(), "Linear: weights and outputs differ in number");
  if (rows == 0) {
    for (const Tensor& out : outs) expect(out.empty(), "Linear: an output does not fit x");
    return;
  }
  const int64_t inputs = inputsOf(x, weights, rows);
  for (std::size_t i = 0; i < outs.size(); i++) {
    expect(outs[i].count == rows * (weights[i].count / inputs), "Linear: an output does not fit x and its weight");
    expect(residual.empty() || residual.count == outs[i].count, "Linear: the residual and an output differ in size");
    expect(outs[i].empty() || outs[0].empty() || outs[i].type() == outs[0].type(),
           "Linear: the outputs are stored in different types");
  }
  if (outs.empty() || outs[0].empty()) return;
  withType(outs[0].type(), [&](auto type) {
    linearAs<decltype(type)>(context, x, weights, residual, rows, outs);
  });
}

void linearGrad(Context& context, Tensor x, TensorList weights, TensorList dys, int64_t rows, Tensor dx,
                TensorList dWeights) {
  expect(dys.size() == weights.size() && dWeights.size() == weights.size(),
         "LinearGrad: weights and gradients differ in number");
  for (std::size_t i = 0; i < weights.size(); i++) {
    expect(dWeights[i].count == weights[i].count, "LinearGrad: a weight and its gradient differ in size");
  }
  expect(dx.count == x.count, "LinearGrad: x and its gradient differ in size");
  if (rows == 0) {
    for (const Tensor& dWeight : dWeights) clear(context, dWeight);
    return;
  }
  const int64_t inputs = inputsOf(x, weights, rows);
  for (std::size_t i = 0; i < weights.size(); i++) {
    expect(dys[i].count == rows * (weights[i].count / inputs), "LinearGrad: dy does not fit x and its weight");
  }
  withType(dx.type(), [&](auto type) {
    linearGradAs<decltype(type)>(context, x, weights, dys, rows, dx, dWeights);
  });
}

void matMul(Context& context, Tensor a, Tensor b, int64_t rows, int64_t columns, int64_t inner, bool transposeA,
            bool transposeB, Tensor out) {
  expect(rows >= 0 && columns >= 0 && inner >= 0 && a.count == rows * inner && b.count == inner * columns,
         "BatchMatMul: the sizes of the operands do not fit");
  expect(out.count == rows * columns, "BatchMatMul: the size of the result does not fit");
  if (out.empty()) return;
  withType(out.type(), [&](auto type) {
    using T = decltype(type);
    const Operand<T> left(context, a);
    const Operand<T> right(context, b);
    const Matrix first = transposeA ? matrix(left.data(), inner, rows, true) : matrix(left.data(), rows, inner);
    const Matrix second =
        transposeB ? matrix(right.data(), columns, inner, true) : matrix(right.data(), inner, columns);
    context.blas().multiply(context, first, second, matrix(out.as<T>(), rows, columns), nullptr, 0);
  });
}

}  // namespace memory3
