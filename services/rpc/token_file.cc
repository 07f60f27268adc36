#include "services/rpc/token_file.h"

#include <openssl/evp.h>
#include <openssl/rand.h>
#include <sys/stat.h>

#include <array>
#include <cstdlib>
#include <limits>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "services/common/json_file.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

constexpr size_t kSecretBytes = 32;
constexpr size_t kMaxNameBytes = 64;
constexpr char kTokenPrefix[] = "abstract_";  // so that scanners of leaked secrets know it
constexpr std::array<const char*, kPriorityCount> kPriorityNames = {"interactive", "batch", "bulk"};

std::string Hex(const unsigned char* bytes, size_t size) {
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(bytes), size));
}

// Reads one entry's members, and keeps the first thing that is wrong.
class EntryReader {
 public:
  EntryReader(const nlohmann::json& entry, std::string where) : entry_(entry), where_(std::move(where)) {}

  std::string Text(const char* key, bool required = false) {
    const nlohmann::json* value = Find(key, required);
    if (value == nullptr) return "";
    if (!value->is_string()) return Fail(key, "must be a string"), "";
    return value->get<std::string>();
  }
  template <typename Number>
  std::optional<Number> Positive(const char* key) {
    const nlohmann::json* value = Find(key, false);
    if (value == nullptr) return std::nullopt;
    const double most = static_cast<double>(std::numeric_limits<Number>::max());
    if (!value->is_number() || !(value->get<double>() > 0) || value->get<double>() >= most ||
        (std::numeric_limits<Number>::is_integer && !value->is_number_integer())) {
      Fail(key, "must be a number above 0");
      return std::nullopt;
    }
    return value->get<Number>();
  }
  std::optional<absl::Time> Time(const char* key) {
    const std::string text = Text(key);
    if (text.empty()) return std::nullopt;
    absl::Time time;
    std::string error;
    if (!absl::ParseTime(absl::RFC3339_full, text, &time, &error)) {
      Fail(key, "must be a time such as 2027-01-31T12:00:00Z");
    }
    return time;
  }
  void Fail(const char* key, const std::string& problem) {
    if (status.ok()) status = absl::InvalidArgumentError(absl::StrCat(where_, ": ", key, " ", problem));
  }
  // A member that is none would be a limit that its writer believes in.
  void RefuseOthers(const std::set<std::string>& known) {
    for (const auto& [key, value] : entry_.items()) {
      if (known.count(key) == 0) Fail(Excerpt(key).c_str(), "is no member of a token");
    }
  }

  absl::Status status;

 private:
  const nlohmann::json* Find(const char* key, bool required) {
    const auto found = entry_.find(key);
    if (found != entry_.end()) return &*found;
    if (required) Fail(key, "is missing");
    return nullptr;
  }

  const nlohmann::json& entry_;
  const std::string where_;
};

bool IsName(const std::string& name) {
  if (name.empty() || name.size() > kMaxNameBytes) return false;
  for (const char c : name) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) && c != '.' && c != '-' && c != '_') return false;
  }
  return true;
}

absl::StatusOr<TokenRecord> ReadEntry(const nlohmann::json& entry, const std::string& where) {
  if (!entry.is_object()) return absl::InvalidArgumentError(absl::StrCat(where, " is no object"));
  EntryReader reader(entry, where);
  TokenRecord token;
  token.caller.has_token = true;
  token.caller.name = reader.Text("name", /*required=*/true);
  if (!IsName(token.caller.name)) reader.Fail("name", "must be 1 to 64 letters, digits, '.', '-' and '_'");
  token.sha256 = absl::AsciiStrToLower(reader.Text("sha256", /*required=*/true));
  if (token.sha256.size() != 64 || token.sha256.find_first_not_of("0123456789abcdef") != std::string::npos) {
    reader.Fail("sha256", "must be 64 hex digits");
  }
  token.created = reader.Time("created").value_or(absl::UnixEpoch());
  token.expires = reader.Time("expires");
  const std::string access = reader.Text("access");
  if (!access.empty() && access != "full" && access != "read-only") {
    reader.Fail("access", "must be full or read-only");
  }
  token.caller.read_only = access == "read-only";
  if (const std::string name = reader.Text("priority"); !name.empty()) {
    const std::optional<Priority> priority = PriorityOfName(name);
    if (!priority) reader.Fail("priority", "must be interactive, batch or bulk");
    token.caller.priority = priority.value_or(Priority::kBulk);
  }
  token.caller.weight = reader.Positive<double>("weight").value_or(1);
  token.caller.max_requests = reader.Positive<int>("max_requests");
  token.caller.max_stored_bytes = reader.Positive<int64_t>("max_stored_bytes");
  token.caller.tokens_per_minute = reader.Positive<int64_t>("tokens_per_minute");
  reader.RefuseOthers({"name", "sha256", "created", "expires", "access", "priority", "weight", "max_requests",
                       "max_stored_bytes", "tokens_per_minute"});
  if (!reader.status.ok()) return reader.status;
  return token;
}

nlohmann::ordered_json ToJson(const TokenRecord& token) {
  const auto text = [](absl::Time time) {
    return absl::FormatTime("%Y-%m-%dT%H:%M:%E*SZ", time, absl::UTCTimeZone());
  };
  nlohmann::ordered_json entry;
  const Caller& caller = token.caller;
  entry["name"] = caller.name;
  entry["sha256"] = token.sha256;
  entry["created"] = text(token.created);
  if (token.expires) entry["expires"] = text(*token.expires);
  entry["access"] = caller.read_only ? "read-only" : "full";
  entry["priority"] = PriorityName(caller.priority);
  if (caller.weight != 1) entry["weight"] = caller.weight;
  if (caller.max_requests) entry["max_requests"] = *caller.max_requests;
  if (caller.max_stored_bytes) entry["max_stored_bytes"] = *caller.max_stored_bytes;
  if (caller.tokens_per_minute) entry["tokens_per_minute"] = *caller.tokens_per_minute;
  return entry;
}

}  // namespace

absl::StatusOr<std::vector<TokenRecord>> ReadTokenFile(const std::string& path) {
  ABSTRACT_ASSIGN_OR_RETURN(const nlohmann::json file, ReadJsonFile(path, {uint64_t{4} << 20, 8}));
  if (!file.is_object() || !file.contains("tokens") || !file["tokens"].is_array()) {
    return absl::InvalidArgumentError(absl::StrCat(path, " has no list \"tokens\""));
  }
  std::vector<TokenRecord> tokens;
  std::set<std::string> names;
  for (const nlohmann::json& entry : file["tokens"]) {
    const std::string where = absl::StrCat(path, ": tokens[", tokens.size(), "]");
    ABSTRACT_ASSIGN_OR_RETURN(TokenRecord token, ReadEntry(entry, where));
    if (!names.insert(token.caller.name).second) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, ": another one is called ", token.caller.name, " too"));
    }
    tokens.push_back(std::move(token));
  }
  return tokens;
}

absl::Status WriteTokenFile(const std::string& path, const std::vector<TokenRecord>& tokens) {
  nlohmann::ordered_json file;
  file["tokens"] = nlohmann::ordered_json::array();
  for (const TokenRecord& token : tokens) file["tokens"].push_back(ToJson(token));
  const mode_t before = umask(0077);
  const absl::Status status = WriteJsonFile(path, file);
  umask(before);
  return status;
}

std::string NewToken() {
  unsigned char secret[kSecretBytes];
  if (RAND_bytes(secret, sizeof(secret)) != 1) std::abort();  // the system has no randomness to give
  return absl::StrCat(kTokenPrefix, Hex(secret, sizeof(secret)));
}

std::string HashToken(const std::string& token) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  EVP_Digest(token.data(), token.size(), digest, &size, EVP_sha256(), nullptr);
  return Hex(digest, size);
}

std::string PriorityName(Priority priority) { return kPriorityNames[static_cast<int>(priority)]; }

std::optional<Priority> PriorityOfName(const std::string& name) {
  for (int i = 0; i < kPriorityCount; ++i) {
    if (name == kPriorityNames[i]) return static_cast<Priority>(i);
  }
  return std::nullopt;
}

}  // namespace mechinterp
