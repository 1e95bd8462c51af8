/** A libcuda.so.1 with two GPUs, or with an error of cuInit that FAKE_CUDA_INIT names; for driver.test.ts. */
#include <cstddef>
#include <cstdlib>
#include <cstring>

extern "C" {
static bool initialised = false;
static const int kNotInitialised = 3, kInvalid = 1;

int cuInit(unsigned flags) {
  if (flags != 0) return kInvalid;
  const char* error = std::getenv("FAKE_CUDA_INIT");
  if (error != nullptr) return std::atoi(error);
  initialised = true;
  return 0;
}
int cuDriverGetVersion(int* version) {
  *version = 12040;
  return 0;
}
int cuDeviceGetCount(int* count) {
  const char* given = std::getenv("FAKE_CUDA_COUNT");
  *count = given != nullptr ? std::atoi(given) : 2;
  return initialised ? 0 : kNotInitialised;
}
int cuDeviceGet(int* device, int ordinal) {
  *device = 40 + ordinal;
  return initialised && (ordinal == 0 || ordinal == 1) ? 0 : kInvalid;
}
int cuDeviceGetName(char* name, int length, int device) {
  std::strncpy(name, device == 40 ? "Imaginary H100" : "Imaginary A100", length);
  return device == 40 || device == 41 ? 0 : kInvalid;
}
int cuDeviceTotalMem_v2(std::size_t* bytes, int device) {
  *bytes = (std::size_t{1} << 30) * (device == 40 ? 80 : 40);
  return device == 40 || device == 41 ? 0 : kInvalid;
}
int cuDeviceGetAttribute(int* value, int attribute, int device) {
  if (attribute != 75 && attribute != 76) return kInvalid;
  *value = attribute == 76 ? 0 : device == 40 ? 9 : 8;
  return device == 40 || device == 41 ? 0 : kInvalid;
}
int cuGetErrorString(int, const char** text) {
  *text = "as imagined";
  return 0;
}
}
