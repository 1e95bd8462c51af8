/**
 * The door between JavaScript and the kernels: it turns typed arrays and numbers into C++ arguments, and C++ exceptions
 * into JavaScript errors. Everything else is in native/cpu.
 */

#include <napi.h>

#include <tuple>
#include <type_traits>
#include <utility>

#include "gemm.h"
#include "kernels.h"

namespace memory3 {
namespace {

template <class T>
T argument(const Napi::Value& value);

template <class T>
Array<T> typedArray(const Napi::Value& value, napi_typedarray_type type, const char* what) {
  if (!value.IsTypedArray()) throw std::invalid_argument(std::string("expected a ") + what);
  napi_typedarray_type actual;
  std::size_t length = 0;
  void* data = nullptr;
  const napi_status status =
      napi_get_typedarray_info(value.Env(), value, &actual, &length, &data, nullptr, nullptr);
  if (status != napi_ok || actual != type) throw std::invalid_argument(std::string("expected a ") + what);
  return {static_cast<T*>(data), static_cast<int64_t>(length)};
}

template <>
Floats argument<Floats>(const Napi::Value& value) {
  return typedArray<const float>(value, napi_float32_array, "Float32Array");
}

template <>
FloatsOut argument<FloatsOut>(const Napi::Value& value) {
  return typedArray<float>(value, napi_float32_array, "Float32Array");
}

template <>
Ints argument<Ints>(const Napi::Value& value) {
  return typedArray<const int32_t>(value, napi_int32_array, "Int32Array");
}

template <>
double argument<double>(const Napi::Value& value) {
  if (!value.IsNumber()) throw std::invalid_argument("expected a number");
  return value.As<Napi::Number>().DoubleValue();
}

template <>
int64_t argument<int64_t>(const Napi::Value& value) {
  if (!value.IsNumber()) throw std::invalid_argument("expected a number");
  return value.As<Napi::Number>().Int64Value();
}

template <>
bool argument<bool>(const Napi::Value& value) {
  if (!value.IsBoolean()) throw std::invalid_argument("expected a boolean");
  return value.As<Napi::Boolean>().Value();
}

template <class Result, class... Arguments, std::size_t... I>
Napi::Value call(const Napi::CallbackInfo& info, Result (*kernel)(Context&, Arguments...), std::index_sequence<I...>) {
  Context& context = *info.Env().GetInstanceData<Context>();
  if constexpr (std::is_void_v<Result>) {
    kernel(context, argument<Arguments>(info[I])...);
    return info.Env().Undefined();
  } else {
    return Napi::Number::New(info.Env(), kernel(context, argument<Arguments>(info[I])...));
  }
}

template <class Result, class... Arguments>
Napi::Value callKernel(const Napi::CallbackInfo& info, Result (*kernel)(Context&, Arguments...)) {
  constexpr std::size_t count = sizeof...(Arguments);
  try {
    if (info.Length() != count) throw std::invalid_argument("expected " + std::to_string(count) + " arguments");
    return call(info, kernel, std::index_sequence_for<Arguments...>());
  } catch (const std::exception& error) {
    throw Napi::Error::New(info.Env(), error.what());
  }
}

/** A JavaScript function that runs a kernel. */
template <auto kernel>
Napi::Value run(const Napi::CallbackInfo& info) {
  return callKernel(info, kernel);
}

void setThreads(Context& context, int64_t threads) {
  expect(threads >= 1 && threads <= 1024, "the number of threads must lie between 1 and 1024");
  if (threads == context.pool->threads()) return;
  context.pool = std::make_unique<ThreadPool>(static_cast<int>(threads), useOneBlasThread);
}

/** Bytes from the beginning of an ArrayBuffer to the first address that suits vectors. */
Napi::Value alignment(const Napi::CallbackInfo& info) {
  if (info.Length() != 1 || !info[0].IsArrayBuffer()) throw Napi::Error::New(info.Env(), "expected an ArrayBuffer");
  const auto address = reinterpret_cast<std::uintptr_t>(info[0].As<Napi::ArrayBuffer>().Data());
  return Napi::Number::New(info.Env(), static_cast<double>((64 - address % 64) % 64));
}

Napi::Object initialise(Napi::Env env, Napi::Object exports) {
  useOneBlasThread();
  env.SetInstanceData(new Context{std::make_unique<ThreadPool>(1, useOneBlasThread), Scratch()});
  const auto add = [&](const char* name, Napi::Value (*function)(const Napi::CallbackInfo&)) {
    exports.Set(name, Napi::Function::New(env, function, name));
  };
  add("setThreads", run<setThreads>);
  add("alignment", alignment);
  add("embedding", run<embedding>);
  add("embeddingGrad", run<embeddingGrad>);
  add("rmsNorm", run<rmsNorm>);
  add("rmsNormGrad", run<rmsNormGrad>);
  add("linear", run<linear>);
  add("linearGrad", run<linearGrad>);
  add("ropeTable", run<ropeTable>);
  add("rope", run<rope>);
  add("attention", run<attention>);
  add("attentionGrad", run<attentionGrad>);
  add("swiglu", run<swiglu>);
  add("swigluGrad", run<swigluGrad>);
  add("crossEntropy", run<crossEntropy>);
  add("tokenScores", run<tokenScores>);
  add("gatherTokens", run<gatherTokens>);
  add("gatherTokensGrad", run<gatherTokensGrad>);
  add("adamw", run<adamw>);
  add("sumOfSquares", run<sumOfSquares>);
  add("matMul", run<matMul>);
  add("add", run<memory3::add>);
  add("multiply", run<multiply>);
  add("scale", run<scale>);
  add("sumAxis", run<sumAxis>);
  add("copyRows", run<copyRows>);
  return exports;
}

NODE_API_MODULE(memory3_native, initialise)

}  // namespace
}  // namespace memory3
