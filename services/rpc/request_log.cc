#include "services/rpc/request_log.h"

#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "services/common/status.h"
#include "spdlog/spdlog.h"

namespace mechinterp {
namespace {

constexpr size_t kMaxErrorBytes = 300;
constexpr size_t kMaxPromptBytes = 2000;

bool IsServerFault(absl::StatusCode code) {
  return code == absl::StatusCode::kInternal || code == absl::StatusCode::kUnknown ||
         code == absl::StatusCode::kDataLoss;
}

struct Field {
  std::string key;
  std::string value;
  bool is_number = false;
};

std::string Milliseconds(absl::Duration duration) {
  return absl::StrFormat("%.3f", absl::ToDoubleMilliseconds(duration));
}

std::vector<Field> FieldsOf(const RequestRecord& record, const RequestLogOptions& options) {
  std::vector<Field> fields = {
      {"request", absl::StrCat(record.id), true},
      {"method", record.method},
      {"client", record.client},
      {"peer", record.peer},
      {"code", CodeName(static_cast<grpc::StatusCode>(record.status.code()))},
      {"ms", Milliseconds(record.took), true},
      {"queued_ms", Milliseconds(record.queued), true},
  };
  const auto count = [&](const char* name, int64_t value) {
    if (value > 0) fields.push_back({name, absl::StrCat(value), true});
  };
  if (record.facts.engine_wait > absl::ZeroDuration()) {
    fields.push_back({"engine_wait_ms", Milliseconds(record.facts.engine_wait), true});
  }
  count("passes", record.facts.passes);
  count("prompt_tokens", record.facts.prompt_tokens);
  count("new_tokens", record.facts.new_tokens);
  count("sent", record.messages_sent);
  if (!record.trace_id.empty()) fields.push_back({"trace", record.trace_id});
  if (!record.status.ok()) {
    if (std::string reason = ErrorReason(record.status); !reason.empty()) {
      fields.push_back({"reason", std::move(reason)});
    }
    fields.push_back({"error", std::string(record.status.message().substr(0, kMaxErrorBytes))});
  }
  if (options.with_prompts && !record.facts.prompt.empty()) {
    fields.push_back({"prompt", record.facts.prompt.substr(0, kMaxPromptBytes)});
  }
  return fields;
}

// Quoted, control characters escaped: JSON's rules, which do for key=value lines too.
std::string Quoted(const std::string& text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      quoted += {'\\', c};
    } else if (c == '\n') {
      quoted += "\\n";
    } else if (absl::ascii_iscntrl(static_cast<unsigned char>(c))) {
      absl::StrAppendFormat(&quoted, "\\u%04x", static_cast<unsigned char>(c));
    } else {
      quoted += c;
    }
  }
  return quoted + '"';
}

bool IsPlain(const std::string& text) {
  for (const char c : text) {
    if (c <= ' ' || c == '"' || c == '=' || c == '\\' || static_cast<unsigned char>(c) >= 127) return false;
  }
  return !text.empty();
}

}  // namespace

std::string FormatRecord(const RequestRecord& record, const RequestLogOptions& options) {
  const std::vector<Field> fields = FieldsOf(record, options);
  if (options.as_json) {
    return absl::StrCat("{",
                        absl::StrJoin(fields, ",",
                                      [](std::string* out, const Field& field) {
                                        absl::StrAppend(out, "\"", field.key, "\":",
                                                        field.is_number ? field.value : Quoted(field.value));
                                      }),
                        "}");
  }
  return absl::StrJoin(fields, " ", [](std::string* out, const Field& field) {
    absl::StrAppend(out, field.key, "=", IsPlain(field.value) ? field.value : Quoted(field.value));
  });
}

void LogRequest(const RequestRecord& record, const RequestLogOptions& options) {
  const auto level = IsServerFault(record.status.code()) ? spdlog::level::warn : spdlog::level::info;
  if (!spdlog::should_log(level)) return;
  spdlog::log(level, "{}", FormatRecord(record, options));
}

}  // namespace mechinterp
