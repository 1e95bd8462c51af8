#include "shared_library.h"

#include <dlfcn.h>
#include <glob.h>
#include <link.h>
#include <unistd.h>

#include <cstdlib>
#include <sstream>

namespace memory3 {
namespace {

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

std::vector<std::string> splitAtColons(const std::string& list) {
  std::vector<std::string> parts;
  std::istringstream stream(list);
  for (std::string part; std::getline(stream, part, ':');) {
    if (!part.empty()) parts.push_back(part);
  }
  return parts;
}

std::vector<std::string> matches(const std::string& pattern) {
  glob_t found{};
  std::vector<std::string> paths;
  if (glob(pattern.c_str(), 0, nullptr, &found) == 0) paths.assign(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  globfree(&found);
  return paths;
}

/** A folder that somebody named, as it is and as one that Python wheels were unpacked in. */
void addNamed(std::vector<std::string>& folders, const std::string& folder, const LibraryNames& names) {
  folders.push_back(folder);
  for (const std::string& wheel : names.wheelFolders) folders.push_back(folder + "/nvidia/" + wheel);
}

void addToolkit(std::vector<std::string>& folders, const std::string& home) {
  if (home.empty()) return;
  for (const char* part : {"/lib64", "/lib", "/targets/x86_64-linux/lib", "/targets/sbsa-linux/lib"}) {
    folders.push_back(home + part);
  }
}

/** The folders of wheels of all Pythons at the usual places. */
void addWheels(std::vector<std::string>& folders, const LibraryNames& names) {
  std::vector<std::string> homes;
  for (const char* name : {"VIRTUAL_ENV", "CONDA_PREFIX"}) {
    const std::string home = environment(name);
    if (!home.empty()) homes.push_back(home);
  }
  const std::string conda = environment("CONDA_PREFIX");
  if (!conda.empty()) folders.push_back(conda + "/lib");
  if (!environment("HOME").empty()) homes.push_back(environment("HOME") + "/.local");
  for (const char* home : {"/usr/local", "/usr", "/opt/conda", "/opt/venv"}) homes.push_back(home);
  for (const std::string& home : homes) {
    for (const std::string& wheel : names.wheelFolders) {
      for (const std::string& folder : matches(home + "/lib/python3*/*-packages/nvidia/" + wheel)) {
        folders.push_back(folder);
      }
    }
  }
}

/** Whether a message of the loader only says that the file itself is not on its path. */
bool saysNotThere(const std::string& problem, const std::string& file) {
  return problem.rfind(file + ": cannot open shared object file", 0) == 0;
}

std::string pathOf(void* library, const std::string& asked) {
  link_map* map = nullptr;
  return dlinfo(library, RTLD_DI_LINKMAP, &map) == 0 && map->l_name[0] != '\0' ? map->l_name : asked;
}

std::string joined(const std::vector<std::string>& parts, const char* between) {
  std::string all;
  for (const std::string& part : parts) all += (all.empty() ? "" : between) + part;
  return all;
}

/** Tries one place after the other and remembers what went wrong. */
class Search {
 public:
  explicit Search(const LibraryNames& names) : names_(names) {}

  /** Looks in a folder, or with an empty name on the loader's path. @returns the library, or null */
  void* lookIn(const std::string& folder) {
    tried_.push_back(folder.empty() ? "the loader's path" : folder);
    for (const std::string& file : names_.files) {
      const std::string path = folder.empty() ? file : folder + "/" + file;
      if (!folder.empty() && access(path.c_str(), F_OK) != 0) continue;
      if (void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) {
        found = pathOf(library, path);
        return library;
      }
      const char* problem = dlerror();
      const std::string text = problem != nullptr ? problem : path + " does not load";
      if (!saysNotThere(text, file)) problems_.push_back(text);
    }
    return nullptr;
  }

  /** What to tell when nothing was found. */
  std::string failure() const {
    return names_.title + " was not found. " + joined(names_.files, ", ") + ": looked in " + joined(tried_, ", ") +
           (problems_.empty() ? "" : "; " + joined(problems_, "; ")) +
           ". Install the libraries of CUDA, or the Python wheel that holds it, and set MEMORY3_CUDA_LIBS to its folder "
           "(for a wheel: site-packages/nvidia/" + names_.wheelFolders.front() + ").";
  }

  std::string found;

 private:
  const LibraryNames& names_;
  std::vector<std::string> tried_, problems_;
};

}  // namespace

SharedLibrary::SharedLibrary(const LibraryNames& names) {
  std::vector<std::string> folders;
  for (const std::string& folder : splitAtColons(environment("MEMORY3_CUDA_LIBS"))) addNamed(folders, folder, names);
  folders.push_back("");
  addToolkit(folders, environment("CUDA_HOME"));
  addToolkit(folders, "/usr/local/cuda");
  addWheels(folders, names);
  Search search(names);
  for (const std::string& folder : folders) {
    library_ = search.lookIn(folder);
    if (library_ == nullptr) continue;
    path_ = search.found;
    return;
  }
  throw std::runtime_error(search.failure());
}

void* SharedLibrary::address(const char* name) const { return dlsym(library_, name); }

}  // namespace memory3
