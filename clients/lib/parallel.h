#ifndef CLIENTS_LIB_PARALLEL_H_
#define CLIENTS_LIB_PARALLEL_H_

#include <functional>

#include "absl/status/status.h"

namespace mechinterp {

// Calls work(0) ... work(count - 1), each once, from up to `concurrency`
// threads, in rising order of the start. After the first failure no further
// call starts; those running finish, and that failure is returned. `work` must
// be safe to call from several threads.
absl::Status ParallelFor(int count, int concurrency, const std::function<absl::Status(int)>& work);

}  // namespace mechinterp

#endif  // CLIENTS_LIB_PARALLEL_H_
