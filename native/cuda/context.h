/**
 * The device as the kernels see it: tensors in its memory, the stream that they run in, and errors. One Context for each
 * JavaScript environment; all of it is called from that environment's thread.
 */
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "device.cuh"

namespace memory3 {

/** How the numbers of a tensor are stored; the numbers are those that JavaScript gives. */
enum class Type { float32 = 0, int32 = 1, boolean = 2, bfloat16 = 3 };

constexpr int64_t bytesOf(Type type) { return type == Type::boolean ? 1 : type == Type::bfloat16 ? 2 : 4; }

template <class T>
constexpr Type typeOf();
template <>
constexpr Type typeOf<float>() {
  return Type::float32;
}
template <>
constexpr Type typeOf<int32_t>() {
  return Type::int32;
}
template <>
constexpr Type typeOf<uint8_t>() {
  return Type::boolean;
}
template <>
constexpr Type typeOf<Bf16>() {
  return Type::bfloat16;
}

/** Throws std::invalid_argument with `what` unless `holds`. */
inline void expect(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}

/** The memory of the device is full. */
class OutOfMemory : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/** Throws std::runtime_error when a call of CUDA failed. */
void check(cudaError_t error, const char* what);

class Upload;

/** The data of tensors: many tensors may share it. */
struct Buffer {
  void* data = nullptr;
  int64_t count = 0;
  Type type = Type::float32;
  /** The same numbers as bfloat16, of a float32 buffer that tensor cores have read whole; null before. */
  Bf16* half = nullptr;
  /** Whether `half` is what `data` is now. */
  bool halfFresh = false;
  /** What fills it through the copy stream; null when nobody need wait for that. */
  std::shared_ptr<Upload> upload;
};

/** Elements of a buffer as a kernel gets them. */
struct Tensor {
  Buffer* buffer = nullptr;
  int64_t offset = 0;
  int64_t count = 0;

  Type type() const { return buffer->type; }
  bool empty() const { return count == 0; }
  bool whole() const { return buffer != nullptr && offset == 0 && count == buffer->count; }
  /** The elements, which must be of type T. */
  template <class T>
  T* as() const {
    if (count == 0) return nullptr;
    if (buffer->type != typeOf<T>()) throw std::invalid_argument("a tensor is stored in another type than expected");
    return static_cast<T*>(buffer->data) + offset;
  }
};
using Tensors = std::vector<Tensor>;

class Context;

/** Memory for the length of a kernel call: the stream gives it back when the kernels launched until then are done. */
template <class T>
class Scratch {
 public:
  Scratch() = default;
  Scratch(Context& context, int64_t count);
  Scratch(Scratch&& other) noexcept { *this = std::move(other); }
  Scratch& operator=(Scratch&& other) noexcept {
    std::swap(context_, other.context_);
    std::swap(data_, other.data_);
    return *this;
  }
  ~Scratch();
  T* data() const { return data_; }

 private:
  Context* context_ = nullptr;
  T* data_ = nullptr;
};

/** The values of a tensor as T: the tensor's own, or a copy that lives as long as this. */
template <class T>
class Operand {
 public:
  Operand(Context& context, const Tensor& tensor);
  const T* data() const { return data_; }

 private:
  const T* data_ = nullptr;
  Scratch<T> copy_;
};

class Blas;

class Context {
 public:
  /** Opens a device. Throws std::runtime_error that says what is missing. */
  explicit Context(int device);
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  cudaStream_t stream() const { return stream_; }
  cudaStream_t copyStream() const { return copyStream_; }
  int multiprocessors() const { return multiprocessors_; }
  std::string describe() const;
  int device() const { return device_; }

  /** Makes this device the one that the calling thread's calls of CUDA mean; a new thread has another. */
  void makeCurrent() const;

  /** Device memory, in the order of the stream. Throws OutOfMemory. */
  void* take(int64_t bytes) { return take(bytes, stream_); }
  void give(void* data);
  /** Bytes that `take` has handed out and not got back. */
  int64_t usedBytes() const { return usedBytes_; }
  /** The most that those were at once since the last call. */
  int64_t takePeakBytes() { return std::exchange(peakBytes_, usedBytes_); }
  /**
   * Waits for the stream and gives back to the driver what the pool keeps without use: it may lie in pieces, or be wanted
   * by something else than tensors.
   */
  void trim();
  /** What to throw when there is no memory for `what`. */
  OutOfMemory full(const std::string& what) const;

  Buffer* allocate(int64_t count, Type type) { return allocate(count, type, stream_); }
  /** The same with memory that `stream` may use at once, without waiting for the work of the other stream. */
  Buffer* allocate(int64_t count, Type type, cudaStream_t stream);
  /** Gives a buffer's memory back when the stream is through with it; an upload under way is cut short. */
  void release(Buffer* buffer) noexcept;
  /** A buffer was written to: its copy as bfloat16 no longer holds. */
  static void touch(const Tensor& tensor) {
    if (tensor.buffer != nullptr) tensor.buffer->halfFresh = false;
  }
  /** A float32 buffer as bfloat16, made where it is not there or not fresh, kept with the buffer. */
  Bf16* halfOf(Buffer& buffer);

  /** Where kernels say what they found wrong. */
  Fault* fault() const { return fault_; }
  /** Waits for the stream; throws what a kernel found wrong since the last call, or what CUDA says. */
  void wait();
  /** In words, what a fault that was read back means; empty when it means nothing. */
  static std::string describe(const Fault& fault);

  /** Products of matrices; loaded when the first one is asked for. */
  Blas& blas();

  /** Lets the stream wait for the upload of a buffer. Throws std::runtime_error when that went wrong. */
  void awaitUpload(Buffer& buffer);

  /**
   * Launches a kernel in the stream.
   * @param sharedBytes of shared memory, up to what the device allows
   */
  template <class... Parameters, class... Arguments>
  void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t sharedBytes, Arguments&&... arguments) {
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
    if (sharedBytes > 48 * 1024) {
      check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 static_cast<int>(sharedBytes)),
            "a kernel's shared memory");
    }
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = sharedBytes;
    config.stream = stream_;
    const auto begin = [&] { return cudaLaunchKernelEx(&config, kernel, arguments...); };
    cudaError_t error = begin();
    // The first launch of a kernel brings its code to the device, for which the pool may have left no room.
    if (error == cudaErrorMemoryAllocation) {
      trim();
      error = begin();
    }
    if (error == cudaErrorMemoryAllocation) throw full("the code of a kernel was to be loaded");
    check(error, "the launch of a kernel");
  }

 private:
  void* take(int64_t bytes, cudaStream_t stream);

  int device_;
  int multiprocessors_ = 0;
  std::string description_;
  cudaStream_t stream_ = nullptr;
  cudaStream_t copyStream_ = nullptr;
  cudaMemPool_t pool_ = nullptr;
  Fault* fault_ = nullptr;
  int64_t usedBytes_ = 0;
  int64_t peakBytes_ = 0;
  std::unordered_map<void*, int64_t> sizes_;
  std::unique_ptr<Blas> blas_;
};

template <class T>
Scratch<T>::Scratch(Context& context, int64_t count)
    : context_(&context),
      data_(count > 0 ? static_cast<T*>(context.take(count * static_cast<int64_t>(sizeof(T)))) : nullptr) {}

template <class T>
Scratch<T>::~Scratch() {
  if (data_ != nullptr) context_->give(data_);
}

/** Copies and converts `count` elements between float32 and bfloat16. */
void convert(Context& context, const float* from, Bf16* to, int64_t count);
void convert(Context& context, const Bf16* from, float* to, int64_t count);

template <class T>
Operand<T>::Operand(Context& context, const Tensor& tensor) {
  if (tensor.count == 0) return;
  if (tensor.type() == typeOf<T>()) {
    data_ = tensor.as<T>();
  } else if constexpr (std::is_same_v<T, Bf16>) {
    if (tensor.whole()) {
      data_ = context.halfOf(*tensor.buffer);
    } else {
      copy_ = Scratch<T>(context, tensor.count);
      convert(context, tensor.as<float>(), copy_.data(), tensor.count);
      data_ = copy_.data();
    }
  } else {
    copy_ = Scratch<T>(context, tensor.count);
    convert(context, tensor.as<Bf16>(), copy_.data(), tensor.count);
    data_ = copy_.data();
  }
}

/** Calls `body` with a value of the type in which activations are stored: float or Bf16. */
template <class Body>
void withType(Type type, const Body& body) {
  if (type == Type::bfloat16) {
    body(Bf16{});
  } else {
    expect(type == Type::float32, "expected a tensor of numbers");
    body(float{});
  }
}

/** Blocks of `size` that hold `count`. */
constexpr int64_t blocksFor(int64_t count, int64_t size) { return (count + size - 1) / size; }

}  // namespace memory3
