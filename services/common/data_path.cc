#include "services/common/data_path.h"

#ifdef __APPLE__
#include <mach-o/dyld.h>

#include <array>
#endif

#include <cstdlib>
#include <filesystem>
#include <system_error>

namespace mechinterp {
namespace {

constexpr char kDataFolder[] = "data/";

// The folder of the running program, links resolved; empty if it is not known.
std::filesystem::path ProgramFolder() {
  std::error_code error;
#ifdef __APPLE__
  std::array<char, 4096> buffer;
  uint32_t size = buffer.size();
  if (_NSGetExecutablePath(buffer.data(), &size) != 0) return {};
  return std::filesystem::canonical(buffer.data(), error).parent_path();
#else
  return std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
#endif
}

std::vector<std::string> DataFolders() {
  std::vector<std::string> folders;
  if (const char* set = std::getenv("ABSTRACT_DATA_DIR"); set != nullptr && *set != '\0')
    folders.emplace_back(set);
  folders.emplace_back("data");
  if (const std::filesystem::path program = ProgramFolder(); !program.empty()) {
    folders.push_back((program / ABSTRACT_DATA_FROM_PROGRAM).lexically_normal().string());
  }
  folders.emplace_back(ABSTRACT_SOURCE_DATA);
  return folders;
}

}  // namespace

std::string FindIn(const std::vector<std::string>& data_folders, const std::string& path) {
  if (path.rfind(kDataFolder, 0) != 0) return path;
  const std::string rest = path.substr(sizeof(kDataFolder) - 1);
  std::error_code error;
  for (const std::string& folder : data_folders) {
    const std::filesystem::path candidate = std::filesystem::path(folder) / rest;
    if (std::filesystem::exists(candidate, error)) return candidate.string();
  }
  return path;
}

std::string DataPath(const std::string& path) { return FindIn(DataFolders(), path); }

}  // namespace mechinterp
