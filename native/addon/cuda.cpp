/**
 * The door between JavaScript and the kernels on a GPU. JavaScript knows the data of a tensor by a number that `allocate`
 * gives; 0 is no tensor. Kernels are launched at once and run in the order of the calls, while JavaScript goes on; what a
 * kernel finds wrong becomes the error of the next `read` or `wait`. Everything else is in native/cuda.
 */

#include <napi.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <tuple>
#include <utility>
#include <vector>

#include "arguments.h"
#include "blas.h"
#include "context.h"
#include "kernel_names.h"
#include "kernels.h"
#include "ranges.h"
#include "reads.h"
#include "transfers.h"
#include "uploads.h"

namespace memory3 {
namespace {

/** What the calls of one kernel took on the GPU. */
struct Timing {
  const char* name;
  cudaEvent_t begin, end;
};

/** An array of JavaScript that must live until its upload has read it. */
struct Source {
  std::shared_ptr<Upload> upload;
  Napi::ObjectReference array;
};

/** The GPU of one JavaScript environment. */
struct Device {
  std::unique_ptr<Context> context;
  std::unique_ptr<Transfers> transfers;
  std::unique_ptr<Uploads> uploads;
  std::vector<Source> sources;
  std::vector<Buffer*> buffers{nullptr};  // by number; number 0 is no tensor
  std::vector<uint32_t> freeNumbers;
  Deliveries<Device> deliveries;
  int pendingReads = 0;
  bool profiling = false;
  std::vector<Timing> timings;
};

Device& deviceOf(const Napi::Env& env) { return *env.GetInstanceData<Device>(); }

Context& contextOf(const Napi::CallbackInfo& info) {
  Device& device = deviceOf(info.Env());
  expect(device.context != nullptr, "the CUDA engine is not open");
  return *device.context;
}

Buffer* bufferAt(Napi::Env env, int64_t number) {
  Device& device = deviceOf(env);
  expect(number > 0 && number < static_cast<int64_t>(device.buffers.size()) && device.buffers[number] != nullptr,
         "there is no tensor of this number");
  return device.buffers[number];
}

/** The number of a buffer from now on. */
Napi::Number numberOf(Napi::Env env, Buffer* buffer) {
  Device& device = deviceOf(env);
  if (device.freeNumbers.empty()) {
    device.buffers.push_back(buffer);
    return Napi::Number::New(env, static_cast<double>(device.buffers.size() - 1));
  }
  const uint32_t number = device.freeNumbers.back();
  device.freeNumbers.pop_back();
  device.buffers[number] = buffer;
  return Napi::Number::New(env, number);
}

/** Lets go of the arrays that uploads have read. */
void dropSources(Device& device) {
  auto& sources = device.sources;
  sources.erase(std::remove_if(sources.begin(), sources.end(), [](const Source& source) { return source.upload->finished(); }),
                sources.end());
}

/** A buffer that the stream can use. */
Buffer* readyBuffer(Napi::Env env, int64_t number) {
  Buffer* buffer = bufferAt(env, number);
  if (buffer->upload == nullptr) return buffer;
  Device& device = deviceOf(env);
  device.context->awaitUpload(*buffer);
  dropSources(device);
  return buffer;
}

/** Ends the threads when what they have to do is done, and gives everything back. */
void closeDevice(Device& device) {
  device.uploads.reset();
  device.sources.clear();
  device.transfers.reset();
  for (Buffer* buffer : device.buffers) {
    if (buffer != nullptr) device.context->release(buffer);
  }
  device.buffers.assign(1, nullptr);
  device.freeNumbers.clear();
  device.timings.clear();
  device.context.reset();
}

}  // namespace

/** The number of a tensor, or [number, offset, count] for a part of it. */
template <>
inline Tensor argument<Tensor>(const Napi::Value& value) {
  const Napi::Env env = value.Env();
  if (value.IsNumber()) {
    const auto number = argument<int64_t>(value);
    if (number == 0) return {};
    Buffer* buffer = readyBuffer(env, number);
    return {buffer, 0, buffer->count};
  }
  const auto part = listOf<int64_t>(value);
  expect(part.size() == 3, "a part of a tensor is [number, offset, count]");
  if (part[0] == 0) return {};
  Buffer* buffer = readyBuffer(env, part[0]);
  expect(part[1] >= 0 && part[2] >= 0 && part[1] <= buffer->count && part[2] <= buffer->count - part[1],
         "a part reaches out of its tensor");
  return {buffer, part[1], part[2]};
}

template <>
inline Tensors argument<Tensors>(const Napi::Value& value) {
  return listOf<Tensor>(value);
}

namespace {

/** Notes when a kernel call begins and ends on the GPU, while somebody wants to know. */
class Timed {
 public:
  Timed(Device& device, const char* name) : device_(device) {
    if (!device.profiling) return;
    Timing timing{name, nullptr, nullptr};
    check(cudaEventCreateWithFlags(&timing.begin, 0), "making an event");
    check(cudaEventCreateWithFlags(&timing.end, 0), "making an event");
    check(cudaEventRecord(timing.begin, device.context->stream()), "recording an event");
    device.timings.push_back(timing);
    noted_ = true;
  }
  ~Timed() {
    if (noted_) cudaEventRecord(device_.timings.back().end, device_.context->stream());
  }

 private:
  Device& device_;
  bool noted_ = false;
};

/** A JavaScript function that launches a kernel. */
template <auto kernel>
Napi::Value run(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    Context& context = contextOf(info);
    const auto given = argumentsFor(info, kernel);
    const Range range(nameOf(info));
    const Timed timed(deviceOf(info.Env()), nameOf(info));
    std::apply([&](const auto&... each) { kernel(context, each...); }, given);
    return info.Env().Undefined();
  });
}

struct HostArray {
  void* data;
  int64_t bytes;
  napi_typedarray_type type;
};

HostArray hostArray(const Napi::Value& value) {
  napi_typedarray_type type{};
  std::size_t length = 0;
  void* data = nullptr;
  if (!value.IsTypedArray() ||
      napi_get_typedarray_info(value.Env(), value, &type, &length, &data, nullptr, nullptr) != napi_ok ||
      (type != napi_float32_array && type != napi_int32_array && type != napi_uint8_array)) {
    throw std::invalid_argument("expected a Float32Array, Int32Array or Uint8Array");
  }
  return {data, static_cast<int64_t>(length) * (type == napi_uint8_array ? 1 : 4), type};
}

/** open(number): opens the GPU of this number and says what it is. */
Napi::Value open(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    Device& device = deviceOf(info.Env());
    const auto number = static_cast<int>(argument<int64_t>(info[0]));
    if (device.context == nullptr) {
      auto context = std::make_unique<Context>(number);
      auto transfers = std::make_unique<Transfers>(*context);
      device.uploads = std::make_unique<Uploads>(*context);
      device.transfers = std::move(transfers);
      device.context = std::move(context);
    }
    expect(device.context->device() == number, "another GPU is open");
    return Napi::String::New(info.Env(), device.context->describe());
  });
}

/** openBlas(): loads cuBLASLt and says which one it is. */
Napi::Value openBlas(const Napi::CallbackInfo& info) {
  return guarded(info, [&] { return Napi::String::New(info.Env(), contextOf(info).blas().describe()); });
}

/** allocate(count, type): the number of a new tensor's data; null when the memory of the device is full. */
Napi::Value allocate(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    Context& context = contextOf(info);
    const auto count = argument<int64_t>(info[0]), type = argument<int64_t>(info[1]);
    expect(count >= 0 && type >= 0 && type <= 3, "allocate: a size or a type that is none");
    try {
      return numberOf(info.Env(), context.allocate(count, static_cast<Type>(type)));
    } catch (const OutOfMemory&) {
      return info.Env().Null();
    }
  });
}

/**
 * upload(values, type): the number of a new tensor of this type that gets the values of the array on the copy stream, while
 * kernels run; null when the memory of the device is full. The array must not change until the tensor is first used, which
 * waits for the upload and throws what went wrong with it.
 */
Napi::Value upload(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    contextOf(info);
    Device& device = deviceOf(info.Env());
    const HostArray from = hostArray(info[0]);
    const auto type = static_cast<Type>(argument<int64_t>(info[1]));
    const bool fits = from.type == napi_float32_array ? type == Type::float32 || type == Type::bfloat16
                                                      : type == (from.type == napi_int32_array ? Type::int32 : Type::boolean);
    expect(fits, "upload: an array that is not of this type");
    dropSources(device);
    Source source{nullptr, Napi::Persistent(info[0].As<Napi::Object>())};
    device.sources.reserve(device.sources.size() + 1);
    try {
      Buffer* buffer = device.uploads->start(from.data, from.bytes / (type == Type::boolean ? 1 : 4), type);
      source.upload = buffer->upload;
      if (source.upload != nullptr) device.sources.push_back(std::move(source));
      return numberOf(info.Env(), buffer);
    } catch (const OutOfMemory&) {
      return info.Env().Null();
    }
  });
}

/** release(number): gives the data of a tensor back, once the kernels launched until now are done. */
Napi::Value release(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    const auto number = argument<int64_t>(info[0]);
    Buffer* buffer = bufferAt(info.Env(), number);
    Device& device = deviceOf(info.Env());
    device.buffers[number] = nullptr;
    device.freeNumbers.push_back(static_cast<uint32_t>(number));
    contextOf(info).release(buffer);
    return info.Env().Undefined();
  });
}

/** read(tensor, target): a promise of `target` with what the tensor holds when the stream comes to it. */
Napi::Value read(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    contextOf(info);
    Device& device = deviceOf(info.Env());
    const auto from = argument<Tensor>(info[0]);
    const HostArray to = hostArray(info[1]);
    auto pending = std::make_unique<Read>(
        Read{Napi::Promise::Deferred::New(info.Env()), Napi::Persistent(info[1].As<Napi::Object>()), ""});
    Read* waiting = pending.get();
    device.transfers->read(from, to.data, to.bytes, [&device, waiting](const std::string& error) {
      waiting->error = error;
      device.deliveries.NonBlockingCall(waiting);
    });
    // While somebody waits for a read, the process stays.
    if (device.pendingReads++ == 0) device.deliveries.Ref(info.Env());
    return pending.release()->deferred.Promise();
  });
}

/** readNow(tensor, target): the same, but waits. */
Napi::Value readNow(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    contextOf(info);
    const auto from = argument<Tensor>(info[0]);
    const HostArray to = hostArray(info[1]);
    std::string problem;
    std::mutex mutex;
    std::condition_variable came;
    bool done = false;
    deviceOf(info.Env()).transfers->read(from, to.data, to.bytes, [&](const std::string& error) {
      const std::lock_guard<std::mutex> lock(mutex);
      problem = error;
      done = true;
      came.notify_one();
    });
    std::unique_lock<std::mutex> lock(mutex);
    came.wait(lock, [&] { return done; });
    if (!problem.empty()) throw std::runtime_error(problem);
    return info.Env().Undefined();
  });
}

/** write(values, tensor): puts the values that the array has now into the tensor, when the stream comes to it. */
Napi::Value write(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    contextOf(info);
    const HostArray from = hostArray(info[0]);
    deviceOf(info.Env()).transfers->write(from.data, from.bytes, argument<Tensor>(info[1]));
    return info.Env().Undefined();
  });
}

/** wait(): returns when the stream is empty. */
Napi::Value wait(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    contextOf(info).wait();
    return info.Env().Undefined();
  });
}

/** close(): gives the GPU back, at the end of the process. */
Napi::Value close(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    closeDevice(deviceOf(info.Env()));
    return info.Env().Undefined();
  });
}

/** usedBytes(): bytes of device memory in use by tensors, also those that are still on their way up. */
Napi::Value usedBytes(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    return Napi::Number::New(info.Env(), static_cast<double>(contextOf(info).usedBytes()));
  });
}

/** takePeakBytes(): the most that those were at once since the last call. */
Napi::Value takePeakBytes(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    return Napi::Number::New(info.Env(), static_cast<double>(contextOf(info).takePeakBytes()));
  });
}

/** memoryInfo(): `{free, total}` bytes of the GPU's memory as the driver tells. */
Napi::Value memoryInfo(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    contextOf(info);
    std::size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "asking for the GPU's memory");
    Napi::Object result = Napi::Object::New(info.Env());
    result.Set("free", static_cast<double>(free));
    result.Set("total", static_cast<double>(total));
    return result;
  });
}

/** profile(on): whether kernel calls are timed from now on. */
Napi::Value profile(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    contextOf(info);
    deviceOf(info.Env()).profiling = argument<bool>(info[0]);
    return info.Env().Undefined();
  });
}

/** takeProfile(): `{name, calls, seconds}` on the GPU of what was timed since the last call, the longest first. */
Napi::Value takeProfile(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    contextOf(info).wait();
    std::map<std::string, std::pair<int64_t, double>> sums;
    for (const Timing& timing : std::exchange(deviceOf(info.Env()).timings, {})) {
      float milliseconds = 0;
      const cudaError_t error = cudaEventElapsedTime(&milliseconds, timing.begin, timing.end);
      cudaEventDestroy(timing.begin);
      cudaEventDestroy(timing.end);
      check(error, "timing a kernel");
      auto& [calls, seconds] = sums[timing.name];
      calls++;
      seconds += milliseconds / 1000.0;
    }
    std::vector<std::pair<std::string, std::pair<int64_t, double>>> sorted(sums.begin(), sums.end());
    std::sort(sorted.begin(), sorted.end(),
              [](const auto& a, const auto& b) { return a.second.second > b.second.second; });
    Napi::Array list = Napi::Array::New(info.Env(), sorted.size());
    for (uint32_t i = 0; i < sorted.size(); i++) {
      Napi::Object entry = Napi::Object::New(info.Env());
      entry.Set("name", sorted[i].first);
      entry.Set("calls", static_cast<double>(sorted[i].second.first));
      entry.Set("seconds", sorted[i].second.second);
      list.Set(i, entry);
    }
    return list;
  });
}

Napi::Object initialise(Napi::Env env, Napi::Object exports) {
  auto* device = new Device();
  env.SetInstanceData(device);
  device->deliveries = Deliveries<Device>::New(env, "memory3 reads", 0, 1, device);
  device->deliveries.Unref(env);
  env.AddCleanupHook([device] { closeDevice(*device); });
  const auto add = [&](const char* name, Napi::Value (*function)(const Napi::CallbackInfo&)) {
    exports.Set(name, Napi::Function::New(env, function, name, const_cast<char*>(name)));
  };
#if defined(MEMORY3_EMULATED)
  exports.Set("emulated", true);
#endif
  add("open", memory3::open);
  add("openBlas", openBlas);
  add("allocate", allocate);
  add("upload", upload);
  add("release", release);
  add("read", memory3::read);
  add("readNow", readNow);
  add("write", memory3::write);
  add("wait", memory3::wait);
  add("close", memory3::close);
  add("usedBytes", usedBytes);
  add("takePeakBytes", takePeakBytes);
  add("memoryInfo", memoryInfo);
  add("profile", profile);
  add("takeProfile", takeProfile);
#define MEMORY3_EXPORT(name) add(#name, run<memory3::name>);
  MEMORY3_KERNELS(MEMORY3_EXPORT)
#undef MEMORY3_EXPORT
  return exports;
}

NODE_API_MODULE(memory3_cuda, initialise)

}  // namespace
}  // namespace memory3
