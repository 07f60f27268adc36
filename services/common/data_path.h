#ifndef SERVICES_COMMON_DATA_PATH_H_
#define SERVICES_COMMON_DATA_PATH_H_

#include <string>
#include <vector>

namespace mechinterp {

// The project's own data (models, prompts, phrases) goes by paths that begin with
// "data/", as defaults of options and in configuration files do. Programs find it from any
// folder. Thread-safe.

// `path`, unless it begins with "data/": then the first that exists of
//   the rest of it in $ABSTRACT_DATA_DIR, where that is set,
//   the path as it is, from the current folder,
//   the rest of it where an installation keeps its data, beside the program's folder,
//   the path in the source tree that the program was built from;
// `path` itself, for the message, where none does.
std::string DataPath(const std::string& path);

// The same with the folders that stand for "data", in their order.
std::string FindIn(const std::vector<std::string>& data_folders, const std::string& path);

}  // namespace mechinterp

#endif  // SERVICES_COMMON_DATA_PATH_H_
