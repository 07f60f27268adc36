#include "clients/lib/prompt_import.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "clients/lib/csv.h"
#include "nlohmann/json.hpp"
#include "services/common/json_file.h"
#include "services/common/status.h"
#include "services/common/status_macros.h"
#include "services/common/text_file.h"
#include "services/engine/checkpoint/content_hash.h"

namespace mechinterp {
namespace {

using Json = nlohmann::json;

constexpr char kByteOrderMark[] = "\xef\xbb\xbf";

constexpr char kKinds[] =
    "AdvBench, HarmBench, JailbreakBench, StrongREJECT, XSTest, OR-Bench, Alpaca, refusal_direction's "
    "splits, "
    "{\"prompts\": [...]}, or a prompt a line";

// A row, or an object: what it has under a name. Nothing where it has no such text.
using Fields = std::function<std::string(std::string_view name)>;

// How the entries of one published kind are read.
struct Kind {
  const char* format;
  std::vector<const char*> needs;  // names that tell it from others, in this order of precedence
  const char* text;
  const char* category;  // "": none
  const char* id;        // likewise
  void (*adjust)(const Fields& fields, ListedPrompt& prompt);
};

void PutContextFirst(const Fields& fields, ListedPrompt& prompt) {
  const std::string context = fields("ContextString");
  if (!context.empty()) prompt.text = absl::StrCat(context, "\n\n---\n\n", prompt.text);
}

void PutInputLast(const Fields& fields, ListedPrompt& prompt) {
  const std::string input = fields("input");
  if (!input.empty()) absl::StrAppend(&prompt.text, "\n\n", input);
}

void SetBorderline(const Fields&, ListedPrompt& prompt) { prompt.prompt_class = v1::PROMPT_CLASS_BORDERLINE; }

void ReadXsTestLabel(const Fields& fields, ListedPrompt& prompt) {
  const std::string label = fields("label");
  const bool is_unsafe = label.empty() ? absl::StartsWith(fields("type"), "contrast_") : label == "unsafe";
  prompt.prompt_class = is_unsafe ? v1::PROMPT_CLASS_HARMFUL : v1::PROMPT_CLASS_BORDERLINE;
}

void LeaveAsItIs(const Fields&, ListedPrompt&) {}

const std::vector<Kind>& Kinds() {
  static const auto& kinds = *new std::vector<Kind>{
      {"harmbench",
       {"Behavior", "BehaviorID"},
       "Behavior",
       "SemanticCategory",
       "BehaviorID",
       PutContextFirst},
      {"jailbreakbench", {"Goal", "Behavior", "Category"}, "Goal", "Category", "Index", LeaveAsItIs},
      {"strongreject", {"forbidden_prompt"}, "forbidden_prompt", "category", "", LeaveAsItIs},
      {"advbench", {"goal"}, "goal", "", "", LeaveAsItIs},
      {"xstest", {"prompt", "type"}, "prompt", "type", "", ReadXsTestLabel},
      {"or-bench", {"prompt", "category"}, "prompt", "category", "", SetBorderline},
      {"alpaca", {"instruction", "output"}, "instruction", "", "", PutInputLast},
      {"refusal-direction", {"instruction"}, "instruction", "category", "", LeaveAsItIs},
      {"list", {"id", "text"}, "text", "category", "id", SetBorderline},
  };
  return kinds;
}

// `has`: whether entries have a name.
template <typename Has>
const Kind* KindOf(const Has& has) {
  for (const Kind& kind : Kinds()) {
    if (std::all_of(kind.needs.begin(), kind.needs.end(), has)) return &kind;
  }
  return nullptr;
}

ListedPrompt ReadEntry(const Kind& kind, const Fields& fields, size_t index) {
  ListedPrompt prompt;
  prompt.text = fields(kind.text);
  prompt.category = *kind.category != '\0' ? fields(kind.category) : "";
  const std::string id = *kind.id != '\0' ? fields(kind.id) : "";
  const bool is_number = std::all_of(id.begin(), id.end(), absl::ascii_isdigit);
  prompt.id = id.empty() || is_number
                  ? absl::StrCat(kind.format, "-", id.empty() ? absl::StrCat(index + 1) : id)
                  : id;
  if (!prompt.text.empty()) kind.adjust(fields, prompt);
  return prompt;
}

absl::StatusOr<PromptList> ReadCsv(const std::string& text, const std::string& path) {
  const absl::StatusOr<CsvTable> parsed = CsvTable::Parse(text);
  if (!parsed.ok()) return WithContext(parsed.status(), path);
  const CsvTable& table = *parsed;
  const Kind* const kind = KindOf([&](const char* name) { return table.Find(name).has_value(); });
  if (kind == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": its columns (",
                                                   absl::StrJoin(table.columns(), ", "),
                                                   ") are those of no known set: ", kKinds));
  }
  PromptList list;
  list.source.set_format(kind->format);
  for (size_t i = 0; i < table.rows().size(); ++i) {
    const Fields fields = [&](std::string_view name) -> std::string {
      const std::optional<size_t> column = table.Find(name);
      return column ? table.rows()[i][*column] : "";
    };
    list.prompts.push_back(ReadEntry(*kind, fields, i));
  }
  return list;
}

absl::StatusOr<PromptList> ReadEntries(const Json& document, const std::string& path) {
  const bool is_ours = document.is_object() && document.contains("prompts");
  const Json& entries = is_ours ? document["prompts"] : document;
  if (!entries.is_array() || entries.empty() || !entries[0].is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": is no list of prompts: ", kKinds));
  }
  const Kind* const kind = KindOf([&](const char* name) { return entries[0].contains(name); });
  if (kind == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": its entries are those of no known set: ", kKinds));
  }
  PromptList list;
  list.source.set_format(kind->format);
  for (size_t i = 0; i < entries.size(); ++i) {
    const Fields fields = [&](std::string_view name) -> std::string {
      const auto found = entries[i].is_object() ? entries[i].find(std::string(name)) : entries[i].end();
      if (found == entries[i].end()) return "";
      if (found->is_number_integer()) return absl::StrCat(found->get<int64_t>());
      return found->is_string() ? found->get<std::string>() : "";
    };
    list.prompts.push_back(ReadEntry(*kind, fields, i));
  }
  return list;
}

absl::StatusOr<PromptList> ReadJson(const std::string& text, const std::string& path) {
  ABSTRACT_ASSIGN_OR_RETURN(const Json document, ParseJson(text, path));
  return ReadEntries(document, path);
}

// An entry a line.
absl::StatusOr<PromptList> ReadJsonLines(const std::string& text, const std::string& path) {
  Json document = Json::array();
  int number = 0;
  for (const absl::string_view line : absl::StrSplit(absl::StripPrefix(text, kByteOrderMark), '\n')) {
    ++number;
    if (absl::StripAsciiWhitespace(line).empty()) continue;
    ABSTRACT_ASSIGN_OR_RETURN(Json entry, ParseJson(line, absl::StrCat(path, ":", number)));
    document.push_back(std::move(entry));
  }
  return ReadEntries(document, path);
}

PromptList ReadLines(const std::string& text) {
  PromptList list;
  list.source.set_format("lines");
  for (const absl::string_view line : absl::StrSplit(absl::StripPrefix(text, kByteOrderMark), '\n')) {
    const absl::string_view stripped = absl::StripAsciiWhitespace(line);
    if (stripped.empty()) continue;
    list.prompts.push_back({absl::StrCat("lines-", list.prompts.size() + 1), "", std::string(stripped),
                            v1::PROMPT_CLASS_UNSPECIFIED});
  }
  return list;
}

absl::StatusOr<PromptList> Read(const std::string& path, const std::string& text) {
  const std::string ending = absl::AsciiStrToLower(std::filesystem::path(path).extension().string());
  if (ending == ".json") return ReadJson(text, path);
  if (ending == ".jsonl") return ReadJsonLines(text, path);
  if (ending == ".csv") return ReadCsv(text, path);
  if (ending.empty() || ending == ".txt") return ReadLines(text);
  return absl::InvalidArgumentError(absl::StrCat(
      path, ": must end in .csv, .json, .jsonl or .txt (a prompt a line), which tells how to read it"));
}

absl::Status Check(const PromptList& list) {
  Violations violations;
  std::set<std::string> ids;
  for (size_t i = 0; i < list.prompts.size(); ++i) {
    const ListedPrompt& prompt = list.prompts[i];
    const FieldViolations at = violations.At("prompts").At(absl::StrCat(i + 1));
    if (absl::StripAsciiWhitespace(prompt.text).empty()) at.Add("has no text");
    const std::pair<const char*, const std::string*> texts[] = {
        {"the text", &prompt.text}, {"the id", &prompt.id}, {"the category", &prompt.category}};
    for (const auto& [what, text] : texts) {
      if (const absl::Status utf8 = CheckUtf8(what, *text); !utf8.ok()) at.Add(utf8.message());
      if (text->find('\0') != std::string::npos)
        at.Add(absl::StrCat(what, " holds a NUL: the file is no text"));
    }
    if (!ids.insert(prompt.id).second) at.Add(absl::StrCat("id \"", prompt.id, "\" occurs twice"));
  }
  return ToStatus(violations);
}

std::string HashOf(const std::string& text) {
  engine::Sha256 hash;
  hash.Add(text);
  return hash.Hex();
}

template <typename Prompts>
void Describe(const std::string& path, const std::string& text, const Prompts& prompts,
              v1::PromptSource& source) {
  source.set_path(path);
  source.set_sha256(HashOf(text));
  source.set_prompt_count(static_cast<uint32_t>(prompts.size()));
  for (const auto& prompt : prompts) {
    const auto& known = source.categories();
    if (prompt.category.empty() || std::find(known.begin(), known.end(), prompt.category) != known.end())
      continue;
    source.add_categories(prompt.category);
  }
}

}  // namespace

absl::StatusOr<PromptList> LoadPromptList(const std::string& path, v1::PromptClass prompt_class, int limit) {
  ABSTRACT_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path));
  ABSTRACT_ASSIGN_OR_RETURN(PromptList list, Read(path, text));
  if (const absl::Status status = Check(list); !status.ok()) return WithContext(status, path);
  std::erase_if(list.prompts, [&](const ListedPrompt& prompt) {
    return prompt.prompt_class != v1::PROMPT_CLASS_UNSPECIFIED && prompt.prompt_class != prompt_class;
  });
  if (list.prompts.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": no ", std::string(PromptClassName(prompt_class)), " prompt in it",
                     prompt_class == v1::PROMPT_CLASS_HARMLESS && list.source.format() != "lines"
                         ? "; those that look harmful count as borderline (baseline --borderline)"
                         : ""));
  }
  if (limit > 0 && list.prompts.size() > static_cast<size_t>(limit)) {
    list.prompts.resize(static_cast<size_t>(limit));
  }
  for (ListedPrompt& prompt : list.prompts) prompt.prompt_class = prompt_class;
  Describe(path, text, list.prompts, list.source);
  return list;
}

std::vector<PromptPair> PairUp(const PromptList& harmful, const PromptList& harmless) {
  std::vector<PromptPair> pairs;
  for (size_t i = 0; i < std::min(harmful.prompts.size(), harmless.prompts.size()); ++i) {
    const ListedPrompt& first = harmful.prompts[i];
    const ListedPrompt& second = harmless.prompts[i];
    pairs.push_back({absl::StrCat(first.id, "/", second.id),
                     first.category.empty() ? harmful.source.format() : first.category, first.text,
                     second.text});
  }
  return pairs;
}

absl::StatusOr<v1::PromptSource> DescribePairs(const std::string& path,
                                               const std::vector<PromptPair>& pairs) {
  ABSTRACT_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path));
  v1::PromptSource source;
  source.set_format("pairs");
  Describe(path, text, pairs, source);
  return source;
}

}  // namespace mechinterp
