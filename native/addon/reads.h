/** Promises of JavaScript that are kept when a stream has come to a read. */
#pragma once

#include <napi.h>

#include <string>

namespace memory3 {

/** A promise of JavaScript, and the array that must live until it is kept. */
struct Read {
  Napi::Promise::Deferred deferred;
  Napi::ObjectReference target;
  std::string error;
};

/**
 * Keeps the promise of a read; called on the thread of JavaScript. `Owner` has `pendingReads`, which keeps the process while
 * it is not 0, and `deliveries`.
 */
template <class Owner>
void deliver(Napi::Env env, Napi::Function, Owner* owner, Read* read) {
  if (env == nullptr) {  // JavaScript has ended; its handles went with it.
    read->target.SuppressDestruct();
    delete read;
    return;
  }
  try {
    if (read->error.empty()) {
      read->deferred.Resolve(read->target.Value());
    } else {
      read->deferred.Reject(Napi::Error::New(env, read->error).Value());
    }
    delete read;
    if (--owner->pendingReads == 0) owner->deliveries.Unref(env);
  } catch (const Napi::Error&) {
    // The thread of JavaScript is being ended: nobody waits any more.
  }
}

template <class Owner>
using Deliveries = Napi::TypedThreadSafeFunction<Owner, Read, deliver<Owner>>;

}  // namespace memory3
