/** Numbers from float32 to bfloat16 and back: 6 bytes a number, bound by memory, 8 numbers a thread. */

#include "elements.cuh"
#include "kernels.h"

namespace memory3 {

void convert(Context& context, const float* from, Bf16* to, int64_t count) {
  mapElements(context, Same{}, count, to, from);
}
void convert(Context& context, const Bf16* from, float* to, int64_t count) {
  mapElements(context, Same{}, count, to, from);
}

}  // namespace memory3
