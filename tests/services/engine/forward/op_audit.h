#ifndef TESTS_SERVICES_ENGINE_FORWARD_OP_AUDIT_H_
#define TESTS_SERVICES_ENGINE_FORWARD_OP_AUDIT_H_

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

namespace mechinterp::engine {

// How an operation reaches MPS in one version of libtorch (tests/testdata/mps).
enum class OpKind {
  kKernel,     // has a kernel of its own, or hands on to a variant that has
  kComposite,  // made of others, or of none: a view
  kMissing,
};
using OpTable = std::map<std::string, OpKind>;  // by "mul.Tensor"
OpTable ReadOpTable(const std::string& version);

// Records what libtorch is asked to compute in this thread as long as it lives, and
// holds it against what MPS has and does right. An operation that has a kernel on MPS is
// looked at as a whole; one that is composed of others, by those.
class OpAudit {
 public:
  // `versions`: of the tables.
  explicit OpAudit(const std::vector<std::string>& versions = {"2.6", "2.14.1"});
  ~OpAudit();

  // What is wrong, each once: "index_copy_: has no kernel on MPS in 2.6".
  const std::set<std::string>& violations() const;
  // The operations with kernels that were seen.
  const std::set<std::string>& operations() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mechinterp::engine

#endif  // TESTS_SERVICES_ENGINE_FORWARD_OP_AUDIT_H_
