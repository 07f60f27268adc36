#include "services/engine/tokenizer/tokenizer_spec.h"

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "services/engine/tokenizer/absl_view.h"

namespace mechinterp::engine {
namespace {

using nlohmann::json;

// Far above any vocabulary; keeps a damaged id from reserving gigabytes.
constexpr int64_t kLargestId = (1 << 24) - 1;

// GPT-2's pattern, which a ByteLevel pre-tokenizer with `use_regex` stands for.
constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

absl::Status Malformed(std::string_view part, std::string_view expected) {
  return absl::InvalidArgumentError(absl::StrCat(AbslView(part), ": expected ", AbslView(expected)));
}

absl::Status Unsupported(std::string_view part, const json& found, std::string_view supported) {
  return absl::InvalidArgumentError(
      absl::StrCat(AbslView(part), ": ", found.dump(), " is not supported (only ", AbslView(supported), ")"));
}

// Null when `object` lacks the key or is no object at all: absent and null mean
// the same thing throughout tokenizer.json.
const json& Member(const json& object, const char* key) {
  static const json kNull;
  if (!object.is_object()) return kNull;
  const auto it = object.find(key);
  return it == object.end() ? kNull : *it;
}

absl::StatusOr<bool> ReadBool(const json& object, std::string_view path, const char* key, bool if_absent) {
  const json& value = Member(object, key);
  if (value.is_null()) return if_absent;
  if (!value.is_boolean()) return Malformed(absl::StrCat(AbslView(path), ".", key), "true or false");
  return value.get<bool>();
}

// InvalidArgument unless `object[key]` is the one value that is supported.
absl::Status RequireBool(const json& object, std::string_view path, const char* key, bool if_absent,
                         bool required) {
  const absl::StatusOr<bool> value = ReadBool(object, path, key, if_absent);
  if (!value.ok()) return value.status();
  if (*value == required) return absl::OkStatus();
  return Unsupported(absl::StrCat(AbslView(path), ".", key), *value, required ? "true" : "false");
}

std::optional<TokenId> ReadId(const json& value) {
  if (!value.is_number_integer() || value < 0 || value > kLargestId) return std::nullopt;
  return value.get<TokenId>();
}

absl::Status MalformedId(std::string_view part) {
  return Malformed(part, absl::StrCat("an id from 0 to ", kLargestId));
}

absl::Status ReadVocab(const json& model, TokenizerSpec* spec) {
  const json& vocab = Member(model, "vocab");
  if (!vocab.is_object()) return Malformed("model.vocab", "an object of tokens and ids");
  spec->vocab.reserve(vocab.size());
  for (const auto& [text, value] : vocab.items()) {
    const std::optional<TokenId> id = ReadId(value);
    if (!id.has_value()) return MalformedId(absl::StrCat("model.vocab[\"", text, "\"]"));
    spec->vocab.emplace_back(text, *id);
  }
  return absl::OkStatus();
}

// Either "left right" or, in newer files, ["left", "right"].
absl::Status ReadMerges(const json& model, TokenizerSpec* spec) {
  const json& merges = Member(model, "merges");
  if (!merges.is_array()) return Malformed("model.merges", "an array");
  spec->merges.reserve(merges.size());
  for (const json& merge : merges) {
    if (merge.is_string()) {
      const auto& text = merge.get_ref<const std::string&>();
      const size_t space = text.find(' ');
      if (space != std::string::npos && space > 0 && space + 1 < text.size() && space == text.rfind(' ')) {
        spec->merges.emplace_back(text.substr(0, space), text.substr(space + 1));
        continue;
      }
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      spec->merges.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
      continue;
    }
    return Malformed(absl::StrCat("model.merges[", spec->merges.size(), "]"),
                     "two tokens, as \"a b\" or [\"a\", \"b\"]");
  }
  return absl::OkStatus();
}

absl::Status ReadModel(const json& root, TokenizerSpec* spec) {
  const json& model = Member(root, "model");
  if (!model.is_object()) return Malformed("model", "an object");
  // Files from before `type` was written are all BPE when they have merges.
  const json& type = Member(model, "type");
  if (!type.is_null() && type != "BPE") return Unsupported("model.type", type, "\"BPE\"");
  if (const json& dropout = Member(model, "dropout"); !dropout.is_null() && dropout != 0.0) {
    return Unsupported("model.dropout", dropout, "null");
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const json& affix = Member(model, key);
    if (!affix.is_null() && affix != "") return Unsupported(absl::StrCat("model.", key), affix, "null");
  }
  if (absl::Status status = RequireBool(model, "model", "byte_fallback", false, false); !status.ok())
    return status;
  const absl::StatusOr<bool> ignore_merges = ReadBool(model, "model", "ignore_merges", false);
  if (!ignore_merges.ok()) return ignore_merges.status();
  spec->ignore_merges = *ignore_merges;
  if (absl::Status status = ReadVocab(model, spec); !status.ok()) return status;
  return ReadMerges(model, spec);
}

absl::Status ReadAddedToken(const json& token, const std::string& path, TokenizerSpec* spec) {
  if (!token.is_object()) return Malformed(path, "an object");
  const json& content = Member(token, "content");
  if (!content.is_string() || content.get_ref<const std::string&>().empty()) {
    return Malformed(path + ".content", "a text that is not empty");
  }
  // These let a token swallow or refuse its surroundings: decoding would no
  // longer give back the text that was encoded.
  for (const char* key : {"single_word", "lstrip", "rstrip"}) {
    if (absl::Status status = RequireBool(token, path, key, false, false); !status.ok()) return status;
  }
  const std::optional<TokenId> id = ReadId(Member(token, "id"));
  if (!id.has_value()) return MalformedId(path + ".id");
  const absl::StatusOr<bool> special = ReadBool(token, path, "special", false);
  if (!special.ok()) return special.status();
  const absl::StatusOr<bool> normalized = ReadBool(token, path, "normalized", !*special);
  if (!normalized.ok()) return normalized.status();
  spec->added_tokens.push_back({content.get<std::string>(), *id, *special, *normalized});
  return absl::OkStatus();
}

absl::Status ReadAddedTokens(const json& root, TokenizerSpec* spec) {
  const json& tokens = Member(root, "added_tokens");
  if (tokens.is_null()) return absl::OkStatus();
  if (!tokens.is_array()) return Malformed("added_tokens", "an array");
  for (size_t i = 0; i < tokens.size(); ++i) {
    absl::Status status = ReadAddedToken(tokens[i], absl::StrCat("added_tokens[", i, "]"), spec);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status ReadSplit(const json& split, const std::string& path, TokenizerSpec* spec) {
  const json& regex = Member(Member(split, "pattern"), "Regex");
  if (!regex.is_string()) return Malformed(path + ".pattern", "{\"Regex\": a pattern}");
  if (const json& behavior = Member(split, "behavior"); behavior != "Isolated") {
    return Unsupported(path + ".behavior", behavior, "\"Isolated\"");
  }
  if (absl::Status status = RequireBool(split, path, "invert", false, false); !status.ok()) return status;
  spec->split_patterns.push_back(regex.get<std::string>());
  return absl::OkStatus();
}

// Digits apart from the text around them, and with `individual_digits` from each
// other (SmolLM2). A split by a pattern like any other.
absl::Status ReadDigits(const json& digits, const std::string& path, TokenizerSpec* spec) {
  const absl::StatusOr<bool> individual = ReadBool(digits, path, "individual_digits", false);
  if (!individual.ok()) return individual.status();
  spec->split_patterns.emplace_back(*individual ? R"(\p{N})" : R"(\p{N}+)");
  return absl::OkStatus();
}

absl::Status ReadByteLevel(const json& byte_level, const std::string& path, TokenizerSpec* spec) {
  // Both are true in Hugging Face unless told otherwise.
  absl::Status status = RequireBool(byte_level, path, "add_prefix_space", true, false);
  if (!status.ok()) return status;
  const absl::StatusOr<bool> use_regex = ReadBool(byte_level, path, "use_regex", true);
  if (!use_regex.ok()) return use_regex.status();
  if (*use_regex) spec->split_patterns.emplace_back(kGpt2Pattern);
  return absl::OkStatus();
}

absl::Status ReadPreTokenizer(const json& root, TokenizerSpec* spec) {
  const json& pre_tokenizer = Member(root, "pre_tokenizer");
  if (!pre_tokenizer.is_object()) return Malformed("pre_tokenizer", "an object");
  const json& type = Member(pre_tokenizer, "type");
  if (type == "ByteLevel") return ReadByteLevel(pre_tokenizer, "pre_tokenizer", spec);
  if (type != "Sequence") return Unsupported("pre_tokenizer.type", type, "\"Sequence\" and \"ByteLevel\"");

  const json& steps = Member(pre_tokenizer, "pretokenizers");
  if (!steps.is_array()) return Malformed("pre_tokenizer.pretokenizers", "an array");
  for (size_t i = 0; i < steps.size(); ++i) {
    const std::string path = absl::StrCat("pre_tokenizer.pretokenizers[", i, "]");
    const bool last = i + 1 == steps.size();
    const json& step_type = Member(steps[i], "type");
    absl::Status status;
    if (step_type == "Split" && !last) {
      status = ReadSplit(steps[i], path, spec);
    } else if (step_type == "Digits" && !last) {
      status = ReadDigits(steps[i], path, spec);
    } else if (step_type == "ByteLevel" && last) {
      status = ReadByteLevel(steps[i], path, spec);
    } else {
      status = Unsupported(path + ".type", step_type, "\"Split\", \"Digits\", and \"ByteLevel\" as the last");
    }
    if (!status.ok()) return status;
  }
  if (steps.empty()) return Malformed("pre_tokenizer.pretokenizers", "a \"ByteLevel\" as the last");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerSpec> ParseTokenizerJson(std::string_view text) {
  json root;
  try {
    root = json::parse(text);
  } catch (const json::exception& error) {
    // Escaped: the message quotes the offending bytes, which may not be UTF-8.
    return absl::InvalidArgumentError(absl::StrCat("not JSON: ", absl::CHexEscape(error.what())));
  }
  if (!root.is_object()) return absl::InvalidArgumentError("expected a JSON object");

  if (const json& normalizer = Member(root, "normalizer"); !normalizer.is_null()) {
    const json& type = Member(normalizer, "type");
    return Unsupported("normalizer", type.is_string() ? type : normalizer, "null");
  }
  const json& decoder = Member(root, "decoder");
  if (!decoder.is_null() && Member(decoder, "type") != "ByteLevel") {
    return Unsupported("decoder.type", Member(decoder, "type"), "\"ByteLevel\"");
  }
  TokenizerSpec spec;
  if (absl::Status status = ReadModel(root, &spec); !status.ok()) return status;
  if (absl::Status status = ReadAddedTokens(root, &spec); !status.ok()) return status;
  if (absl::Status status = ReadPreTokenizer(root, &spec); !status.ok()) return status;
  return spec;
}

}  // namespace mechinterp::engine
