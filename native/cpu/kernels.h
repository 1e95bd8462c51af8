/**
 * The kernels that JavaScript can call, in the order of src/ops. They throw std::invalid_argument when sizes or indices
 * do not fit, before they write anything. Outputs must not overlap inputs, unless it says so.
 */
#pragma once

#include <vector>

#include "common.h"

namespace memory3 {

using Numbers = const std::vector<int64_t>&;
using FloatsList = const std::vector<Floats>&;
using FloatsOutList = const std::vector<FloatsOut>&;

void embedding(Context& context, Ints ids, Floats weight, int64_t width, FloatsOut out);
void embeddingGrad(Context& context, Ints ids, Floats dy, int64_t rows, FloatsOut dWeight);

void rmsNorm(Context& context, Floats x, Floats weight, double epsilon, FloatsOut out);
void rmsNormGrad(Context& context, Floats x, Floats weight, Floats dy, double epsilon, FloatsOut dx, FloatsOut dWeight);

/** Several maps of the same x; `residual`, which may be empty, is added to each output. */
void linear(Context& context, Floats x, FloatsList weights, Floats residual, int64_t rows, FloatsOutList outs);
/** dx is the sum over the maps. */
void linearGrad(Context& context, Floats x, FloatsList weights, FloatsList dys, int64_t rows, FloatsOut dx,
                FloatsOutList dWeights);

void rope(Context& context, Floats x, Ints positions, int64_t heads, int64_t dim, double theta, bool inverse,
          FloatsOut out);

/**
 * `shape` holds the fields of AttentionShape in order; without memories their arrays are empty, and so is `firstVisible`
 * where the context is seen from its start.
 */
void attention(Context& context, Floats q, Floats k, Floats v, Floats memoryKeys, Floats memoryValues, Ints lengths,
               Ints index, Ints firstVisible, Numbers shape, FloatsOut out, FloatsOut share, FloatsOut lse);
void attentionGrad(Context& context, Floats q, Floats k, Floats v, Floats memoryKeys, Floats memoryValues, Ints lengths,
                   Ints index, Ints firstVisible, Numbers shape, Floats dy, Floats out, Floats lse, FloatsOut dq,
                   FloatsOut dk, FloatsOut dv, FloatsOut dMemoryKeys, FloatsOut dMemoryValues);

void swiglu(Context& context, Floats gate, Floats up, FloatsOut out);
void swigluGrad(Context& context, Floats gate, Floats up, Floats dy, FloatsOut dGate, FloatsOut dUp);

/** `sum` is one number, the sum of the losses. Without gradients `dHidden` and `dWeight` are empty. */
void crossEntropy(Context& context, Floats hidden, Floats weight, Ints targets, FloatsOut sum, FloatsOut losses,
                  FloatsOut dHidden, FloatsOut dWeight);

void tokenScores(Context& context, Floats q, Floats k, Ints lengths, int64_t tokens, int64_t heads, int64_t kvHeads,
                 int64_t skip, bool softmax, FloatsOut out);

void selectTokens(Context& context, Floats scores, int64_t tokens, int64_t count, IntsOut out);
void gatherTokens(Context& context, Floats x, Ints indices, int64_t tokens, int64_t heads, int64_t kept, FloatsOut out);
void gatherTokensGrad(Context& context, Ints indices, Floats dy, int64_t tokens, int64_t heads, int64_t kept,
                      FloatsOut dx);

/** How memories are stored; the numbers are those that JavaScript gives. */
enum class StorageType { float32 = 0, float16 = 1, bfloat16 = 2 };

/** `rows` are `memories` stored memories; `parts` are keys and values of each layer in turn. */
void unpackMemories(Context& context, Ints rows, int64_t type, int64_t memories, FloatsOutList parts);

/** The outputs may be the inputs. */
void adamw(Context& context, FloatsList parameters, FloatsList gradients, FloatsList m, FloatsList v, double lr,
           double beta1, double beta2, double epsilon, double weightDecay, double step, double gradScale,
           FloatsOutList newParameters, FloatsOutList newM, FloatsOutList newV);
void globalNorm(Context& context, FloatsList tensors, FloatsOut norm);

void matMul(Context& context, Floats a, Floats b, int64_t rows, int64_t columns, int64_t inner, bool transposeA,
            bool transposeB, FloatsOut out);
/** The output may be an input. */
void add(Context& context, Floats a, Floats b, FloatsOut out);
void multiply(Context& context, Floats a, Floats b, FloatsOut out);
/** `factor` is one number. */
void scale(Context& context, Floats a, Floats factor, FloatsOut out);
void sumAxis(Context& context, Floats x, int64_t outer, int64_t axis, int64_t inner, FloatsOut out);
/** Copies `rows` rows of `width` elements; offsets and strides in elements. */
void copyRows(Context& context, Floats from, int64_t fromOffset, int64_t fromStride, int64_t rows, int64_t width,
              int64_t toStride, int64_t toOffset, FloatsOut to);
void argMax(Context& context, Floats x, IntsOut out);
void fill(Context& context, double value, Values out);
void cast(Context& context, Values from, Values to);

}  // namespace memory3
