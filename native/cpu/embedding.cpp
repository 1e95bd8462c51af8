/** `Embedding`. Legend: N tokens, V vocabulary, d width. */

#include <cstring>
#include <string>

#include "kernels.h"

namespace memory3 {

static void expectIds(const char* kernel, Ints ids, int64_t rows) {
  for (int64_t n = 0; n < ids.size; n++) {
    if (ids.data[n] >= 0 && ids.data[n] < rows) continue;
    throw std::invalid_argument(std::string(kernel) + ": id " + std::to_string(ids.data[n]) + " is not in [0, " +
                                std::to_string(rows) + ")");
  }
}

void embedding(Context& context, Ints ids, Floats weight, int64_t width, FloatsOut out) {
  expect(width > 0 && weight.size % width == 0, "Embedding: the weight is not made of rows of this width");
  expectSize("Embedding: out", out.size, ids.size * width);
  expectIds("Embedding", ids, weight.size / width);
  parallelRanges(context, partsFor(context, out.size), ids.size, [&](Range part) {
    for (int64_t n = part.begin; n < part.end; n++) {
      std::memcpy(out.data + n * width, weight.data + ids.data[n] * width, width * sizeof(float));
    }
  });
}

/** Adds rows in text order; a part owns some columns of all rows, so that no two write to one element. */
MEMORY3_VECTORISED static void scatterColumns(const int32_t* ids, const float* dy, int64_t tokens, int64_t width,
                                              Range columns, float* out) {
  for (int64_t n = 0; n < tokens; n++) {
    const float* from = dy + n * width;
    float* to = out + ids[n] * width;
#pragma omp simd
    for (int64_t i = columns.begin; i < columns.end; i++) to[i] += from[i];
  }
}

void embeddingGrad(Context& context, Ints ids, Floats dy, int64_t rows, FloatsOut dWeight) {
  expect(rows > 0 && dWeight.size % rows == 0, "EmbeddingGrad: the gradient is not made of so many rows");
  const int64_t width = dWeight.size / rows;
  expectSize("EmbeddingGrad: dy", dy.size, ids.size * width);
  expectIds("EmbeddingGrad", ids, rows);
  parallelRanges(context, partsFor(context, dWeight.size), dWeight.size, [&](Range part) {
    std::memset(dWeight.data + part.begin, 0, part.size() * sizeof(float));
  });
  const int64_t lines = (width + 15) / 16;  // whole cache lines
  parallelRanges(context, partsFor(context, dy.size), lines, [&](Range part) {
    const Range columns{part.begin * 16, part.end * 16 < width ? part.end * 16 : width};
    scatterColumns(ids.data, dy.data, ids.size, width, columns, dWeight.data);
  });
}

}  // namespace memory3
