/** Until all kernels are there. */
#include "attention.h"
#include "blas.h"
#include "kernels.h"

namespace memory3 {
__attribute__((weak)) void embedding(Context&, Tensor, Tensor, int64_t, Tensor) { throw std::runtime_error("embedding is missing"); }
__attribute__((weak)) void embeddingGrad(Context&, Tensor, Tensor, int64_t, Tensor) { throw std::runtime_error("embeddingGrad is missing"); }
__attribute__((weak)) void linear(Context&, Tensor, TensorList, Tensor, int64_t, TensorList) { throw std::runtime_error("linear is missing"); }
__attribute__((weak)) void linearGrad(Context&, Tensor, TensorList, TensorList, int64_t, Tensor, TensorList) { throw std::runtime_error("linearGrad is missing"); }
__attribute__((weak)) void rope(Context&, Tensor, Tensor, int64_t, int64_t, double, bool, Tensor) { throw std::runtime_error("rope is missing"); }
__attribute__((weak)) void swiglu(Context&, Tensor, Tensor, Tensor) { throw std::runtime_error("swiglu is missing"); }
__attribute__((weak)) void swigluGrad(Context&, Tensor, Tensor, Tensor, Tensor, Tensor) { throw std::runtime_error("swigluGrad is missing"); }
__attribute__((weak)) void crossEntropy(Context&, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor) { throw std::runtime_error("crossEntropy is missing"); }
__attribute__((weak)) void tokenScores(Context&, Tensor, Tensor, Tensor, int64_t, int64_t, int64_t, int64_t, bool, Tensor) { throw std::runtime_error("tokenScores is missing"); }
__attribute__((weak)) void selectTokens(Context&, Tensor, int64_t, int64_t, Tensor) { throw std::runtime_error("selectTokens is missing"); }
__attribute__((weak)) void gatherTokens(Context&, Tensor, Tensor, int64_t, int64_t, int64_t, Tensor) { throw std::runtime_error("gatherTokens is missing"); }
__attribute__((weak)) void gatherTokensGrad(Context&, Tensor, Tensor, int64_t, int64_t, int64_t, Tensor) { throw std::runtime_error("gatherTokensGrad is missing"); }
__attribute__((weak)) void unpackMemories(Context&, Tensor, int64_t, int64_t, TensorList) { throw std::runtime_error("unpackMemories is missing"); }
__attribute__((weak)) void adamw(Context&, TensorList, TensorList, TensorList, TensorList, double, double, double, double, double, double, double, TensorList, TensorList, TensorList) { throw std::runtime_error("adamw is missing"); }
__attribute__((weak)) void globalNorm(Context&, TensorList, Tensor) { throw std::runtime_error("globalNorm is missing"); }
__attribute__((weak)) void matMul(Context&, Tensor, Tensor, int64_t, int64_t, int64_t, bool, bool, Tensor) { throw std::runtime_error("matMul is missing"); }
__attribute__((weak)) void add(Context&, Tensor, Tensor, Tensor) { throw std::runtime_error("add is missing"); }
__attribute__((weak)) void multiply(Context&, Tensor, Tensor, Tensor) { throw std::runtime_error("multiply is missing"); }
__attribute__((weak)) void scale(Context&, Tensor, Tensor, Tensor) { throw std::runtime_error("scale is missing"); }
__attribute__((weak)) void sumAxis(Context&, Tensor, int64_t, int64_t, int64_t, Tensor) { throw std::runtime_error("sumAxis is missing"); }
__attribute__((weak)) void copyRows(Context&, Tensor, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, Tensor) { throw std::runtime_error("copyRows is missing"); }
__attribute__((weak)) void argMax(Context&, Tensor, Tensor) { throw std::runtime_error("argMax is missing"); }
__attribute__((weak)) void fill(Context&, double, Tensor) { throw std::runtime_error("fill is missing"); }
__attribute__((weak)) void cast(Context&, Tensor, Tensor) { throw std::runtime_error("cast is missing"); }
__attribute__((weak)) void attendTiles(Context&, const AttentionInputs<Bf16>&, const AttentionOutputs<Bf16>&) { throw std::runtime_error("missing"); }
__attribute__((weak)) void attendTilesGrad(Context&, const AttentionInputs<Bf16>&, const AttentionGradients<Bf16>&) { throw std::runtime_error("missing"); }
__attribute__((weak)) void attendDecode(Context&, const AttentionInputs<Bf16>&, const AttentionOutputs<Bf16>&) { throw std::runtime_error("missing"); }
template <class T> __attribute__((weak)) void attendPlain(Context&, const AttentionInputs<T>&, const AttentionOutputs<T>&) { throw std::runtime_error("missing"); }
template <class T> __attribute__((weak)) void attendPlainGrad(Context&, const AttentionInputs<T>&, const AttentionGradients<T>&) { throw std::runtime_error("missing"); }
template void attendPlain<float>(Context&, const AttentionInputs<float>&, const AttentionOutputs<float>&);
template void attendPlainGrad<float>(Context&, const AttentionInputs<float>&, const AttentionGradients<float>&);
struct Blas::Library {};
__attribute__((weak)) Blas::Blas() {}
__attribute__((weak)) Blas::~Blas() {}
__attribute__((weak)) void Blas::multiply(Context&, const Matrix&, const Matrix&, const Matrix&, const void*, float) { throw std::runtime_error("no products"); }
__attribute__((weak)) std::string Blas::describe() const { return ""; }
}  // namespace memory3
