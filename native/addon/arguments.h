/** How the functions of an addon take their arguments from JavaScript, and how C++ exceptions become JavaScript's. */
#pragma once

#include <napi.h>

#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace memory3 {

/** The name under which JavaScript called. */
inline const char* nameOf(const Napi::CallbackInfo& info) { return static_cast<const char*>(info.Data()); }

/** Calls `body`; a C++ exception becomes a JavaScript one. */
template <class Body>
auto guarded(const Napi::CallbackInfo& info, const Body& body) {
  try {
    return body();
  } catch (const Napi::Error&) {
    throw;
  } catch (const std::exception& error) {
    throw Napi::Error::New(info.Env(), error.what());
  }
}

/** An argument as a C++ value. Throws std::invalid_argument when it is of another type. */
template <class T>
T argument(const Napi::Value& value);

template <>
inline double argument<double>(const Napi::Value& value) {
  if (!value.IsNumber()) throw std::invalid_argument("expected a number");
  return value.As<Napi::Number>().DoubleValue();
}

template <>
inline int64_t argument<int64_t>(const Napi::Value& value) {
  if (!value.IsNumber()) throw std::invalid_argument("expected a number");
  return value.As<Napi::Number>().Int64Value();
}

template <>
inline bool argument<bool>(const Napi::Value& value) {
  if (!value.IsBoolean()) throw std::invalid_argument("expected a boolean");
  return value.As<Napi::Boolean>().Value();
}

template <class T>
std::vector<T> listOf(const Napi::Value& value) {
  if (!value.IsArray()) throw std::invalid_argument("expected an array");
  const auto array = value.As<Napi::Array>();
  std::vector<T> list;
  for (uint32_t i = 0; i < array.Length(); i++) list.push_back(argument<T>(array.Get(i)));
  return list;
}

template <>
inline std::vector<int64_t> argument<std::vector<int64_t>>(const Napi::Value& value) {
  return listOf<int64_t>(value);
}

template <class... Arguments, std::size_t... I>
std::tuple<Arguments...> argumentsAt(const Napi::CallbackInfo& info, std::index_sequence<I...>) {
  return {argument<Arguments>(info[I])...};
}

/**
 * The arguments of a call, as the parameters of `kernel` behind its first, which is the context.
 * Throws std::invalid_argument when their number or a type does not fit.
 */
template <class Context, class... Arguments>
std::tuple<std::decay_t<Arguments>...> argumentsFor(const Napi::CallbackInfo& info, void (*)(Context&, Arguments...)) {
  constexpr std::size_t count = sizeof...(Arguments);
  if (info.Length() != count) throw std::invalid_argument("expected " + std::to_string(count) + " arguments");
  return argumentsAt<std::decay_t<Arguments>...>(info, std::make_index_sequence<count>());
}

}  // namespace memory3
