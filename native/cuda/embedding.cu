/**
 * Embedding: rows of a weight by id, and the gradient, which adds rows to the weight's. N ids, V rows of the weight, d width.
 *
 * Forward reads the float32 weight, since only few of its rows are needed as bfloat16: N·d·(4 + bytes of an activation).
 *
 * Backward must give the same bits each time, so nothing is added by atomics. The ids are sorted with their places, stably
 * and by integer work only (radix sort, 8 bits a pass: 2 passes for 60,416 rows, about 40·N bytes each). Then equal ids
 * stand together in text order. A block takes kRunTile sorted places and some columns and adds up each run of equal ids in
 * registers; runs that reach over the border of a tile leave a partial sum, and joinRunsKernel adds those in order. So no
 * block has more to do than another, however often an id occurs. dWeight is cleared first: V·d·4 bytes written, N·d read.
 */

#include "elements.cuh"
#include "kernels.h"

namespace memory3 {
namespace {

constexpr int kDigitBits = 8, kDigits = 1 << kDigitBits;
constexpr int kSortThreads = kDigits, kSortWarps = kSortThreads / kWarpSize;
constexpr int kSortTile = 8 * kSortThreads;
constexpr int kScanThreads = 1024;
constexpr int kRunTile = 32, kRunThreads = 128, kInFlight = 4;

template <class From, class To>
struct RowOfId {
  const int32_t* ids;
  const From* weight;
  int64_t rows, width;
  To* out;
  Fault* fault;
  __device__ Move<From, To> operator()(uint32_t n) const {
    const int32_t id = ids[n];
    const bool known = id >= 0 && id < rows;
    if (!known) raise(fault, kTokenOutOfRange, id, static_cast<int32_t>(rows - 1));
    return {known ? weight + id * width : nullptr, out + n * width};
  }
};

/** Ids that the weight has no row for become V, behind all others. */
__global__ void keysKernel(const int32_t* ids, int64_t count, int32_t rows, uint32_t* keys, int32_t* places, Fault* fault) {
  const int64_t n = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (n >= count) return;
  const int32_t id = ids[n];
  const bool known = id >= 0 && id < rows;
  if (!known) raise(fault, kTokenOutOfRange, id, rows - 1);
  keys[n] = static_cast<uint32_t>(known ? id : rows);
  places[n] = static_cast<int32_t>(n);
}

__device__ uint32_t digitOf(uint32_t key, int shift) { return key >> shift & (kDigits - 1); }

/** counts [digit, tile]: how often a digit stands in a tile. */
__global__ void countDigitsKernel(const uint32_t* keys, int64_t count, int shift, int32_t* counts) {
  auto* own = sharedMemory<int32_t>();
  own[threadIdx.x] = 0;
  __syncthreads();
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kSortTile;
  const int64_t end = min(begin + kSortTile, count);
  for (int64_t n = begin + threadIdx.x; n < end; n += kSortThreads) atomicAdd(own + digitOf(keys[n], shift), 1);
  __syncthreads();
  counts[static_cast<int64_t>(threadIdx.x) * gridDim.x + blockIdx.x] = own[threadIdx.x];
}

/** The sum of what the threads of a block before this one hold. `room` are 32 numbers. */
__device__ int32_t sumBefore(int32_t own, int32_t* room) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize, warp = static_cast<int>(threadIdx.x) / kWarpSize;
  int32_t sum = own;
#pragma unroll
  for (int by = 1; by < kWarpSize; by *= 2) {
    const int32_t other = __shfl_up_sync(kAllLanes, sum, by);
    if (lane >= by) sum += other;
  }
  if (lane == kWarpSize - 1) room[warp] = sum;
  __syncthreads();
  int32_t before = sum - own;
  for (int i = 0; i < warp; i++) before += room[i];
  return before;
}

/** Puts the sum of all earlier counts in the place of each; one block. */
__global__ void scanKernel(int32_t* counts, int64_t count) {
  const int64_t begin = count * threadIdx.x / kScanThreads, end = count * (threadIdx.x + 1) / kScanThreads;
  int32_t own = 0;
  for (int64_t i = begin; i < end; i++) own += counts[i];
  int32_t before = sumBefore(own, sharedMemory<int32_t>());
  for (int64_t i = begin; i < end; i++) {
    const int32_t here = counts[i];
    counts[i] = before;
    before += here;
  }
}

/** The lanes of a warp that take part and have the same digit. */
__device__ unsigned lanesWith(uint32_t digit, bool takesPart) {
  unsigned same = __ballot_sync(kAllLanes, takesPart);
#pragma unroll
  for (int bit = 0; bit < kDigitBits; bit++) {
    const bool set = (digit >> bit & 1u) != 0;
    const unsigned votes = __ballot_sync(kAllLanes, set);
    same &= set ? votes : ~votes;
  }
  return same;
}

/** One pass of the sort: moves keys and places to where those of smaller or equal digits before them end. */
__global__ void sortDigitKernel(const uint32_t* keys, const int32_t* places, int64_t count, int shift,
                                const int32_t* starts, uint32_t* sortedKeys, int32_t* sortedPlaces) {
  auto* next = sharedMemory<int32_t>();  // [digit]
  int32_t* ofWarp = next + kDigits;      // [warp, digit]
  const unsigned lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  next[threadIdx.x] = starts[static_cast<int64_t>(threadIdx.x) * gridDim.x + blockIdx.x];
  for (int round = 0; round < kSortTile / kSortThreads; round++) {
    for (int w = 0; w < kSortWarps; w++) ofWarp[w * kDigits + threadIdx.x] = 0;
    __syncthreads();
    const int64_t n = static_cast<int64_t>(blockIdx.x) * kSortTile + round * kSortThreads + threadIdx.x;
    const bool there = n < count;
    const uint32_t key = there ? keys[n] : 0;
    const uint32_t digit = digitOf(key, shift);
    const unsigned same = lanesWith(digit, there);
    const int rank = __popc(same & ((1u << lane) - 1));
    if (there && rank == 0) ofWarp[warp * kDigits + digit] = __popc(same);
    __syncthreads();
    int32_t at = next[threadIdx.x];  // thread i looks after digit i
    for (int w = 0; w < kSortWarps; w++) {
      const int32_t here = ofWarp[w * kDigits + threadIdx.x];
      ofWarp[w * kDigits + threadIdx.x] = at;
      at += here;
    }
    next[threadIdx.x] = at;
    __syncthreads();
    if (there) {
      const int32_t to = ofWarp[warp * kDigits + digit] + rank;
      sortedKeys[to] = key;
      sortedPlaces[to] = places[n];
    }
    __syncthreads();
  }
}

/** Ids in order, equal ones in text order, with their places in the text. */
class SortedIds {
 public:
  SortedIds(Context& context, const int32_t* ids, int64_t count, int64_t rows)
      : keys_{Scratch<uint32_t>(context, count), Scratch<uint32_t>(context, count)},
        places_{Scratch<int32_t>(context, count), Scratch<int32_t>(context, count)} {
    context.launch(keysKernel, static_cast<unsigned>(blocksFor(count, kSortThreads)), kSortThreads, 0, ids, count,
                   static_cast<int32_t>(rows), keys_[0].data(), places_[0].data(), context.fault());
    const auto tiles = static_cast<unsigned>(blocksFor(count, kSortTile));
    const Scratch<int32_t> counts(context, int64_t{tiles} * kDigits);
    for (int shift = 0; shift == 0 || rows >> shift > 0; shift += kDigitBits) {
      const int from = sorted_, to = 1 - sorted_;
      context.launch(countDigitsKernel, tiles, kSortThreads, kDigits * sizeof(int32_t), keys_[from].data(), count, shift,
                     counts.data());
      context.launch(scanKernel, 1, kScanThreads, 32 * sizeof(int32_t), counts.data(), int64_t{tiles} * kDigits);
      context.launch(sortDigitKernel, tiles, kSortThreads, (1 + kSortWarps) * kDigits * sizeof(int32_t),
                     keys_[from].data(), places_[from].data(), count, shift, counts.data(), keys_[to].data(),
                     places_[to].data());
      sorted_ = to;
    }
  }
  const uint32_t* keys() const { return keys_[sorted_].data(); }
  const int32_t* places() const { return places_[sorted_].data(); }

 private:
  Scratch<uint32_t> keys_[2];
  Scratch<int32_t> places_[2];
  int sorted_ = 0;
};

/** The part of the sorted ids that a block has, cut into runs of equal ids. */
struct RunTile {
  const uint32_t* keys;
  int64_t count, begin, end;
  __device__ RunTile(const uint32_t* keys_, int64_t count_, int64_t tile)
      : keys(keys_), count(count_), begin(tile * kRunTile), end(min(begin + kRunTile, count)) {}
  __device__ bool endsAt(int64_t n) const { return n + 1 == end || keys[n + 1] != keys[n]; }
  __device__ bool firstComesFromBefore() const { return begin > 0 && keys[begin - 1] == keys[begin]; }
  __device__ bool lastGoesOn() const { return end < count && keys[end] == keys[end - 1]; }
};

/**
 * Adds the rows of dy of each run. partial [tile, 2, d]: of the run that comes from the tile before, and of the one that
 * begins here and goes on in the next. A thread has N columns.
 */
template <int N, class T>
__global__ void sumRunsKernel(const uint32_t* keys, const int32_t* places, int64_t count, uint32_t rows, const T* dy,
                              int64_t width, uint32_t columnTiles, float* dWeight, float* partial) {
  const int64_t tile = blockIdx.x / columnTiles;
  const int64_t column = (static_cast<int64_t>(blockIdx.x % columnTiles) * blockDim.x + threadIdx.x) * N;
  if (column >= width) return;
  const RunTile own(keys, count, tile);
  Group<float, N> sum{};
  bool first = true;
  for (int64_t n = own.begin; n < own.end; n += kInFlight) {
    Group<T, N> values[kInFlight];
#pragma unroll
    for (int i = 0; i < kInFlight; i++) {
      values[i] = loadGroup<N>(dy + places[min(n + i, own.end - 1)] * width + column);
    }
#pragma unroll
    for (int i = 0; i < kInFlight; i++) {
      if (n + i >= own.end) continue;
#pragma unroll
      for (int j = 0; j < N; j++) sum.at[j] += toFloat(values[i].at[j]);
      if (!own.endsAt(n + i)) continue;
      const uint32_t id = keys[n + i];
      if (first && own.firstComesFromBefore()) {
        storeGroup(partial + 2 * tile * width + column, sum);
      } else if (n + i + 1 == own.end && own.lastGoesOn()) {
        storeGroup(partial + (2 * tile + 1) * width + column, sum);
      } else if (id < rows) {
        storeGroup(dWeight + id * width + column, sum);
      }
      first = false;
      sum = {};
    }
  }
}

/** The block of the tile in which a run begins that goes on adds up what its tiles have left. */
template <int N>
__global__ void joinRunsKernel(const uint32_t* keys, int64_t count, uint32_t rows, int64_t width, uint32_t columnTiles,
                               const float* partial, float* dWeight) {
  int64_t tile = blockIdx.x / columnTiles;
  const int64_t column = (static_cast<int64_t>(blockIdx.x % columnTiles) * blockDim.x + threadIdx.x) * N;
  if (column >= width) return;
  const RunTile own(keys, count, tile);
  const uint32_t id = keys[own.end - 1];
  const bool beginsBefore = keys[own.begin] == id && own.firstComesFromBefore();
  if (!own.lastGoesOn() || beginsBefore || id >= rows) return;
  Group<float, N> sum = loadGroup<N>(partial + (2 * tile + 1) * width + column);
  bool goesOn = true;
  while (goesOn) {
    tile++;
    const Group<float, N> part = loadGroup<N>(partial + 2 * tile * width + column);
#pragma unroll
    for (int j = 0; j < N; j++) sum.at[j] += part.at[j];
    const RunTile next(keys, count, tile);
    goesOn = keys[next.end - 1] == id && next.lastGoesOn();
  }
  storeGroup(dWeight + id * width + column, sum);
}

template <int N, class T>
void addRuns(Context& context, const SortedIds& ids, int64_t count, int64_t rows, const T* dy, int64_t width,
             float* dWeight) {
  const int64_t groups = width / N, tiles = blocksFor(count, kRunTile);
  const int64_t threads = std::min<int64_t>(blocksFor(groups, kWarpSize) * kWarpSize, kRunThreads);
  const int64_t columnTiles = blocksFor(groups, threads), blocks = tiles * columnTiles;
  expect(blocks < (int64_t{1} << 31), "embeddingGrad: too many ids");
  const Scratch<float> partial(context, 2 * tiles * width);
  context.launch(sumRunsKernel<N, T>, static_cast<unsigned>(blocks), static_cast<unsigned>(threads), 0, ids.keys(),
                 ids.places(), count, static_cast<uint32_t>(rows), dy, width, static_cast<uint32_t>(columnTiles), dWeight,
                 partial.data());
  context.launch(joinRunsKernel<N>, static_cast<unsigned>(blocks), static_cast<unsigned>(threads), 0, ids.keys(), count,
                 static_cast<uint32_t>(rows), width, static_cast<uint32_t>(columnTiles),
                 static_cast<const float*>(partial.data()), dWeight);
}

}  // namespace

void embedding(Context& context, Tensor ids, Tensor weight, int64_t width, Tensor out) {
  expect(width > 0 && weight.count % width == 0, "embedding: the weight is not made of rows of this width");
  expect(out.count == ids.count * width, "embedding: the ids and the result differ in size");
  if (out.empty()) return;
  Context::touch(out);
  withType(weight.type(), [&](auto weightType) {
    withType(out.type(), [&](auto outType) {
      using From = decltype(weightType);
      using To = decltype(outType);
      const RowOfId<From, To> row{ids.as<int32_t>(), weight.as<From>(), weight.count / width,
                                  width,             out.as<To>(),      context.fault()};
      moveRows<From, To>(context, row, ids.count, width, width % kGroup == 0 && aligned(row.weight, row.out));
    });
  });
}

void embeddingGrad(Context& context, Tensor ids, Tensor dy, int64_t rows, Tensor dWeight) {
  expect(rows > 0 && rows < INT32_MAX && dWeight.count % rows == 0,
         "embeddingGrad: the gradient is not made of so many rows");
  const int64_t width = dWeight.count / rows;
  expect(dy.count == ids.count * width, "embeddingGrad: the ids and dy differ in size");
  if (dWeight.empty()) return;
  Context::touch(dWeight);
  auto* sums = dWeight.as<float>();
  check(cudaMemsetAsync(sums, 0, static_cast<std::size_t>(dWeight.count) * sizeof(float), context.stream()),
        "clearing memory");
  if (ids.empty()) return;
  expect(ids.count < INT32_MAX, "embeddingGrad: too many ids");
  const SortedIds sorted(context, ids.as<int32_t>(), ids.count, rows);
  withType(dy.type(), [&](auto type) {
    using T = decltype(type);
    const T* upstream = dy.as<T>();
    if (width % kGroup == 0 && aligned(upstream, sums)) {
      addRuns<kGroup>(context, sorted, ids.count, rows, upstream, width, sums);
    } else {
      addRuns<1>(context, sorted, ids.count, rows, upstream, width, sums);
    }
  });
}

}  // namespace memory3
