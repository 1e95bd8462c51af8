/**
 * The door between JavaScript and the kernels: it turns typed arrays and numbers into C++ arguments and hands kernels to
 * the stream. Everything else is in native/cpu.
 *
 * JavaScript keeps every array alive until the stream is past the kernels that use it. What a kernel throws is kept and
 * becomes the error of the next `read` or `wait`.
 */

#include <napi.h>

#include <cstring>
#include <tuple>
#include <utility>
#include <vector>

#include "arguments.h"
#include "bank.h"
#include "cuda_driver.h"
#include "faiss.h"
#include "gemm.h"
#include "kernel_names.h"
#include "kernels.h"
#include "reads.h"
#include "stream.h"
#include "tile.h"

namespace memory3 {
namespace {

/** The bytes of a typed array. */
struct Bytes {
  uint8_t* data;
  std::size_t size;
};

/** One engine for each JavaScript environment (main thread or worker). */
struct Engine {
  Context context{std::make_unique<ThreadPool>(1, prepareThread), &bestTiles(), {}, {}};
  Stream stream{prepareThread};
  Deliveries<Engine> deliveries;
  int pendingReads = 0;
};

Engine& engineOf(const Napi::CallbackInfo& info) { return *info.Env().GetInstanceData<Engine>(); }

struct AnyArray {
  napi_typedarray_type type;
  std::size_t length;
  void* data;
};

AnyArray anyArray(const Napi::Value& value, const char* what) {
  AnyArray array{};
  if (!value.IsTypedArray() || napi_get_typedarray_info(value.Env(), value, &array.type, &array.length, &array.data,
                                                        nullptr, nullptr) != napi_ok) {
    throw std::invalid_argument(std::string("expected a ") + what);
  }
  return array;
}

template <class T>
Array<T> typedArray(const Napi::Value& value, napi_typedarray_type type, const char* what) {
  const AnyArray array = anyArray(value, what);
  if (array.type != type) throw std::invalid_argument(std::string("expected a ") + what);
  return {static_cast<T*>(array.data), static_cast<int64_t>(array.length)};
}

}  // namespace

template <>
inline Floats argument<Floats>(const Napi::Value& value) {
  return typedArray<const float>(value, napi_float32_array, "Float32Array");
}

template <>
inline FloatsOut argument<FloatsOut>(const Napi::Value& value) {
  return typedArray<float>(value, napi_float32_array, "Float32Array");
}

template <>
inline Ints argument<Ints>(const Napi::Value& value) {
  return typedArray<const int32_t>(value, napi_int32_array, "Int32Array");
}

template <>
inline IntsOut argument<IntsOut>(const Napi::Value& value) {
  return typedArray<int32_t>(value, napi_int32_array, "Int32Array");
}

template <>
inline Values argument<Values>(const Napi::Value& value) {
  const AnyArray array = anyArray(value, "Float32Array, Int32Array or Uint8Array");
  const auto values = [&](Type type) { return Values{array.data, static_cast<int64_t>(array.length), type}; };
  if (array.type == napi_float32_array) return values(Type::float32);
  if (array.type == napi_int32_array) return values(Type::int32);
  if (array.type == napi_uint8_array) return values(Type::boolean);
  throw std::invalid_argument("expected a Float32Array, Int32Array or Uint8Array");
}

template <>
inline Bytes argument<Bytes>(const Napi::Value& value) {
  const AnyArray array = anyArray(value, "typed array");
  const std::size_t width = array.type == napi_uint8_array ? 1 : 4;
  return {static_cast<uint8_t*>(array.data), array.length * width};
}

template <>
inline std::vector<Floats> argument<std::vector<Floats>>(const Napi::Value& value) {
  return listOf<Floats>(value);
}

template <>
inline std::vector<FloatsOut> argument<std::vector<FloatsOut>>(const Napi::Value& value) {
  return listOf<FloatsOut>(value);
}

namespace {

template <class... Arguments>
void enqueueKernel(const Napi::CallbackInfo& info, void (*kernel)(Context&, Arguments...)) {
  Engine& engine = engineOf(info);
  engine.stream.add(nameOf(info), [kernel, given = argumentsFor(info, kernel), &context = engine.context] {
    std::apply([&](const auto&... each) { kernel(context, each...); }, given);
  });
}

/** A JavaScript function that puts a kernel into the stream. */
template <auto kernel>
Napi::Value run(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    enqueueKernel(info, kernel);
    return info.Env().Undefined();
  });
}

/** read(source, target): a promise of `target` with the bytes that `source` has when the stream comes to it. */
Napi::Value read(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const Bytes source = argument<Bytes>(info[0]);
    const Bytes target = argument<Bytes>(info[1]);
    expect(source.size == target.size, "read: source and target differ in size");
    Engine& engine = engineOf(info);
    auto* pending = new Read{Napi::Promise::Deferred::New(info.Env()), Napi::Persistent(info[1].As<Napi::Object>()), ""};
    // While somebody waits for a read, the process stays.
    if (engine.pendingReads++ == 0) engine.deliveries.Ref(info.Env());
    engine.stream.add(nameOf(info), [&engine, source, target, pending] {
      if (source.size > 0) std::memcpy(target.data, source.data, source.size);
      pending->error = engine.stream.takeError();
      engine.deliveries.NonBlockingCall(pending);
    });
    return pending->deferred.Promise();
  });
}

/** write(values, target): puts the values that the array has now into `target`, when the stream comes to it. */
Napi::Value write(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    const Bytes source = argument<Bytes>(info[0]);
    const Bytes target = argument<Bytes>(info[1]);
    expect(source.size == target.size, "write: values and target differ in size");
    Stream& stream = engineOf(info).stream;
    if (stream.idle()) {
      if (source.size > 0) std::memcpy(target.data, source.data, source.size);
    } else {
      stream.add(nameOf(info), [copy = std::vector<uint8_t>(source.data, source.data + source.size), target] {
        if (!copy.empty()) std::memcpy(target.data, copy.data(), copy.size());
      });
    }
    return info.Env().Undefined();
  });
}

/** wait(): returns when the stream is empty. */
Napi::Value wait(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    Stream& stream = engineOf(info).stream;
    stream.wait();
    const std::string error = stream.takeError();
    if (!error.empty()) throw std::runtime_error(error);
    return info.Env().Undefined();
  });
}

/** close(): ends the threads, at the end of the process; kernels that wait are dropped. */
Napi::Value close(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    Engine& engine = engineOf(info);
    engine.stream.close();
    engine.context.pool.reset();
    return info.Env().Undefined();
  });
}

Napi::Value setThreads(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    const auto threads = argument<int64_t>(info[0]);
    expect(threads >= 1 && threads <= 1024, "the number of threads must lie between 1 and 1024");
    Engine& engine = engineOf(info);
    engine.stream.wait();
    expect(engine.context.pool != nullptr, "the native engine is closed");
    if (threads != engine.context.pool->threads()) {
      engine.context.pool = std::make_unique<ThreadPool>(static_cast<int>(threads), prepareThread);
    }
    return info.Env().Undefined();
  });
}

Napi::Value added(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(engineOf(info).stream.added()));
}

Napi::Value done(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(engineOf(info).stream.done()));
}

/** takeProfile(): `{name, calls, seconds}` for each kernel that ran since the last call, the longest first. */
Napi::Value takeProfile(const Napi::CallbackInfo& info) {
  const std::vector<Profile> profiles = engineOf(info).stream.takeProfile();
  Napi::Array list = Napi::Array::New(info.Env(), profiles.size());
  for (uint32_t i = 0; i < profiles.size(); i++) {
    Napi::Object entry = Napi::Object::New(info.Env());
    entry.Set("name", profiles[i].name);
    entry.Set("calls", static_cast<double>(profiles[i].calls));
    entry.Set("seconds", profiles[i].seconds);
    list.Set(i, entry);
  }
  return list;
}

/** describe(): what computes, in words. */
Napi::Value describe(const Napi::CallbackInfo& info) {
  const Context& context = engineOf(info).context;
  const std::string instructions = context.tiles->name, products = describeProducts(context);
  return Napi::String::New(info.Env(), products == instructions ? products : instructions + ", " + products);
}

/** instructions(): names of the instruction sets that products can use here, the best first. */
Napi::Value instructions(const Napi::CallbackInfo& info) {
  const std::vector<const Tiles*>& tiles = availableTiles();
  Napi::Array names = Napi::Array::New(info.Env(), tiles.size());
  for (uint32_t i = 0; i < tiles.size(); i++) names.Set(i, tiles[i]->name);
  return names;
}

/** useInstructions(name): products use this instruction set from now on. For tests and measurements. */
Napi::Value useInstructions(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    const std::string name = info[0].ToString();
    Engine& engine = engineOf(info);
    for (const Tiles* tiles : availableTiles()) {
      if (name != tiles->name) continue;
      engine.stream.wait();
      engine.context.tiles = tiles;
      return info.Env().Undefined();
    }
    throw std::invalid_argument("this processor has no instructions named " + name);
  });
}

/** Bytes from the beginning of an ArrayBuffer to the first address that suits vectors. */
Napi::Value alignment(const Napi::CallbackInfo& info) {
  if (info.Length() != 1 || !info[0].IsArrayBuffer()) throw Napi::Error::New(info.Env(), "expected an ArrayBuffer");
  const auto address = reinterpret_cast<std::uintptr_t>(info[0].As<Napi::ArrayBuffer>().Data());
  return Napi::Number::New(info.Env(), static_cast<double>((64 - address % 64) % 64));
}

Napi::Object initialise(Napi::Env env, Napi::Object exports) {
  auto* engine = new Engine();
  env.SetInstanceData(engine);
  engine->deliveries = Deliveries<Engine>::New(env, "memory3 reads", 0, 1, engine);
  engine->deliveries.Unref(env);
  // The arrays of JavaScript go when it ends; no kernel may run then.
  env.AddCleanupHook([engine] { engine->stream.close(); });
  const auto add = [&](const char* name, Napi::Value (*function)(const Napi::CallbackInfo&)) {
    exports.Set(name, Napi::Function::New(env, function, name, const_cast<char*>(name)));
  };
  add("setThreads", setThreads);
  add("alignment", alignment);
  add("describe", describe);
  add("instructions", instructions);
  add("useInstructions", useInstructions);
  add("read", read);
  add("write", write);
  add("wait", wait);
  add("close", memory3::close);
  add("added", added);
  add("done", done);
  add("takeProfile", takeProfile);
#define MEMORY3_EXPORT(name) add(#name, run<memory3::name>);
  MEMORY3_KERNELS(MEMORY3_EXPORT)
#undef MEMORY3_EXPORT
  exportBank(env, exports);
  exportCudaDriver(env, exports);
  exportFaiss(env, exports);
  return exports;
}

NODE_API_MODULE(memory3_native, initialise)

}  // namespace
}  // namespace memory3
