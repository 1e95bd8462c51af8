#include "context.h"

#include <algorithm>

#include "blas.h"
#include "uploads.h"

namespace memory3 {

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  // The error of a launch stays with the runtime until it is asked for.
  cudaGetLastError();
  throw std::runtime_error(std::string(what) + " failed: " + cudaGetErrorString(error) + " (" +
                           cudaGetErrorName(error) + ")");
}

namespace {

std::string versionText(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

}  // namespace

Context::Context(int device) : device_(device) {
  int count = 0, driver = 0, runtime = 0;
  const cudaError_t looking = cudaGetDeviceCount(&count);
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  if (driver == 0) {
    throw std::runtime_error("NVIDIA's driver is not there; install it, or start a container with its GPUs");
  }
  if (looking == cudaErrorInsufficientDriver) {
    throw std::runtime_error("NVIDIA's driver is too old: it is for CUDA " + versionText(driver) +
                             ", and the addon was built with CUDA " + versionText(runtime) +
                             "; update the driver, or build with an nvcc of the driver's version (scripts/build_native.sh)");
  }
  check(looking, "looking for GPUs");
  expect(device >= 0 && device < count, "there is no GPU of this number");
  check(cudaSetDevice(device), "opening the GPU");
  int major = 0, minor = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "asking the GPU");
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "asking the GPU");
  check(cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, device), "asking the GPU");
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, device), "asking the GPU");
  description_ = std::string(properties.name) + ", compute capability " + std::to_string(major) + "." +
                 std::to_string(minor) + ", " + std::to_string(properties.totalGlobalMem >> 20) + " MiB, driver for CUDA " +
                 versionText(driver) + ", built with CUDA " + versionText(runtime);
  if (major < 8) {
    throw std::runtime_error("the GPU is too old: " + description_ + "; compute capability 8.0 (A100) or newer is needed");
  }
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream");
  check(cudaStreamCreateWithFlags(&copyStream_, cudaStreamNonBlocking), "making a stream");
  check(cudaDeviceGetDefaultMemPool(&pool_, device), "the GPU's memory pool");
  // What is given back stays with the process: asking the driver again would wait for the device.
  uint64_t keepAll = UINT64_MAX;
  check(cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrReleaseThreshold, &keepAll), "the GPU's memory pool");
  fault_ = static_cast<Fault*>(take(sizeof(Fault)));
  check(cudaMemsetAsync(fault_, 0, sizeof(Fault), stream_), "clearing memory");
}

Context::~Context() {
  // At the end of the process the runtime may be gone already; nothing can be done about errors here.
  if (stream_ == nullptr) return;
  cudaStreamSynchronize(stream_);
  blas_.reset();
  if (fault_ != nullptr) give(fault_);
  cudaStreamSynchronize(stream_);
  cudaStreamDestroy(copyStream_);
  cudaStreamDestroy(stream_);
}

std::string Context::describe() const { return description_; }

void Context::makeCurrent() const { cudaSetDevice(device_); }

void* Context::take(int64_t bytes, cudaStream_t stream) {
  void* data = nullptr;
  const auto size = static_cast<std::size_t>(bytes);
  cudaError_t error = cudaMallocAsync(&data, size, stream);
  if (error == cudaErrorMemoryAllocation) {
    trim();
    error = cudaMallocAsync(&data, size, stream);
  }
  if (error == cudaErrorMemoryAllocation) throw full(std::to_string(bytes >> 20) + " MiB were asked for");
  check(error, "taking memory");
  sizes_.emplace(data, bytes);
  usedBytes_ += bytes;
  peakBytes_ = std::max(peakBytes_, usedBytes_);
  return data;
}

void Context::trim() {
  cudaGetLastError();
  check(cudaStreamSynchronize(stream_), "the work of the GPU");
  check(cudaMemPoolTrimTo(pool_, 0), "giving memory back");
}

OutOfMemory Context::full(const std::string& what) const {
  cudaGetLastError();
  std::size_t free = 0, total = 0;
  cudaMemGetInfo(&free, &total);
  return OutOfMemory("the memory of the GPU is full: " + what + ", " + std::to_string(usedBytes_ >> 20) +
                     " MiB are in use by tensors and " + std::to_string(free >> 20) + " of " +
                     std::to_string(total >> 20) + " MiB are free");
}

void Context::give(void* data) {
  const auto found = sizes_.find(data);
  if (found == sizes_.end()) return;
  usedBytes_ -= found->second;
  sizes_.erase(found);
  // An error here is one of an earlier kernel; the next read tells it.
  cudaFreeAsync(data, stream_);
}

Buffer* Context::allocate(int64_t count, Type type, cudaStream_t stream) {
  auto buffer = std::make_unique<Buffer>();
  buffer->count = count;
  buffer->type = type;
  if (count > 0) buffer->data = take(count * bytesOf(type), stream);
  return buffer.release();
}

void Context::release(Buffer* buffer) noexcept {
  if (buffer->upload != nullptr) {
    buffer->upload->cancel();
    buffer->upload->orderBefore(stream_);
  }
  if (buffer->half != nullptr) give(buffer->half);
  if (buffer->data != nullptr) give(buffer->data);
  delete buffer;
}

Bf16* Context::halfOf(Buffer& buffer) {
  expect(buffer.type == Type::float32, "only float32 has a copy as bfloat16");
  if (buffer.half == nullptr) buffer.half = static_cast<Bf16*>(take(buffer.count * bytesOf(Type::bfloat16)));
  if (!buffer.halfFresh) {
    convert(*this, static_cast<const float*>(buffer.data), buffer.half, buffer.count);
    buffer.halfFresh = true;
  }
  return buffer.half;
}

void Context::awaitUpload(Buffer& buffer) {
  if (buffer.upload == nullptr) return;
  const std::string error = buffer.upload->orderBefore(stream_);
  if (!error.empty()) throw std::runtime_error("an upload to the GPU failed: " + error);
  buffer.upload.reset();
}

void Context::wait() {
  Fault found{};
  check(cudaMemcpyAsync(&found, fault_, sizeof found, cudaMemcpyDeviceToHost, stream_), "reading from the GPU");
  check(cudaStreamSynchronize(stream_), "the work of the GPU");
  if (found.code == kNoFault) return;
  check(cudaMemsetAsync(fault_, 0, sizeof(Fault), stream_), "clearing memory");
  throw std::invalid_argument(describe(found));
}

std::string Context::describe(const Fault& fault) {
  const std::string value = std::to_string(fault.value), limit = std::to_string(fault.limit);
  switch (fault.code) {
    case kNoFault: return "";
    case kTokenOutOfRange: return "token id " + value + " does not lie between 0 and " + limit;
    case kTargetOutOfRange: return "target " + value + " is no token below " + limit + " and not -1";
    case kIndexOutOfRange: return "index " + value + " does not lie below " + limit;
    case kLengthOutOfRange: return "a memory of " + value + " tokens, where " + limit + " are kept";
    case kVisibleOutOfRange:
      return "a query sees the context from token " + value + " on, which is behind itself (" + limit +
             ") or before what an earlier query sees";
    default: return "a kernel found something wrong, code " + std::to_string(fault.code);
  }
}

Blas& Context::blas() {
  if (!blas_) blas_ = std::make_unique<Blas>();
  return *blas_;
}

}  // namespace memory3
