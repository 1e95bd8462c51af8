/** Faiss for JavaScript; see src/engine/native/faiss.ts. */
#pragma once

#include <napi.h>

namespace memory3 {

/** Puts the class `FaissIndex` into the exports; without Faiss nothing. */
void exportFaiss(Napi::Env env, Napi::Object exports);

}  // namespace memory3
