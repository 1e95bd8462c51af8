/**
 * Functions that run on a thread of libuv and return promises. Typed arrays are used where they are: a call holds them, and
 * JavaScript must not change or transfer them meanwhile.
 */

#include "bank.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "sparse_search.h"
#include "typed_arrays.h"

namespace memory3 {
namespace {

/** Work on a thread, the promise of its end, and the objects that must live until then. */
class Task : public Napi::AsyncWorker {
 public:
  static Napi::Value start(const Napi::CallbackInfo& info, const char* name, std::function<void()> work) {
    auto* task = new Task(info.Env(), name, std::move(work));
    for (std::size_t i = 0; i < info.Length(); i++) {
      if (info[i].IsObject()) task->held_.push_back(Napi::Persistent(info[i].As<Napi::Object>()));
    }
    const Napi::Value promise = task->deferred_.Promise();
    task->Queue();
    return promise;
  }

  void Execute() override { work_(); }
  void OnOK() override { deferred_.Resolve(Env().Undefined()); }
  void OnError(const Napi::Error& error) override { deferred_.Reject(error.Value()); }

 private:
  Task(Napi::Env env, const char* name, std::function<void()> work)
      : Napi::AsyncWorker(env, name), deferred_(Napi::Promise::Deferred::New(env)), work_(std::move(work)) {}

  Napi::Promise::Deferred deferred_;
  std::function<void()> work_;
  std::vector<Napi::ObjectReference> held_;
};

std::vector<SparseBlock> blocksOf(const Napi::Value& value, int64_t dimensions) {
  if (!value.IsArray()) throw Napi::TypeError::New(value.Env(), "expected an array of blocks");
  const auto given = value.As<Napi::Array>();
  std::vector<SparseBlock> blocks;
  for (uint32_t i = 0; i < given.Length(); i++) {
    const Napi::Object block = given.Get(i).ToObject();
    const auto starts = int32s(block.Get("starts"));
    const auto rows = typedArray<uint16_t, napi_uint16_array>(block.Get("rows"), "Uint16Array");
    const auto values = floats(block.Get("values"));
    blocks.push_back({block.Get("size").ToNumber().Int64Value(),
                      {starts.data, starts.size},
                      {rows.data, rows.size},
                      {values.data, values.size}});
    checkSparseBlock(blocks.back(), dimensions);
  }
  return blocks;
}

/** sparseSearch(blocks, queries, dimensions, k, threads, ids, scores) */
Napi::Value sparseSearchTask(const Napi::CallbackInfo& info) {
  const int64_t dimensions = info[2].ToNumber().Int64Value(), k = info[3].ToNumber().Int64Value();
  const int threads = info[4].ToNumber().Int32Value();
  try {
    const auto queries = floats(info[1]);
    const auto ids = int32s(info[5]);
    const auto scores = floats(info[6]);
    expect(dimensions > 0 && k > 0 && threads > 0, "sparse search: dimensions, k and threads must be positive");
    expect(queries.size % dimensions == 0, "sparse search: the queries are no rows of the dimensions");
    expectSize("sparse search: ids", ids.size, queries.size / dimensions * k);
    expectSize("sparse search: scores", scores.size, ids.size);
    auto blocks = blocksOf(info[0], dimensions);
    return Task::start(info, "memory3 sparse search", [=, blocks = std::move(blocks)] {
      sparseSearch(blocks, {queries.data, queries.size}, dimensions, k, threads, ids, scores);
    });
  } catch (const std::invalid_argument& error) {
    throw Napi::RangeError::New(info.Env(), error.what());
  }
}

void readRow(int file, uint8_t* target, int64_t width, int64_t offset) {
  for (int64_t done = 0; done < width;) {
    const ssize_t count = pread(file, target + done, static_cast<std::size_t>(width - done), offset + done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw std::system_error(errno, std::generic_category(), "a memory cannot be read");
    if (count == 0) throw std::runtime_error("the file ends at byte " + std::to_string(offset + done));
    done += count;
  }
}

/** readRows(files, offsets, slots, width, out): `width` bytes at offsets[i] of files[i] become row slots[i] of `out`. */
Napi::Value readRowsTask(const Napi::CallbackInfo& info) {
  const auto files = int32s(info[0]);
  const auto offsets = typedArray<double, napi_float64_array>(info[1], "Float64Array");
  const auto slots = int32s(info[2]);
  const int64_t width = info[3].ToNumber().Int64Value();
  const auto out = octets(info[4]);
  bool fits = width > 0 && offsets.size == files.size && slots.size == files.size;
  for (int64_t i = 0; fits && i < slots.size; i++) fits = slots.data[i] >= 0 && (slots.data[i] + 1) * width <= out.size;
  if (!fits) throw Napi::RangeError::New(info.Env(), "readRows: the rows do not fit");
  return Task::start(info, "memory3 read rows", [=] {
    for (int64_t i = 0; i < files.size; i++) {
      readRow(files.data[i], out.data + slots.data[i] * width, width, static_cast<int64_t>(offsets.data[i]));
    }
  });
}

}  // namespace

void exportBank(Napi::Env env, Napi::Object exports) {
  exports.Set("sparseSearch", Napi::Function::New(env, sparseSearchTask, "sparseSearch"));
  exports.Set("readRows", Napi::Function::New(env, readRowsTask, "readRows"));
}

}  // namespace memory3
