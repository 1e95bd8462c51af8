/** Names for the time line of NVIDIA's profilers (NVTX). */
#pragma once

#if defined(MEMORY3_EMULATED)

namespace memory3 {
struct Range {
  explicit Range(const char*) {}
};
}  // namespace memory3

#else

#include <nvtx3/nvToolsExt.h>

namespace memory3 {
/** A range that ends with the scope. */
class Range {
 public:
  explicit Range(const char* name) { nvtxRangePushA(name); }
  ~Range() { nvtxRangePop(); }
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;
};
}  // namespace memory3

#endif
