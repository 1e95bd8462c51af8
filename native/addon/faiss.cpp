/**
 * The class `FaissIndex` of JavaScript. Calls on one object run one after the other, each on a thread of libuv but for short
 * searches, and return promises. Typed arrays are used where they are: a call holds them, and JavaScript must not transfer them
 * meanwhile.
 */

#include "faiss.h"

#ifndef MEMORY3_FAISS

void memory3::exportFaiss(Napi::Env, Napi::Object) {}

#else

#include <omp.h>

#include <chrono>
#include <deque>
#include <functional>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "../faiss/faiss_index.h"
#include "typed_arrays.h"

namespace memory3 {
namespace {

/** How many rows of `width` an array holds. */
int64_t rowsOf(Napi::Env env, int64_t size, int64_t width) {
  if (width > 0 && size % width == 0) return size / width;
  throw Napi::RangeError::New(env, std::to_string(size) + " elements are no rows of " + std::to_string(width));
}

void expectSize(Napi::Env env, const char* what, int64_t size, int64_t expected) {
  if (size == expected) return;
  throw Napi::RangeError::New(
      env, std::string(what) + " has " + std::to_string(size) + " elements, expected " + std::to_string(expected));
}

template <class Array, class T>
Napi::Value newArray(Napi::Env env, const std::vector<T>& from) {
  Array to = Array::New(env, from.size());
  std::copy(from.begin(), from.end(), to.Data());
  return to;
}

Napi::Value bigInt(Napi::Env env, int64_t value) { return Napi::BigInt::New(env, value); }

class FaissObject;

/** A call of JavaScript: what to do on a thread, what to answer then, and the objects that must live until that. */
struct Call {
  std::function<void(FaissIndex&)> work;
  std::function<Napi::Value(Napi::Env)> answer;
  int threads;
  /** Whether facts of the index may be others afterwards. */
  bool changes;
  Napi::Promise::Deferred deferred;
  std::vector<Napi::ObjectReference> held;
};

class FaissObject : public Napi::ObjectWrap<FaissObject> {
 public:
  static void define(Napi::Env env, Napi::Object exports);
  explicit FaissObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<FaissObject>(info) {}
  ~FaissObject() override;

  /** Takes what the last call has changed. */
  void take(const FaissFacts& facts);
  /** Begins the next call. */
  void finished();

 private:
  /** Seconds that the search of one query took last. */
  double alone_ = std::numeric_limits<double>::infinity();
  FaissIndex index_;
  FaissFacts facts_;
  std::deque<std::unique_ptr<Call>> waiting_;
  bool busy_ = false;

  template <class... Held>
  Napi::Value enqueue(const Napi::CallbackInfo& info, bool changes, std::function<void(FaissIndex&)> work,
                      std::function<Napi::Value(Napi::Env)> answer, const Held&... held);
  void next();

  Napi::Value make(const Napi::CallbackInfo& info);
  Napi::Value facts(const Napi::CallbackInfo& info);
  Napi::Value read(const Napi::CallbackInfo& info);
  Napi::Value restore(const Napi::CallbackInfo& info);
  Napi::Value write(const Napi::CallbackInfo& info);
  Napi::Value bytes(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);
  Napi::Value train(const Napi::CallbackInfo& info);
  Napi::Value add(const Napi::CallbackInfo& info);
  Napi::Value search(const Napi::CallbackInfo& info);
  Napi::Value searchRange(const Napi::CallbackInfo& info);
  Napi::Value remove(const Napi::CallbackInfo& info);
  Napi::Value reconstruct(const Napi::CallbackInfo& info);
  Napi::Value idRange(const Napi::CallbackInfo& info);
  Napi::Value set(const Napi::CallbackInfo& info);
  Napi::Value encode(const Napi::CallbackInfo& info);
  Napi::Value decode(const Napi::CallbackInfo& info);
};

class Job : public Napi::AsyncWorker {
 public:
  Job(Napi::Env env, FaissObject* owner, FaissIndex& index, std::unique_ptr<Call> call)
      : Napi::AsyncWorker(env, "memory3 faiss"), owner_(owner), index_(index), call_(std::move(call)) {}

  void Execute() override {
    // OpenMP keeps this for each thread that calls it, and threads of libuv serve any index.
    omp_set_num_threads(call_->threads);
    try {
      call_->work(index_);
    } catch (...) {
      look();
      throw;
    }
    look();
  }

  void OnOK() override {
    call_->deferred.Resolve(call_->answer(Env()));
    finish();
  }

  void OnError(const Napi::Error& error) override {
    call_->deferred.Reject(error.Value());
    finish();
  }

 private:
  void look() {
    if (call_->changes) facts_ = index_.facts();
  }

  void finish() {
    if (call_->changes) owner_->take(facts_);
    owner_->finished();
  }

  /** Held by the call. */
  FaissObject* owner_;
  FaissIndex& index_;
  std::unique_ptr<Call> call_;
  FaissFacts facts_;
};

FaissObject::~FaissObject() { Napi::MemoryManagement::AdjustExternalMemory(Env(), -facts_.memoryBytes); }

template <class... Held>
Napi::Value FaissObject::enqueue(const Napi::CallbackInfo& info, bool changes, std::function<void(FaissIndex&)> work,
                                 std::function<Napi::Value(Napi::Env)> answer, const Held&... held) {
  const Napi::Env env = info.Env();
  // The last argument of every call.
  const int threads = info[info.Length() - 1].ToNumber().Int32Value();
  if (threads < 1 || threads > 1024) throw Napi::RangeError::New(env, "the number of threads must lie between 1 and 1024");
  std::unique_ptr<Call> call(
      new Call{std::move(work), std::move(answer), threads, changes, Napi::Promise::Deferred::New(env), {}});
  call->held.push_back(Napi::Persistent(info.This().As<Napi::Object>()));
  (call->held.push_back(Napi::Persistent(held.template As<Napi::Object>())), ...);
  const Napi::Value promise = call->deferred.Promise();
  waiting_.push_back(std::move(call));
  if (!busy_) next();
  return promise;
}

void FaissObject::next() {
  if (waiting_.empty()) return;
  auto* job = new Job(Env(), this, index_, std::move(waiting_.front()));
  waiting_.pop_front();
  busy_ = true;
  job->Queue();
}

void FaissObject::take(const FaissFacts& facts) {
  Napi::MemoryManagement::AdjustExternalMemory(Env(), facts.memoryBytes - facts_.memoryBytes);
  facts_ = facts;
}

void FaissObject::finished() {
  busy_ = false;
  next();
}

std::function<Napi::Value(Napi::Env)> nothing() {
  return [](Napi::Env env) { return env.Undefined(); };
}

/** make(dimensions, factory, innerProduct, ids): at once, for an index without vectors costs little. */
Napi::Value FaissObject::make(const Napi::CallbackInfo& info) {
  try {
    index_.make(info[0].ToNumber().Int64Value(), info[1].ToString(), info[2].ToBoolean(), info[3].ToBoolean());
  } catch (const std::exception& error) {
    throw Napi::Error::New(info.Env(), error.what());
  }
  take(index_.facts());
  return info.Env().Undefined();
}

Napi::Value FaissObject::facts(const Napi::CallbackInfo& info) {
  Napi::Object out = Napi::Object::New(info.Env());
  out.Set("dimensions", static_cast<double>(facts_.dimensions));
  out.Set("size", static_cast<double>(facts_.size));
  out.Set("trained", facts_.trained);
  out.Set("codeBytes", static_cast<double>(facts_.codeBytes));
  out.Set("memoryBytes", static_cast<double>(facts_.memoryBytes));
  return out;
}

Napi::Value FaissObject::read(const Napi::CallbackInfo& info) {
  return enqueue(
      info, true, [path = info[0].ToString().Utf8Value(), map = info[1].ToBoolean().Value()](FaissIndex& index) { index.read(path, map); },
      nothing());
}

Napi::Value FaissObject::restore(const Napi::CallbackInfo& info) {
  const auto from = octets(info[0]);
  return enqueue(info, true, [from](FaissIndex& index) { index.restore(from.data, from.size); }, nothing(), info[0]);
}

Napi::Value FaissObject::write(const Napi::CallbackInfo& info) {
  return enqueue(info, false, [path = info[0].ToString().Utf8Value()](FaissIndex& index) { index.write(path); }, nothing());
}

Napi::Value FaissObject::bytes(const Napi::CallbackInfo& info) {
  auto out = std::make_shared<std::vector<uint8_t>>();
  return enqueue(info, false, [out](FaissIndex& index) { *out = index.bytes(); },
                 [out](Napi::Env env) { return newArray<Napi::Uint8Array>(env, *out); });
}

Napi::Value FaissObject::close(const Napi::CallbackInfo& info) {
  return enqueue(info, true, [](FaissIndex& index) { index.free(); }, nothing());
}

Napi::Value FaissObject::train(const Napi::CallbackInfo& info) {
  const auto x = floats(info[0]);
  const int64_t count = rowsOf(info.Env(), x.size, facts_.dimensions);
  return enqueue(info, true, [x, count](FaissIndex& index) { index.train(x.data, count); }, nothing(), info[0]);
}

Napi::Value FaissObject::add(const Napi::CallbackInfo& info) {
  const auto x = floats(info[0]);
  const auto ids = int64s(info[1]);
  expectSize(info.Env(), "vectors", x.size, ids.size * facts_.dimensions);
  return enqueue(info, true, [x, ids](FaissIndex& index) { index.add(x.data, ids.data, ids.size); }, nothing(), info[0], info[1]);
}

/** Searches that take less are done at once: to go to a thread and back takes about 25 microseconds. */
constexpr double SHORT_SECONDS = 0.5e-3;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/** search(queries, k, ids, scores, threads) */
Napi::Value FaissObject::search(const Napi::CallbackInfo& info) {
  const auto x = floats(info[0]);
  const int64_t count = rowsOf(info.Env(), x.size, facts_.dimensions), k = info[1].ToNumber().Int64Value();
  if (k < 1) throw Napi::RangeError::New(info.Env(), "k must be at least 1");
  const auto ids = int64s(info[2]);
  const auto scores = floats(info[3]);
  expectSize(info.Env(), "ids", ids.size, count * k);
  expectSize(info.Env(), "scores", scores.size, count * k);
  const auto search = [x, count, k, ids, scores](FaissIndex& index) {
    index.search(x.data, count, k, ids.data, scores.data);
  };
  if (count != 1) return enqueue(info, false, search, nothing(), info[0], info[2], info[3]);
  const auto work = [this, search](FaissIndex& index) {
    const double start = now();
    search(index);
    alone_ = now() - start;
  };
  if (busy_ || alone_ > SHORT_SECONDS) return enqueue(info, false, work, nothing(), info[0], info[2], info[3]);
  auto deferred = Napi::Promise::Deferred::New(info.Env());
  try {
    omp_set_num_threads(1);
    work(index_);
    deferred.Resolve(info.Env().Undefined());
  } catch (const std::exception& error) {
    deferred.Reject(Napi::Error::New(info.Env(), error.what()).Value());
  }
  return deferred.Promise();
}

Napi::Value FaissObject::searchRange(const Napi::CallbackInfo& info) {
  const auto x = floats(info[0]);
  const int64_t count = rowsOf(info.Env(), x.size, facts_.dimensions);
  const float radius = info[1].ToNumber().FloatValue();
  auto found = std::make_shared<FaissRanges>();
  return enqueue(
      info, false, [x, count, radius, found](FaissIndex& index) { *found = index.searchRange(x.data, count, radius); },
      [found](Napi::Env env) -> Napi::Value {
        Napi::Object out = Napi::Object::New(env);
        out.Set("limits", newArray<Napi::Float64Array>(env, found->limits));
        out.Set("ids", newArray<Napi::BigInt64Array>(env, found->ids));
        out.Set("scores", newArray<Napi::Float32Array>(env, found->scores));
        return out;
      },
      info[0]);
}

Napi::Value FaissObject::remove(const Napi::CallbackInfo& info) {
  const auto ids = int64s(info[0]);
  auto count = std::make_shared<int64_t>(0);
  return enqueue(info, true, [ids, count](FaissIndex& index) { *count = index.remove(ids.data, ids.size); },
                 [count](Napi::Env env) { return Napi::Number::New(env, static_cast<double>(*count)); }, info[0]);
}

Napi::Value FaissObject::reconstruct(const Napi::CallbackInfo& info) {
  const auto ids = int64s(info[0]);
  const auto out = floats(info[1]);
  expectSize(info.Env(), "vectors", out.size, ids.size * facts_.dimensions);
  return enqueue(info, true, [ids, out](FaissIndex& index) { index.reconstruct(ids.data, ids.size, out.data); }, nothing(), info[0],
                 info[1]);
}

Napi::Value FaissObject::idRange(const Napi::CallbackInfo& info) {
  auto range = std::make_shared<std::pair<int64_t, int64_t>>();
  return enqueue(info, false, [range](FaissIndex& index) { *range = index.idRange(); },
                 [range](Napi::Env env) -> Napi::Value {
                   Napi::Array out = Napi::Array::New(env, 2);
                   out.Set(0u, bigInt(env, range->first));
                   out.Set(1u, bigInt(env, range->second));
                   return out;
                 });
}

Napi::Value FaissObject::set(const Napi::CallbackInfo& info) {
  return enqueue(info, false, [name = info[0].ToString().Utf8Value(), value = info[1].ToNumber().DoubleValue()](FaissIndex& index) {
    index.set(name, value);
  }, nothing());
}

Napi::Value FaissObject::encode(const Napi::CallbackInfo& info) {
  const auto x = floats(info[0]);
  const auto codes = octets(info[1]);
  const int64_t count = rowsOf(info.Env(), x.size, facts_.dimensions);
  expectSize(info.Env(), "codes", codes.size, count * facts_.codeBytes);
  return enqueue(info, false, [x, count, codes](FaissIndex& index) { index.encode(x.data, count, codes.data); }, nothing(), info[0],
                 info[1]);
}

Napi::Value FaissObject::decode(const Napi::CallbackInfo& info) {
  const auto codes = octets(info[0]);
  const auto out = floats(info[1]);
  const int64_t count = rowsOf(info.Env(), codes.size, facts_.codeBytes);
  expectSize(info.Env(), "vectors", out.size, count * facts_.dimensions);
  return enqueue(info, false, [codes, count, out](FaissIndex& index) { index.decode(codes.data, count, out.data); }, nothing(), info[0],
                 info[1]);
}

void FaissObject::define(Napi::Env env, Napi::Object exports) {
  exports.Set("FaissIndex", DefineClass(env, "FaissIndex",
                                        {InstanceMethod("make", &FaissObject::make),
                                         InstanceMethod("facts", &FaissObject::facts),
                                         InstanceMethod("read", &FaissObject::read),
                                         InstanceMethod("restore", &FaissObject::restore),
                                         InstanceMethod("write", &FaissObject::write),
                                         InstanceMethod("bytes", &FaissObject::bytes),
                                         InstanceMethod("close", &FaissObject::close),
                                         InstanceMethod("train", &FaissObject::train),
                                         InstanceMethod("add", &FaissObject::add),
                                         InstanceMethod("search", &FaissObject::search),
                                         InstanceMethod("searchRange", &FaissObject::searchRange),
                                         InstanceMethod("remove", &FaissObject::remove),
                                         InstanceMethod("reconstruct", &FaissObject::reconstruct),
                                         InstanceMethod("idRange", &FaissObject::idRange),
                                         InstanceMethod("set", &FaissObject::set),
                                         InstanceMethod("encode", &FaissObject::encode),
                                         InstanceMethod("decode", &FaissObject::decode)}));
}

}  // namespace

void exportFaiss(Napi::Env env, Napi::Object exports) { FaissObject::define(env, exports); }

}  // namespace memory3

#endif
