/** Typed arrays of JavaScript as C++ sees them, where they are. */
#pragma once

#include <napi.h>

#include <string>

#include "common.h"

namespace memory3 {

/** @throws Napi::TypeError for anything but an array of this type whose buffer is still there */
template <class T, napi_typedarray_type type>
Array<T> typedArray(const Napi::Value& value, const char* what) {
  napi_typedarray_type found{};
  std::size_t length = 0, offset = 0;
  void* data = nullptr;
  napi_value buffer = nullptr;
  if (!value.IsTypedArray() ||
      napi_get_typedarray_info(value.Env(), value, &found, &length, &data, &buffer, &offset) != napi_ok || found != type) {
    throw Napi::TypeError::New(value.Env(), std::string("expected a ") + what);
  }
  bool detached = false;
  napi_is_detached_arraybuffer(value.Env(), buffer, &detached);
  if (detached) throw Napi::TypeError::New(value.Env(), std::string("the buffer of a ") + what + " was transferred away");
  return {static_cast<T*>(data), static_cast<int64_t>(length)};
}

inline Array<float> floats(const Napi::Value& value) {
  return typedArray<float, napi_float32_array>(value, "Float32Array");
}
inline Array<int32_t> int32s(const Napi::Value& value) {
  return typedArray<int32_t, napi_int32_array>(value, "Int32Array");
}
inline Array<int64_t> int64s(const Napi::Value& value) {
  return typedArray<int64_t, napi_bigint64_array>(value, "BigInt64Array");
}
inline Array<uint8_t> octets(const Napi::Value& value) {
  return typedArray<uint8_t, napi_uint8_array>(value, "Uint8Array");
}

}  // namespace memory3
