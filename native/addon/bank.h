/** What a memory bank asks of the system, for JavaScript; see src/engine/native/bank.ts. */
#pragma once

#include <napi.h>

namespace memory3 {

/** Puts `sparseSearch` and `readRows` into the exports. */
void exportBank(Napi::Env env, Napi::Object exports);

}  // namespace memory3
