#include "tests/services/engine/forward/op_audit.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/record_function.h>

#include <cstdlib>
#include <fstream>
#include <iostream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "tests/services/engine/fixture.h"

namespace mechinterp::engine {
namespace {

// Wrong results on MPS, though there are kernels: pytorch issues 195910 and 174861;
// a tensor as the value waits for the device.
const std::set<std::string> kKnownWrong = {
    "scaled_dot_product_attention",
    "_scaled_dot_product_attention_math_for_mps",
    "masked_fill_.Tensor",
    "index_copy_",
    "index_copy",
    "multinomial",
};

// Operands must be contiguous (issues 193487, 162779), and no side longer than this
// (116769).
const std::set<std::string> kProducts = {"mm", "bmm", "addmm", "baddbmm", "linear", "matmul", "addmv", "mv"};
constexpr int64_t kLongestSide = 32768;

// The inputs are an array or a view of one, by libtorch's version.
template <typename Values, typename Function>
void ForEachTensor(const Values& values, Function&& function) {
  for (const c10::IValue& value : values) {
    if (value.isTensor() && value.toTensor().defined()) {
      function(value.toTensor());
    } else if (value.isTensorList()) {
      for (const at::Tensor& tensor : value.toTensorVector()) function(tensor);
    }
  }
}

}  // namespace

OpTable ReadOpTable(const std::string& version) {
  const std::string path = TestData(absl::StrCat("mps/mps_ops_", version, ".tsv"));
  std::ifstream file(path);
  if (!file) {
    std::cerr << path << ": cannot be read\n";
    std::abort();
  }
  OpTable table;
  std::string line;
  std::getline(file, line);  // the columns' names
  while (std::getline(file, line)) {
    const std::pair<std::string, std::string> entry = absl::StrSplit(line, '\t');
    OpKind kind = OpKind::kMissing;
    if (entry.second == "mps" || entry.second == "delegate") kind = OpKind::kKernel;
    if (entry.second == "composite") kind = OpKind::kComposite;
    table[entry.first] = kind;
  }
  return table;
}

struct OpAudit::State {
  std::vector<std::pair<std::string, OpTable>> tables;
  std::set<std::string> violations;
  std::set<std::string> operations;
  int inside = 0;  // operations that are looked at as a whole, and what they call
  at::CallbackHandle callback = 0;

  void Enter(const at::RecordFunction& call) {
    if (inside > 0) {
      ++inside;
      return;
    }
    const c10::optional<c10::OperatorName> operation = call.operator_name();
    if (!operation || !operation->getNamespace() || *operation->getNamespace() != "aten") return;
    std::string name = operation->name.substr(std::string("aten::").size());
    const std::string base = name;
    if (!operation->overload_name.empty()) absl::StrAppend(&name, ".", operation->overload_name);
    bool has_kernel = true;
    for (const auto& [version, table] : tables) {
      const auto found = table.find(name);
      if (found == table.end() || found->second == OpKind::kMissing) {
        Report(name, absl::StrCat("has no kernel on MPS in ", version));
      } else if (found->second == OpKind::kComposite) {
        has_kernel = false;
      }
    }
    if (kKnownWrong.count(name) > 0) Report(name, "is known to go wrong on MPS");
    ForEachTensor(call.inputs(), [&](const at::Tensor& tensor) { CheckType(name, tensor); });
    if (!has_kernel) return;
    operations.insert(name);
    inside = 1;
    if (kProducts.count(base) == 0) return;
    ForEachTensor(call.inputs(), [&](const at::Tensor& tensor) { CheckOperand(name, tensor); });
  }

  void Leave(const at::RecordFunction& call) {
    if (inside > 1) {
      --inside;
      return;
    }
    inside = 0;
    ForEachTensor(call.outputs(), [&](const at::Tensor& tensor) {
      CheckType(absl::StrCat(call.name(), "'s result"), tensor);
    });
  }

  // A number that libtorch wrapped takes the other operand's type.
  void CheckType(const std::string& name, const at::Tensor& tensor) {
    if (tensor.unsafeGetTensorImpl()->is_wrapped_number()) return;
    if (tensor.scalar_type() == at::kDouble) Report(name, "is of float64");
    if (tensor.scalar_type() == at::kLong) Report(name, "is of int64");
  }

  void CheckOperand(const std::string& name, const at::Tensor& tensor) {
    if (!tensor.is_contiguous()) Report(name, "has an operand that is not contiguous");
    for (int64_t side : tensor.sizes()) {
      if (side > kLongestSide) Report(name, absl::StrCat("has an operand with a side of ", side));
    }
  }

  void Report(const std::string& name, const std::string& what) {
    violations.insert(absl::StrCat(name, ": ", what));
  }
};

namespace {

// Callbacks are plain functions; one audit at a time in a thread.
thread_local void* current = nullptr;

}  // namespace

OpAudit::OpAudit(const std::vector<std::string>& versions) : state_(std::make_unique<State>()) {
  for (const std::string& version : versions) state_->tables.emplace_back(version, ReadOpTable(version));
  current = state_.get();
  state_->callback = at::addThreadLocalCallback(
      at::RecordFunctionCallback(
          [](const at::RecordFunction& call) -> std::unique_ptr<at::ObserverContext> {
            static_cast<State*>(current)->Enter(call);
            return nullptr;
          },
          [](const at::RecordFunction& call, at::ObserverContext*) {
            static_cast<State*>(current)->Leave(call);
          })
          .needsInputs(true)
          .needsOutputs(true)
          .scopes({at::RecordScope::FUNCTION}));
}

OpAudit::~OpAudit() {
  at::removeCallback(state_->callback);
  current = nullptr;
}

const std::set<std::string>& OpAudit::violations() const { return state_->violations; }
const std::set<std::string>& OpAudit::operations() const { return state_->operations; }

}  // namespace mechinterp::engine
