/**
 * What NVIDIA's driver says of the machine, asked of libcuda.so.1 itself: it works where nothing of CUDA was there when the
 * addon was built, and tells why kernels for GPUs cannot run before anybody tries to run one.
 */

#include "cuda_driver.h"

#include <dlfcn.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "arguments.h"

namespace memory3 {
namespace {

constexpr const char* kLibrary = "libcuda.so.1";

// Results of the driver that have a remedy of their own.
enum Result : int {
  kSuccess = 0,
  kOutOfMemory = 2,
  kStubLibrary = 34,
  kNoDevice = 100,
  kSystemNotReady = 802,
  kDriverMismatch = 803,
  kNotOnThisDevice = 804,
  kUnknown = 999,
};
constexpr int kComputeCapabilityMajor = 75, kComputeCapabilityMinor = 76;

/** Why the driver is of no use here, in words that say what to do. */
class Unusable : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

std::string remedyFor(int result) {
  switch (result) {
    case kOutOfMemory: return "the memory of the machine or of its GPUs is full; end what else uses it (nvidia-smi)";
    case kStubLibrary:
      return std::string(kLibrary) +
             " is a stub for linking, not the driver; take its folder (stubs) out of LD_LIBRARY_PATH";
    case kNoDevice:
      return "the driver sees no GPU; look at nvidia-smi and CUDA_VISIBLE_DEVICES, and start a container with its GPUs "
             "(docker run --gpus all)";
    case kSystemNotReady:
      return "the GPUs are not ready yet; on machines with NVSwitch start the service nvidia-fabricmanager";
    case kDriverMismatch:
      return std::string(kLibrary) +
             " and the kernel module of the driver are of different versions; restart the machine after the driver's "
             "update, and in a container take CUDA's compat folder out of LD_LIBRARY_PATH";
    case kNotOnThisDevice:
      return "the driver found is one of CUDA's compat folder, which this GPU does not take; take that folder out of "
             "LD_LIBRARY_PATH or update the driver";
    case kUnknown:
      return "the driver does not work; look at nvidia-smi and dmesg, and that /dev/nvidia* can be read and written";
    default: return "look at nvidia-smi and dmesg";
  }
}

/** The driver, loaded. It stays loaded: it does not bear being unloaded. */
class Driver {
 public:
  Driver() {
    library_ = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
    if (library_ == nullptr) {
      const char* problem = dlerror();
      throw Unusable(std::string("NVIDIA's driver is not there (") + (problem != nullptr ? problem : kLibrary) +
                     "); install it, or start a container with its GPUs (docker run --gpus all)");
    }
    find(init_, "cuInit");
    find(driverVersion_, "cuDriverGetVersion");
    find(deviceCount_, "cuDeviceGetCount");
    find(device_, "cuDeviceGet");
    find(deviceName_, "cuDeviceGetName");
    find(deviceMemory_, "cuDeviceTotalMem_v2");
    find(deviceAttribute_, "cuDeviceGetAttribute");
    find(errorText_, "cuGetErrorString");
    check(init_(0), "starting the driver");
  }

  /** The newest version of CUDA that the driver runs, such as 13.0. */
  std::string version() const {
    int version = 0;
    check(driverVersion_(&version), "asking for the driver's version");
    return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
  }

  int devices() const {
    int count = 0;
    check(deviceCount_(&count), "counting GPUs");
    if (count == 0) throw Unusable(remedyFor(kNoDevice));
    return count;
  }

  struct Device {
    std::string name;
    std::size_t memory;
    std::string computeCapability;
  };

  Device device(int number) const {
    int device = 0, major = 0, minor = 0;
    char name[256] = "";
    std::size_t memory = 0;
    check(device_(&device, number), "opening a GPU");
    check(deviceName_(name, sizeof name, device), "asking for a GPU's name");
    check(deviceMemory_(&memory, device), "asking for a GPU's memory");
    check(deviceAttribute_(&major, kComputeCapabilityMajor, device), "asking for a GPU's compute capability");
    check(deviceAttribute_(&minor, kComputeCapabilityMinor, device), "asking for a GPU's compute capability");
    return {name, memory, std::to_string(major) + "." + std::to_string(minor)};
  }

 private:
  template <class Function>
  void find(Function*& function, const char* name) {
    function = reinterpret_cast<Function*>(dlsym(library_, name));
    if (function == nullptr) {
      throw Unusable(std::string(kLibrary) + " has no function " + name + "; install a newer driver");
    }
  }

  void check(int result, const char* what) const {
    if (result == kSuccess) return;
    const char* text = nullptr;
    if (errorText_(result, &text) != kSuccess || text == nullptr) text = "unknown error";
    throw Unusable(std::string(what) + " failed: " + text + " (" + std::to_string(result) + "); " + remedyFor(result));
  }

  void* library_ = nullptr;
  int (*init_)(unsigned flags) = nullptr;
  int (*driverVersion_)(int* version) = nullptr;
  int (*deviceCount_)(int* count) = nullptr;
  int (*device_)(int* device, int number) = nullptr;
  int (*deviceName_)(char* name, int length, int device) = nullptr;
  int (*deviceMemory_)(std::size_t* bytes, int device) = nullptr;
  int (*deviceAttribute_)(int* value, int attribute, int device) = nullptr;
  int (*errorText_)(int result, const char** text) = nullptr;
};

/** cudaDriver(): `{driver, devices: [{name, memory, computeCapability}]}`, or `{why}`. */
Napi::Value cudaDriver(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const Napi::Env env = info.Env();
    Napi::Object result = Napi::Object::New(env);
    try {
      const Driver driver;
      const int count = driver.devices();
      Napi::Array devices = Napi::Array::New(env, count);
      for (int number = 0; number < count; number++) {
        const Driver::Device device = driver.device(number);
        Napi::Object entry = Napi::Object::New(env);
        entry.Set("name", device.name);
        entry.Set("memory", static_cast<double>(device.memory));
        entry.Set("computeCapability", device.computeCapability);
        devices.Set(static_cast<uint32_t>(number), entry);
      }
      result.Set("driver", driver.version());
      result.Set("devices", devices);
    } catch (const Unusable& problem) {
      Napi::Object unusable = Napi::Object::New(env);
      unusable.Set("why", problem.what());
      return unusable;
    }
    return result;
  });
}

}  // namespace

void exportCudaDriver(Napi::Env env, Napi::Object exports) {
  exports.Set("cudaDriver", Napi::Function::New(env, cudaDriver, "cudaDriver", const_cast<char*>("cudaDriver")));
}

}  // namespace memory3
