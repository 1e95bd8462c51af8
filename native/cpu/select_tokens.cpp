/** `SelectTokens` (paper §3.2). Legend: B references, K key-value heads, T tokens, S kept tokens. */

#include <algorithm>
#include <numeric>
#include <vector>

#include "kernels.h"

namespace memory3 {

/** Places of the `count` best scores in text order; of equal ones the earlier; negative ones never. The rest is 0. */
static void selectRow(const float* scores, int64_t tokens, int64_t count, std::vector<int32_t>& order, int32_t* out) {
  order.clear();
  for (int64_t token = 0; token < tokens; token++) {
    if (scores[token] >= 0) order.push_back(static_cast<int32_t>(token));
  }
  const int64_t kept = std::min<int64_t>(count, static_cast<int64_t>(order.size()));
  const auto better = [&](int32_t a, int32_t b) { return scores[a] != scores[b] ? scores[a] > scores[b] : a < b; };
  std::partial_sort(order.begin(), order.begin() + kept, order.end(), better);
  std::sort(order.begin(), order.begin() + kept);
  std::copy(order.begin(), order.begin() + kept, out);
  std::fill(out + kept, out + count, 0);
}

void selectTokens(Context& context, Floats scores, int64_t tokens, int64_t count, IntsOut out) {
  if (out.size == 0) return;
  expect(tokens > 0 && count > 0 && out.size % count == 0, "SelectTokens: an impossible number of tokens");
  const int64_t rows = out.size / count;
  expectSize("SelectTokens: scores", scores.size, rows * tokens);
  parallelRanges(context, partsFor(context, 16.0 * scores.size), rows, [&](Range own) {
    std::vector<int32_t> order;
    for (int64_t row = own.begin; row < own.end; row++) {
      selectRow(scores.data + row * tokens, tokens, count, order, out.data + row * count);
    }
  });
}

}  // namespace memory3
