/** What NVIDIA's driver says, for JavaScript; see cuda_driver.cpp. */
#pragma once

#include <napi.h>

namespace memory3 {

/** Puts `cudaDriver` into the exports. */
void exportCudaDriver(Napi::Env env, Napi::Object exports);

}  // namespace memory3
