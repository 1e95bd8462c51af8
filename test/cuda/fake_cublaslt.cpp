/**
 * A cuBLASLt for tests, as its documentation describes it: matrices in columns, D = alpha · op(A) · op(B) + beta · C, on
 * memory of the host, in which the emulated device keeps its own. Slow and strict: what the real one would refuse, compute
 * wrongly or only survive by luck is an error status here. Sums are added in the order of k in float32. It shares nothing
 * with native/cuda/blas.cpp.
 */
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

namespace {

enum cublasStatus_t {
  CUBLAS_STATUS_SUCCESS = 0,
  CUBLAS_STATUS_NOT_INITIALIZED = 1,
  CUBLAS_STATUS_ALLOC_FAILED = 3,
  CUBLAS_STATUS_INVALID_VALUE = 7,
  CUBLAS_STATUS_EXECUTION_FAILED = 13,
  CUBLAS_STATUS_NOT_SUPPORTED = 15,
};
enum { CUDA_R_32F = 0, CUDA_R_16BF = 14, CUBLAS_COMPUTE_32F = 68 };
enum { CUBLAS_OP_N = 0, CUBLAS_OP_T = 1 };

struct HandleData {
  uint32_t magic = 0x48414e44;
};
struct DescData {
  uint32_t magic = 0x44455343;
  int32_t transa = CUBLAS_OP_N, transb = CUBLAS_OP_N;
};
struct LayoutData {
  uint32_t magic = 0x4c41594f;
  int type;
  uint64_t rows, cols;
  int64_t ld;
};
struct PreferenceData {
  uint32_t magic = 0x50524546;
  uint64_t maxWorkspace = 0;
  uint32_t reductionMask = 7;
  uint32_t alignment[4] = {256, 256, 256, 256};
};

template <class T>
bool alive(const T* object) {
  return object != nullptr && object->magic == T{}.magic;
}

struct MatmulAlgo {
  uint64_t data[8];
};
struct HeuristicResult {
  MatmulAlgo algo;
  size_t workspaceSize;
  cublasStatus_t state;
  float wavesCount;
  int reserved[4];
};

/** Says why, since a status alone does not. */
cublasStatus_t refuse(const char* why, cublasStatus_t status = CUBLAS_STATUS_INVALID_VALUE) {
  std::fprintf(stderr, "fake cuBLASLt: %s\n", why);
  return status;
}

size_t sizeOf(int type) { return type == CUDA_R_32F ? 4 : 2; }

float load(const void* data, int type, int64_t i) {
  float value;
  if (type == CUDA_R_32F) {
    std::memcpy(&value, static_cast<const char*>(data) + 4 * i, 4);
  } else {
    uint16_t upper;
    std::memcpy(&upper, static_cast<const char*>(data) + 2 * i, 2);
    const uint32_t bits = uint32_t{upper} << 16;
    std::memcpy(&value, &bits, 4);
  }
  return value;
}

void store(void* data, int type, int64_t i, float value) {
  if (type == CUDA_R_32F) {
    std::memcpy(static_cast<char*>(data) + 4 * i, &value, 4);
    return;
  }
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  uint16_t upper = bits >> 16;
  if (value != value) {
    upper |= 0x40;
  } else {
    const uint32_t rest = bits & 0xffff;
    if (rest > 0x8000 || (rest == 0x8000 && (upper & 1) != 0)) upper++;
  }
  std::memcpy(static_cast<char*>(data) + 2 * i, &upper, 2);
}

struct Problem {
  uint64_t m, n, k;
};

/** Whether descriptors and layouts make a product. */
cublasStatus_t problemOf(const DescData* desc, const LayoutData* a, const LayoutData* b, const LayoutData* c,
                         const LayoutData* d, Problem* problem) {
  if (!alive(desc)) return refuse("the descriptor of the operation is none");
  if (!alive(a) || !alive(b) || !alive(c) || !alive(d)) return refuse("a layout is none");
  const uint64_t m = desc->transa == CUBLAS_OP_N ? a->rows : a->cols;
  const uint64_t k = desc->transa == CUBLAS_OP_N ? a->cols : a->rows;
  const uint64_t n = desc->transb == CUBLAS_OP_N ? b->cols : b->rows;
  if ((desc->transb == CUBLAS_OP_N ? b->rows : b->cols) != k) return refuse("the inner dimensions of A and B differ");
  if (d->rows != m || d->cols != n || c->rows != m || c->cols != n) return refuse("C or D is not m × n");
  if (a->type != b->type || c->type != d->type) return refuse("types differ", CUBLAS_STATUS_NOT_SUPPORTED);
  if (d->type != a->type && d->type != CUDA_R_32F) return refuse("no such types", CUBLAS_STATUS_NOT_SUPPORTED);
  *problem = {m, n, k};
  return CUBLAS_STATUS_SUCCESS;
}

/** Bytes from the first to the last element of a matrix. */
size_t spanOf(const LayoutData* layout) {
  return ((layout->cols - 1) * static_cast<uint64_t>(layout->ld) + layout->rows) * sizeOf(layout->type);
}

bool overlap(const void* x, size_t xBytes, const void* y, size_t yBytes) {
  const auto xBegin = reinterpret_cast<uintptr_t>(x), yBegin = reinterpret_cast<uintptr_t>(y);
  return xBegin < yBegin + yBytes && yBegin < xBegin + xBytes;
}

constexpr uint64_t kAlgoMagic = 0x616c676f72697468;

/** Hashes what an algorithm was chosen for, so that it cannot be used for another product. */
uint64_t hashOf(const DescData* desc, const LayoutData* a, const LayoutData* b, const LayoutData* d) {
  uint64_t hash = 1469598103934665603u;
  const auto mix = [&](uint64_t x) { hash = (hash ^ x) * 1099511628211u; };
  mix(static_cast<uint64_t>(desc->transa * 2 + desc->transb));
  for (const LayoutData* layout : {a, b, d}) {
    mix(static_cast<uint64_t>(layout->type));
    mix(layout->rows);
    mix(layout->cols);
    mix(static_cast<uint64_t>(layout->ld));
  }
  return hash;
}

size_t workspaceFor(const Problem& problem) { return 1000 + problem.k % 97; }

}  // namespace

extern "C" {

size_t cublasLtGetVersion() { return 130200; }

cublasStatus_t cublasLtGetProperty(int type, int* value) {
  if (value == nullptr || type < 0 || type > 2) return refuse("no such property");
  const int version[] = {13, 2, 1};
  *value = version[type];
  return CUBLAS_STATUS_SUCCESS;
}

const char* cublasLtGetStatusName(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS: return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED: return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED: return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_EXECUTION_FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
  }
  return "<unknown>";
}

cublasStatus_t cublasLtCreate(HandleData** handle) {
  if (std::getenv("FAKE_CUBLASLT_BROKEN") != nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  *handle = new HandleData;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(HandleData* handle) {
  if (!alive(handle)) return refuse("the handle is none");
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(DescData** desc, int computeType, int scaleType) {
  if (computeType != CUBLAS_COMPUTE_32F) return refuse("only float32 without TF32 computes here");
  if (scaleType != CUDA_R_32F) return refuse("alpha and beta are not float32");
  *desc = new DescData;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(DescData* desc) {
  if (!alive(desc)) return refuse("the descriptor of the operation is none");
  delete desc;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(DescData* desc, int attribute, const void* value, size_t bytes) {
  if (!alive(desc)) return refuse("the descriptor of the operation is none");
  if (attribute != 3 && attribute != 4) return refuse("no such attribute of an operation here");
  if (bytes != sizeof(int32_t)) return refuse("an attribute of an operation is of another size");
  int32_t operation;
  std::memcpy(&operation, value, sizeof operation);
  if (operation != CUBLAS_OP_N && operation != CUBLAS_OP_T) return refuse("no such transposition");
  (attribute == 3 ? desc->transa : desc->transb) = operation;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(LayoutData** layout, int type, uint64_t rows, uint64_t cols, int64_t ld) {
  if (type != CUDA_R_32F && type != CUDA_R_16BF) return refuse("no such type of a matrix here");
  if (rows == 0 || cols == 0 || rows >> 40 != 0 || cols >> 40 != 0) return refuse("a matrix of no size");
  if (ld < static_cast<int64_t>(rows)) return refuse("the leading dimension is smaller than a column");
  *layout = new LayoutData;
  (*layout)->type = type;
  (*layout)->rows = rows;
  (*layout)->cols = cols;
  (*layout)->ld = ld;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(LayoutData* layout) {
  if (!alive(layout)) return refuse("a layout is none");
  delete layout;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(PreferenceData** preference) {
  *preference = new PreferenceData;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(PreferenceData* preference) {
  if (!alive(preference)) return refuse("the preference is none");
  delete preference;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(PreferenceData* preference, int attribute, const void* value,
                                                    size_t bytes) {
  if (!alive(preference)) return refuse("the preference is none");
  if (attribute == 1) {
    if (bytes != sizeof(uint64_t)) return refuse("the largest workspace is of 64 bits");
    std::memcpy(&preference->maxWorkspace, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
  }
  if (bytes != sizeof(uint32_t)) return refuse("a preference is of another size");
  if (attribute == 3) {
    std::memcpy(&preference->reductionMask, value, bytes);
    return preference->reductionMask <= 7 ? CUBLAS_STATUS_SUCCESS : refuse("no such reduction");
  }
  if (attribute < 5 || attribute > 8) return refuse("no such preference here");
  uint32_t alignment;
  std::memcpy(&alignment, value, bytes);
  if (alignment == 0 || alignment > 256 || (alignment & (alignment - 1)) != 0) return refuse("no such alignment");
  preference->alignment[attribute - 5] = alignment;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(HandleData* handle, DescData* desc, LayoutData* a, LayoutData* b,
                                              LayoutData* c, LayoutData* d, PreferenceData* preference, int requested,
                                              HeuristicResult results[], int* returned) {
  if (!alive(handle)) return refuse("the handle is none", CUBLAS_STATUS_NOT_INITIALIZED);
  if (!alive(preference) || requested < 3) return refuse("no preference, or too few results asked for");
  Problem problem{};
  const cublasStatus_t status = problemOf(desc, a, b, c, d, &problem);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  if ((preference->reductionMask & 5) != 0) return refuse("partial sums would be rounded");
  // One that the heuristics give up, one that the device turns out not to take, and one that works.
  std::memset(results, 0xee, sizeof(HeuristicResult) * static_cast<size_t>(requested));
  results[0].state = CUBLAS_STATUS_NOT_SUPPORTED;
  for (int i = 1; i < 3; i++) {
    results[i].state = CUBLAS_STATUS_SUCCESS;
    results[i].workspaceSize = workspaceFor(problem);
    results[i].wavesCount = 1;
    uint64_t* algo = results[i].algo.data;
    algo[0] = kAlgoMagic;
    algo[1] = hashOf(desc, a, b, d);
    algo[2] = static_cast<uint64_t>(i);
    for (int which = 0; which < 4; which++) algo[3 + which] = preference->alignment[which];
  }
  if (workspaceFor(problem) > preference->maxWorkspace || std::getenv("FAKE_CUBLASLT_NO_ALGORITHM") != nullptr) {
    *returned = 0;
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  *returned = 3;
  return CUBLAS_STATUS_SUCCESS;
}

/** A stream of the emulated device begins with the function that makes the copies which wait in it. */
void comeBehindCopies(void* stream) { (*static_cast<void (**)(void*)>(stream))(stream); }

cublasStatus_t cublasLtMatmul(HandleData* handle, DescData* desc, const void* alpha, const void* A, LayoutData* a,
                              const void* B, LayoutData* b, const void* beta, const void* C, LayoutData* c, void* D,
                              LayoutData* d, const MatmulAlgo* algo, void* workspace, size_t workspaceBytes,
                              void* stream) {
  comeBehindCopies(stream);
  if (!alive(handle)) return refuse("the handle is none", CUBLAS_STATUS_NOT_INITIALIZED);
  Problem problem{};
  const cublasStatus_t status = problemOf(desc, a, b, c, d, &problem);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  if (alpha == nullptr || beta == nullptr || A == nullptr || B == nullptr || C == nullptr || D == nullptr) {
    return refuse("an operand is null");
  }
  if (algo == nullptr || algo->data[0] != kAlgoMagic || algo->data[1] != hashOf(desc, a, b, d)) {
    return refuse("the algorithm was not chosen for this product");
  }
  const void* operands[] = {A, B, C, D};
  for (int i = 0; i < 4; i++) {
    if (reinterpret_cast<uintptr_t>(operands[i]) % algo->data[3 + i] != 0) {
      return refuse("an operand is not aligned as it was promised");
    }
  }
  if (overlap(D, spanOf(d), A, spanOf(a)) || overlap(D, spanOf(d), B, spanOf(b))) {
    return refuse("D overlaps A or B");
  }
  float alphaValue, betaValue;
  std::memcpy(&alphaValue, alpha, sizeof alphaValue);
  std::memcpy(&betaValue, beta, sizeof betaValue);
  if (betaValue != 0 && C != D && overlap(D, spanOf(d), C, spanOf(c))) return refuse("D overlaps C and is not it");
  if (C == D && c->ld != d->ld) return refuse("C is D and of another layout");
  const size_t needed = workspaceFor(problem);
  if (workspace == nullptr || workspaceBytes < needed || reinterpret_cast<uintptr_t>(workspace) % 256 != 0) {
    return refuse("the workspace is missing, too small or not aligned");
  }
  if (algo->data[2] != 2) return CUBLAS_STATUS_NOT_SUPPORTED;
  // So often there is no room for the code of an algorithm.
  static int without = std::atoi(std::getenv("FAKE_CUBLASLT_NO_ROOM") != nullptr ? std::getenv("FAKE_CUBLASLT_NO_ROOM") : "0");
  if (without > 0) {
    without--;
    return CUBLAS_STATUS_ALLOC_FAILED;
  }
  std::memset(workspace, 0x7f, needed);
  for (uint64_t column = 0; column < problem.n; column++) {
    for (uint64_t row = 0; row < problem.m; row++) {
      float sum = 0;
      for (uint64_t k = 0; k < problem.k; k++) {
        const uint64_t inA = desc->transa == CUBLAS_OP_T ? row * a->ld + k : k * a->ld + row;
        const uint64_t inB = desc->transb == CUBLAS_OP_T ? k * b->ld + column : column * b->ld + k;
        sum += load(A, a->type, static_cast<int64_t>(inA)) * load(B, b->type, static_cast<int64_t>(inB));
      }
      float value = alphaValue * sum;
      if (betaValue != 0) value += betaValue * load(C, c->type, static_cast<int64_t>(column * c->ld + row));
      store(D, d->type, static_cast<int64_t>(column * d->ld + row), value);
    }
  }
  return CUBLAS_STATUS_SUCCESS;
}
}
