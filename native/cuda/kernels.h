/**
 * The kernels that JavaScript can call, under the names and with the arguments of native/cpu/kernels.h. They throw
 * std::invalid_argument when sizes do not fit, before anything is launched; what only the device can see, an index out of
 * range, is told by the next read (see Fault). Numbers may be stored as float32 or bfloat16: the type of an output decides
 * in which a kernel computes its tiles, sums are always float32. Outputs must not overlap inputs, unless it says so.
 */
#pragma once

#include "context.h"

namespace memory3 {

using Numbers = const std::vector<int64_t>&;
using TensorList = const Tensors&;

void embedding(Context& context, Tensor ids, Tensor weight, int64_t width, Tensor out);
void embeddingGrad(Context& context, Tensor ids, Tensor dy, int64_t rows, Tensor dWeight);

void rmsNorm(Context& context, Tensor x, Tensor weight, double epsilon, Tensor out);
void rmsNormGrad(Context& context, Tensor x, Tensor weight, Tensor dy, double epsilon, Tensor dx, Tensor dWeight);

/** Several maps of the same x; `residual`, which may be empty, is added to each output. */
void linear(Context& context, Tensor x, TensorList weights, Tensor residual, int64_t rows, TensorList outs);
/** dx is the sum over the maps. */
void linearGrad(Context& context, Tensor x, TensorList weights, TensorList dys, int64_t rows, Tensor dx,
                TensorList dWeights);

void rope(Context& context, Tensor x, Tensor positions, int64_t heads, int64_t dim, double theta, bool inverse,
          Tensor out);

/**
 * `shape` holds the fields of AttentionShape in order; without memories their tensors are empty, and so is `firstVisible`
 * where the context is seen from its start.
 */
void attention(Context& context, Tensor q, Tensor k, Tensor v, Tensor memoryKeys, Tensor memoryValues, Tensor lengths,
               Tensor index, Tensor firstVisible, Numbers shape, Tensor out, Tensor share, Tensor lse);
void attentionGrad(Context& context, Tensor q, Tensor k, Tensor v, Tensor memoryKeys, Tensor memoryValues,
                   Tensor lengths, Tensor index, Tensor firstVisible, Numbers shape, Tensor dy, Tensor out, Tensor lse,
                   Tensor dq, Tensor dk, Tensor dv, Tensor dMemoryKeys, Tensor dMemoryValues);

void swiglu(Context& context, Tensor gate, Tensor up, Tensor out);
void swigluGrad(Context& context, Tensor gate, Tensor up, Tensor dy, Tensor dGate, Tensor dUp);

/** `sum` is one number, the sum of the losses. Without gradients `dHidden` and `dWeight` are empty. */
void crossEntropy(Context& context, Tensor hidden, Tensor weight, Tensor targets, Tensor sum, Tensor losses,
                  Tensor dHidden, Tensor dWeight);

void tokenScores(Context& context, Tensor q, Tensor k, Tensor lengths, int64_t tokens, int64_t heads, int64_t kvHeads,
                 int64_t skip, bool softmax, Tensor out);
void selectTokens(Context& context, Tensor scores, int64_t tokens, int64_t count, Tensor out);
void gatherTokens(Context& context, Tensor x, Tensor indices, int64_t tokens, int64_t heads, int64_t kept, Tensor out);
void gatherTokensGrad(Context& context, Tensor indices, Tensor dy, int64_t tokens, int64_t heads, int64_t kept,
                      Tensor dx);

/** `rows` are `memories` stored memories, `type` 0 float32, 1 float16, 2 bfloat16; `parts` keys and values of each layer. */
void unpackMemories(Context& context, Tensor rows, int64_t type, int64_t memories, TensorList parts);

/** The outputs may be the inputs. Where a parameter has a copy as bfloat16, that is written along. */
void adamw(Context& context, TensorList parameters, TensorList gradients, TensorList m, TensorList v, double lr,
           double beta1, double beta2, double epsilon, double weightDecay, double step, double gradScale,
           TensorList newParameters, TensorList newM, TensorList newV);
void globalNorm(Context& context, TensorList tensors, Tensor norm);

void matMul(Context& context, Tensor a, Tensor b, int64_t rows, int64_t columns, int64_t inner, bool transposeA,
            bool transposeB, Tensor out);
/** The output may be an input. */
void add(Context& context, Tensor a, Tensor b, Tensor out);
void multiply(Context& context, Tensor a, Tensor b, Tensor out);
/** `factor` is one number. */
void scale(Context& context, Tensor a, Tensor factor, Tensor out);
void sumAxis(Context& context, Tensor x, int64_t outer, int64_t axis, int64_t inner, Tensor out);
/** Copies `rows` rows of `width` elements; offsets and strides in elements. */
void copyRows(Context& context, Tensor from, int64_t fromOffset, int64_t fromStride, int64_t rows, int64_t width,
              int64_t toStride, int64_t toOffset, Tensor to);
void argMax(Context& context, Tensor x, Tensor out);
void fill(Context& context, double value, Tensor out);
void cast(Context& context, Tensor from, Tensor to);

}  // namespace memory3
