/**
 * Products of matrices by cuBLASLt, versions 11 to 13. Its headers are not needed: the functions, constants and the one
 * structure that are used have been the same in these versions and are declared here.
 *
 * cuBLASLt counts along columns. A matrix in rows is its transposed in columns, so out = a · b is asked for as
 * outᵀ = bᵀ · aᵀ, and no number moves.
 *
 * What it takes to compute a product of one shape is a plan, made once: which algorithm to take is asked of the library's
 * heuristics, whose answer depends on the shape, the alignment of the operands and the device only. So the same shape is
 * computed in the same way in every step and after a resume. Partial sums, where an algorithm splits the inner dimension,
 * are kept in float32 and added in order.
 */
#include "blas.h"

#include <algorithm>
#include <array>
#include <map>
#include <tuple>

#include "shared_library.h"

namespace memory3 {
namespace {

using Handle = struct LtHandle*;
using Operation = struct LtOperation*;
using Layout = struct LtLayout*;
using Preference = struct LtPreference*;

// cublasStatus_t
constexpr int kSuccess = 0, kAllocationFailed = 3, kInvalidValue = 7, kNotSupported = 15;
// cudaDataType_t, cublasComputeType_t and cublasOperation_t
constexpr int kReal32 = 0, kRealBf16 = 14, kCompute32 = 68;
constexpr int32_t kAsStored = 0, kTransposed = 1;
// cublasLtMatmulDescAttributes_t, both int32_t
constexpr int kTransposeA = 3, kTransposeB = 4;
// cublasLtMatmulPreferenceAttributes_t: uint64_t, uint32_t and four of uint32_t
constexpr int kMostWorkspace = 1, kReductions = 3, kAlignmentA = 5, kAlignmentB = 6, kAlignmentC = 7, kAlignmentD = 8;
// cublasLtReductionScheme_t: partial sums in the type of the computation
constexpr uint32_t kReduceInFloat32 = 2;
// libraryPropertyType
constexpr int kMajor = 0, kMinor = 1, kPatch = 2;

/** cublasLtMatmulAlgo_t */
struct Algorithm {
  uint64_t data[8];
};

/** cublasLtMatmulHeuristicResult_t */
struct Candidate {
  Algorithm algorithm;
  std::size_t workspaceBytes;
  int state;
  float waves;
  int reserved[4];
};
static_assert(sizeof(Candidate) == 96, "cuBLASLt writes an array of these");

struct Functions {
  int (*create)(Handle*);
  int (*destroy)(Handle);
  int (*property)(int which, int* value);
  const char* (*statusName)(int status);  // since 11.4
  int (*createOperation)(Operation*, int computeType, int scaleType);
  int (*destroyOperation)(Operation);
  int (*setOperation)(Operation, int attribute, const void* value, std::size_t bytes);
  int (*createLayout)(Layout*, int type, uint64_t rows, uint64_t columns, int64_t leadingDimension);
  int (*destroyLayout)(Layout);
  int (*createPreference)(Preference*);
  int (*destroyPreference)(Preference);
  int (*setPreference)(Preference, int attribute, const void* value, std::size_t bytes);
  int (*heuristics)(Handle, Operation, Layout a, Layout b, Layout c, Layout d, Preference, int wanted, Candidate*,
                    int* found);
  int (*multiply)(Handle, Operation, const void* alpha, const void* a, Layout, const void* b, Layout, const void* beta,
                  const void* c, Layout, void* d, Layout, const Algorithm*, void* workspace, std::size_t workspaceBytes,
                  cudaStream_t);

  explicit Functions(const SharedLibrary& library) {
    library.find(create, "cublasLtCreate");
    library.find(destroy, "cublasLtDestroy");
    library.find(property, "cublasLtGetProperty");
    library.findIfThere(statusName, "cublasLtGetStatusName");
    library.find(createOperation, "cublasLtMatmulDescCreate");
    library.find(destroyOperation, "cublasLtMatmulDescDestroy");
    library.find(setOperation, "cublasLtMatmulDescSetAttribute");
    library.find(createLayout, "cublasLtMatrixLayoutCreate");
    library.find(destroyLayout, "cublasLtMatrixLayoutDestroy");
    library.find(createPreference, "cublasLtMatmulPreferenceCreate");
    library.find(destroyPreference, "cublasLtMatmulPreferenceDestroy");
    library.find(setPreference, "cublasLtMatmulPreferenceSetAttribute");
    library.find(heuristics, "cublasLtMatmulAlgoGetHeuristic");
    library.find(multiply, "cublasLtMatmul");
  }

  void check(int status, const std::string& what) const {
    if (status == kSuccess) return;
    const char* name = statusName != nullptr ? statusName(status) : nullptr;
    throw std::runtime_error("cuBLASLt: " + what + " failed: " + (name != nullptr ? name : "status") + " (" +
                             std::to_string(status) + ")");
  }
};

constexpr int64_t kWorkspaceBytes = 32 << 20;
constexpr int kCandidates = 8;
/** Plans are thrown away when there are more: prompts of any length must not fill the memory. */
constexpr std::size_t kMostPlans = 4096;

/** What a plan depends on. The matrices are cuBLASLt's: `a` is the right one of ours. */
struct Shape {
  int64_t rows, columns, inner;  // of d, counted along columns
  int64_t strideA, strideB, strideD;
  bool transposeA, transposeB;
  Type type, typeD;
  /** Of the addresses, in bytes, up to 256. */
  uint32_t alignmentA, alignmentB, alignmentC, alignmentD;

  auto tied() const {
    return std::tie(rows, columns, inner, strideA, strideB, strideD, transposeA, transposeB, type, typeD, alignmentA,
                    alignmentB, alignmentC, alignmentD);
  }
  bool operator<(const Shape& other) const { return tied() < other.tied(); }

  std::string describe() const {
    const auto name = [](Type of) { return of == Type::bfloat16 ? "bfloat16" : "float32"; };
    return "a product [" + std::to_string(columns) + ", " + std::to_string(inner) + "] · [" + std::to_string(inner) +
           ", " + std::to_string(rows) + "] of " + name(type) + " into " + name(typeD);
  }
};

int libraryType(Type type) {
  expect(type == Type::float32 || type == Type::bfloat16, "products are of float32 or bfloat16");
  return type == Type::float32 ? kReal32 : kRealBf16;
}

uint32_t alignmentOf(const void* address) {
  const auto bits = reinterpret_cast<std::uintptr_t>(address) | 256u;
  return static_cast<uint32_t>(bits & (~bits + 1));
}

/** Descriptors of a product and the algorithms that can compute it. */
class Plan {
 public:
  Plan(const Functions& functions, Handle handle, const Shape& shape) : functions_(functions) {
    try {
      describe(shape);
      choose(handle, shape);
    } catch (...) {
      close();
      throw;
    }
  }
  ~Plan() { close(); }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  /** d = a · b + beta · c in the stream; the first algorithm that works is taken from then on. */
  int run(Handle handle, const void* a, const void* b, float beta, const void* c, void* d, void* workspace,
          cudaStream_t stream) {
    const float alpha = 1;
    for (;; chosen_++) {
      const int status = functions_.multiply(handle, operation_, &alpha, a, a_, b, b_, &beta, c, d_, d, d_,
                                             &algorithms_[chosen_], workspace, kWorkspaceBytes, stream);
      if (status != kNotSupported || chosen_ + 1 == algorithms_.size()) return status;
    }
  }

 private:
  void describe(const Shape& shape) {
    const int type = libraryType(shape.type), typeD = libraryType(shape.typeD);
    functions_.check(functions_.createOperation(&operation_, kCompute32, kReal32), "describing a product");
    setOperation(kTransposeA, shape.transposeA ? kTransposed : kAsStored);
    setOperation(kTransposeB, shape.transposeB ? kTransposed : kAsStored);
    a_ = layout(type, shape.rows, shape.inner, shape.transposeA, shape.strideA);
    b_ = layout(type, shape.inner, shape.columns, shape.transposeB, shape.strideB);
    d_ = layout(typeD, shape.rows, shape.columns, false, shape.strideD);
  }

  void choose(Handle handle, const Shape& shape) {
    functions_.check(functions_.createPreference(&preference_), "preparing a product");
    setPreference(kMostWorkspace, static_cast<uint64_t>(kWorkspaceBytes));
    setPreference(kReductions, kReduceInFloat32);
    setPreference(kAlignmentA, shape.alignmentA);
    setPreference(kAlignmentB, shape.alignmentB);
    setPreference(kAlignmentC, shape.alignmentC);
    setPreference(kAlignmentD, shape.alignmentD);
    std::array<Candidate, kCandidates> candidates{};
    int found = 0;
    functions_.check(functions_.heuristics(handle, operation_, a_, b_, d_, d_, preference_, kCandidates,
                                           candidates.data(), &found),
                     "looking for an algorithm for " + shape.describe());
    for (int i = 0; i < std::min(found, kCandidates); i++) {
      if (candidates[i].state == kSuccess && candidates[i].workspaceBytes <= static_cast<std::size_t>(kWorkspaceBytes)) {
        algorithms_.push_back(candidates[i].algorithm);
      }
    }
    if (algorithms_.empty()) functions_.check(kNotSupported, "looking for an algorithm for " + shape.describe());
  }

  void setOperation(int attribute, int32_t value) {
    functions_.check(functions_.setOperation(operation_, attribute, &value, sizeof value), "describing a product");
  }

  template <class T>
  void setPreference(int attribute, T value) {
    functions_.check(functions_.setPreference(preference_, attribute, &value, sizeof value), "preparing a product");
  }

  /** Of a matrix that is rows × columns where it stands in the product. */
  Layout layout(int type, int64_t rows, int64_t columns, bool transposed, int64_t stride) {
    if (transposed) std::swap(rows, columns);
    Layout made = nullptr;
    functions_.check(functions_.createLayout(&made, type, static_cast<uint64_t>(rows), static_cast<uint64_t>(columns),
                                             stride),
                     "describing a matrix");
    return made;
  }

  void close() {
    if (preference_ != nullptr) functions_.destroyPreference(preference_);
    for (const Layout layout : {a_, b_, d_}) {
      if (layout != nullptr) functions_.destroyLayout(layout);
    }
    if (operation_ != nullptr) functions_.destroyOperation(operation_);
  }

  const Functions& functions_;
  Operation operation_ = nullptr;
  Layout a_ = nullptr, b_ = nullptr, d_ = nullptr;
  Preference preference_ = nullptr;
  std::vector<Algorithm> algorithms_;
  std::size_t chosen_ = 0;
};

/** out = beta · addend, what is left of a product without an inner dimension; beta is 0 or 1. */
void withoutProduct(Context& context, const Matrix& out, const void* addend, float beta) {
  const auto width = static_cast<std::size_t>(out.columns * bytesOf(out.type));
  const auto pitch = static_cast<std::size_t>(out.stride * bytesOf(out.type));
  auto* to = static_cast<char*>(const_cast<void*>(out.data));
  if (beta != 0) {
    expect(beta == 1, "a product without an inner dimension adds all or nothing");
    if (addend == out.data) return;
    check(cudaMemcpy2DAsync(to, pitch, addend, pitch, width, static_cast<std::size_t>(out.rows),
                            cudaMemcpyDeviceToDevice, context.stream()),
          "copying");
    return;
  }
  const bool whole = pitch == width;
  const auto rows = static_cast<std::size_t>(out.rows), clears = whole ? 1 : rows;
  for (std::size_t row = 0; row < clears; row++) {
    check(cudaMemsetAsync(to + row * pitch, 0, whole ? rows * width : width, context.stream()), "clearing memory");
  }
}

}  // namespace

struct Blas::Library {
  SharedLibrary file{{"cuBLASLt",
                      {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so.11"},
                      {"cu13/lib", "cublas/lib"}}};
  Functions functions{file};
  Handle handle = nullptr;
  Scratch<unsigned char> workspace;
  std::map<Shape, Plan> plans;

  Plan& planFor(const Shape& shape) {
    const auto known = plans.find(shape);
    if (known != plans.end()) return known->second;
    if (plans.size() >= kMostPlans) plans.clear();
    return plans.try_emplace(shape, functions, handle, shape).first->second;
  }
};

Blas::Blas() : library_(std::make_unique<Library>()) {
  library_->functions.check(library_->functions.create(&library_->handle), "opening " + library_->file.path());
}

Blas::~Blas() {
  library_->plans.clear();
  if (library_->handle != nullptr) library_->functions.destroy(library_->handle);
}

void Blas::multiply(Context& context, const Matrix& a, const Matrix& b, const Matrix& out, const void* addend,
                    float beta) {
  const int64_t rows = a.transposed ? a.columns : a.rows, inner = a.transposed ? a.rows : a.columns;
  const int64_t columns = b.transposed ? b.rows : b.columns;
  expect((b.transposed ? b.columns : b.rows) == inner && out.rows == rows && out.columns == columns && !out.transposed,
         "the matrices of a product do not fit");
  expect(a.stride >= a.columns && b.stride >= b.columns && out.stride >= out.columns,
         "the rows of a matrix overlap");
  expect(a.type == b.type && (out.type == a.type || out.type == Type::float32), "the types of a product do not fit");
  if (rows == 0 || columns == 0) return;
  if (inner == 0) {
    withoutProduct(context, out, addend, beta);
    return;
  }
  const void* added = beta != 0 ? addend : out.data;
  const Shape shape{columns,      rows,         inner,  b.stride, a.stride,
                    out.stride,   b.transposed, a.transposed,     a.type,
                    out.type,     alignmentOf(b.data),  alignmentOf(a.data),
                    alignmentOf(added), alignmentOf(out.data)};
  Library& library = *library_;
  if (library.workspace.data() == nullptr) library.workspace = Scratch<unsigned char>(context, kWorkspaceBytes);
  Plan& plan = library.planFor(shape);
  const auto run = [&] {
    return plan.run(library.handle, b.data, a.data, beta, added, const_cast<void*>(out.data), library.workspace.data(),
                    context.stream());
  };
  int status = run();
  if (status != kSuccess && status != kInvalidValue && status != kNotSupported) {
    // Either the device has failed, which this tells, or there was no room for the code of an algorithm.
    context.trim();
    status = run();
  }
  if (status == kAllocationFailed) throw context.full("cuBLASLt wanted some");
  if (status != kSuccess) library.functions.check(status, shape.describe());
}

std::string Blas::describe() const {
  std::array<int, 3> version{};
  for (const int part : {kMajor, kMinor, kPatch}) {
    library_->functions.check(library_->functions.property(part, &version[part]), "asking for the version");
  }
  return "cuBLASLt " + std::to_string(version[0]) + "." + std::to_string(version[1]) + "." +
         std::to_string(version[2]) + " (" + library_->file.path() + ")";
}

}  // namespace memory3
