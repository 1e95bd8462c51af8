/** The names of the kernels, which every engine exports as they are (native/cpu/kernels.h, native/cuda/kernels.h). */
#pragma once

/** `KERNEL(name)` for each. */
#define MEMORY3_KERNELS(KERNEL) \
  KERNEL(embedding)             \
  KERNEL(embeddingGrad)         \
  KERNEL(rmsNorm)               \
  KERNEL(rmsNormGrad)           \
  KERNEL(linear)                \
  KERNEL(linearGrad)            \
  KERNEL(rope)                  \
  KERNEL(attention)             \
  KERNEL(attentionGrad)         \
  KERNEL(swiglu)                \
  KERNEL(swigluGrad)            \
  KERNEL(crossEntropy)          \
  KERNEL(tokenScores)           \
  KERNEL(selectTokens)          \
  KERNEL(gatherTokens)          \
  KERNEL(gatherTokensGrad)      \
  KERNEL(unpackMemories)        \
  KERNEL(adamw)                 \
  KERNEL(globalNorm)            \
  KERNEL(matMul)                \
  KERNEL(add)                   \
  KERNEL(multiply)              \
  KERNEL(scale)                 \
  KERNEL(sumAxis)               \
  KERNEL(copyRows)              \
  KERNEL(argMax)                \
  KERNEL(fill)                  \
  KERNEL(cast)
