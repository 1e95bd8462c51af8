/** Libraries of NVIDIA that are looked for when they are needed, so that nothing but the CUDA runtime is linked. */
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

namespace memory3 {

/** What to look for. */
struct LibraryNames {
  /** What it is called in messages. */
  std::string title;
  /** Names of the file, the best first. */
  std::vector<std::string> files;
  /** Where Python wheels keep it, in their folder nvidia. */
  std::vector<std::string> wheelFolders;
};

/** A library, loaded; it stays loaded until the process ends. */
class SharedLibrary {
 public:
  /**
   * Looks in the folders that MEMORY3_CUDA_LIBS names (separated by colons; a folder with Python wheels will do), on the
   * loader's path, in $CUDA_HOME and /usr/local/cuda, and where Python keeps its packages.
   * Throws std::runtime_error that says where it was looked for and what to set.
   */
  explicit SharedLibrary(const LibraryNames& names);

  /** A function of the library as a pointer of its type. Throws std::runtime_error when it is not there. */
  template <class Function>
  void find(Function*& function, const char* name) const {
    findIfThere(function, name);
    if (function == nullptr) {
      throw std::runtime_error(path() + " has no function " + name + ": it is of a version that is not supported");
    }
  }

  /** The same, but leaves null where it is not there. */
  template <class Function>
  void findIfThere(Function*& function, const char* name) const {
    function = reinterpret_cast<Function*>(address(name));
  }

  /** Where it was found. */
  const std::string& path() const { return path_; }

 private:
  void* address(const char* name) const;

  void* library_ = nullptr;
  std::string path_;
};

}  // namespace memory3
