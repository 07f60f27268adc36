#include "services/engine/tokenizer/stage_parsing.h"

#include <cstddef>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/engine/tokenizer/json_fields.h"

namespace mechinterp::engine {
namespace {

using nlohmann::json;

// GPT-2's pattern, which a ByteLevel pre-tokenizer with `use_regex` stands for.
constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

struct Stage {
  const json* value = nullptr;
  std::string path;
};

// The stages that a `Sequence`, or one within it, comes to: `list` is the name of
// its field. A stage that is null is none.
absl::Status Flatten(const json& stage, const std::string& path, const char* list,
                     std::vector<Stage>* stages) {
  if (stage.is_null()) return absl::OkStatus();
  if (!stage.is_object()) return Malformed(path, "an object");
  if (TypeOf(stage) != "Sequence") {
    stages->push_back({&stage, path});
    return absl::OkStatus();
  }
  const json& steps = Member(stage, list);
  const std::string steps_path = absl::StrCat(path, ".", list);
  if (!steps.is_array()) return Malformed(steps_path, "an array");
  for (size_t i = 0; i < steps.size(); ++i) {
    ABSTRACT_RETURN_IF_ERROR(Flatten(steps[i], absl::StrCat(steps_path, "[", i, "]"), list, stages));
  }
  return absl::OkStatus();
}

absl::StatusOr<Pattern> ReadPattern(const json& stage, const std::string& path) {
  const json& pattern = Member(stage, "pattern");
  for (const char* kind : {"String", "Regex"}) {
    const json& text = Member(pattern, kind);
    if (text.is_string()) return Pattern{text.get<std::string>(), kind == std::string_view("Regex")};
  }
  return Malformed(path + ".pattern", "{\"String\": a text} or {\"Regex\": a pattern}");
}

absl::StatusOr<Replace> ReadReplace(const json& stage, const std::string& path) {
  Replace replace;
  ABSTRACT_ASSIGN_OR_RETURN(replace.pattern, ReadPattern(stage, path));
  ABSTRACT_ASSIGN_OR_RETURN(replace.content, ReadString(stage, path, "content"));
  return replace;
}

absl::StatusOr<NormalizerStep> ReadNormalizerStep(const json& stage, const std::string& path) {
  const std::string type = TypeOf(stage);
  if (type == "Replace") return ReadReplace(stage, path);
  if (type == "NFC") return UnicodeForm::kNfc;
  if (type == "NFD") return UnicodeForm::kNfd;
  if (type == "NFKC") return UnicodeForm::kNfkc;
  if (type == "NFKD") return UnicodeForm::kNfkd;
  if (type == "Prepend") {
    ABSTRACT_ASSIGN_OR_RETURN(std::string text, ReadString(stage, path, "prepend"));
    return Prepend{std::move(text)};
  }
  if (type == "Strip") {
    StripWhiteSpace strip;
    ABSTRACT_ASSIGN_OR_RETURN(strip.left, ReadBool(stage, path, "strip_left", true));
    ABSTRACT_ASSIGN_OR_RETURN(strip.right, ReadBool(stage, path, "strip_right", true));
    return strip;
  }
  return Unsupported(
      path + ".type", Member(stage, "type"),
      "\"Sequence\", \"Prepend\", \"Replace\", \"Strip\", \"NFC\", \"NFD\", \"NFKC\", \"NFKD\"");
}

absl::StatusOr<Split> ReadSplit(const json& stage, const std::string& path) {
  Split split;
  ABSTRACT_ASSIGN_OR_RETURN(split.pattern, ReadPattern(stage, path));
  ABSTRACT_ASSIGN_OR_RETURN(split.invert, ReadBool(stage, path, "invert", false));
  const json& behavior = Member(stage, "behavior");
  for (const auto& [name, value] : {std::pair<const char*, SplitBehavior>{"Removed", SplitBehavior::kRemoved},
                                    {"Isolated", SplitBehavior::kIsolated},
                                    {"Contiguous", SplitBehavior::kContiguous},
                                    {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
                                    {"MergedWithNext", SplitBehavior::kMergedWithNext}}) {
    if (behavior != name) continue;
    split.behavior = value;
    return split;
  }
  return Malformed(path + ".behavior",
                   "\"Removed\", \"Isolated\", \"Contiguous\", \"MergedWithPrevious\" or \"MergedWithNext\"");
}

absl::StatusOr<PrependScheme> ReadPrependScheme(const json& stage, const std::string& path) {
  // Older files say the same by a flag.
  ABSTRACT_ASSIGN_OR_RETURN(const bool prefix, ReadBool(stage, path, "add_prefix_space", true));
  const json& scheme = Member(stage, "prepend_scheme");
  if (!prefix && (scheme.is_null() || scheme == "never")) return PrependScheme::kNever;
  if (!prefix) return Malformed(path + ".add_prefix_space", "true, or \"never\" for prepend_scheme");
  if (scheme.is_null() || scheme == "always") return PrependScheme::kAlways;
  if (scheme == "first") return PrependScheme::kFirst;
  if (scheme == "never") return PrependScheme::kNever;
  return Malformed(path + ".prepend_scheme", "\"first\", \"always\" or \"never\"");
}

absl::StatusOr<Metaspace> ReadMetaspace(const json& stage, const std::string& path) {
  Metaspace metaspace;
  ABSTRACT_ASSIGN_OR_RETURN(metaspace.replacement, ReadCharacter(stage, path, "replacement"));
  ABSTRACT_ASSIGN_OR_RETURN(metaspace.scheme, ReadPrependScheme(stage, path));
  ABSTRACT_ASSIGN_OR_RETURN(metaspace.split, ReadBool(stage, path, "split", true));
  return metaspace;
}

// Digits apart from the text around them, and with `individual_digits` from each
// other (SmolLM2). A split by a pattern like any other.
absl::StatusOr<Split> ReadDigits(const json& stage, const std::string& path) {
  ABSTRACT_ASSIGN_OR_RETURN(const bool individual, ReadBool(stage, path, "individual_digits", false));
  return Split{{individual ? R"(\p{N})" : R"(\p{N}+)", true}};
}

absl::Status ReadByteLevel(const json& stage, const std::string& path, TokenizerSpec* spec) {
  // Both are true in Hugging Face unless told otherwise.
  ABSTRACT_ASSIGN_OR_RETURN(const bool prefix, ReadBool(stage, path, "add_prefix_space", true));
  ABSTRACT_ASSIGN_OR_RETURN(const bool use_regex, ReadBool(stage, path, "use_regex", true));
  if (prefix) spec->pre_tokenizer.emplace_back(PrefixSpace{});
  if (use_regex) spec->pre_tokenizer.emplace_back(Split{{std::string(kGpt2Pattern), true}});
  spec->model.byte_level = true;
  return absl::OkStatus();
}

absl::StatusOr<PreTokenizerStep> ReadPreTokenizerStep(const json& stage, const std::string& path) {
  const std::string type = TypeOf(stage);
  if (type == "Split") return ReadSplit(stage, path);
  if (type == "Digits") return ReadDigits(stage, path);
  if (type == "Metaspace") return ReadMetaspace(stage, path);
  return Unsupported(path + ".type", Member(stage, "type"),
                     "\"Sequence\", \"Split\", \"Digits\", \"Metaspace\", and \"ByteLevel\" as the last");
}

absl::StatusOr<StripDecoder> ReadStripDecoder(const json& stage, const std::string& path) {
  StripDecoder strip;
  ABSTRACT_ASSIGN_OR_RETURN(strip.content, ReadCharacter(stage, path, "content"));
  for (const auto& [key, field] : {std::pair("start", &strip.start), {"stop", &strip.stop}}) {
    const std::optional<TokenId> count = ReadId(Member(stage, key));
    if (!count.has_value()) return Malformed(absl::StrCat(path, ".", key), "a number of characters");
    *field = *count;
  }
  return strip;
}

absl::StatusOr<MetaspaceDecoder> ReadMetaspaceDecoder(const json& stage, const std::string& path) {
  ABSTRACT_ASSIGN_OR_RETURN(const Metaspace metaspace, ReadMetaspace(stage, path));
  return MetaspaceDecoder{metaspace.replacement, metaspace.scheme != PrependScheme::kNever};
}

absl::StatusOr<DecoderStep> ReadDecoderStep(const json& stage, const std::string& path) {
  const std::string type = TypeOf(stage);
  if (type == "ByteLevel") return ByteLevelDecoder{};
  if (type == "ByteFallback") return ByteFallbackDecoder{};
  if (type == "Fuse") return FuseDecoder{};
  if (type == "Replace") return ReadReplace(stage, path);
  if (type == "Strip") return ReadStripDecoder(stage, path);
  if (type == "Metaspace") return ReadMetaspaceDecoder(stage, path);
  return Unsupported(
      path + ".type", Member(stage, "type"),
      "\"Sequence\", \"ByteLevel\", \"ByteFallback\", \"Fuse\", \"Replace\", \"Strip\", \"Metaspace\"");
}

// The tokens of a template's special token: {"ids": [1]}.
absl::Status ReadTemplateToken(const json& stage, const std::string& path, const json& name,
                               std::vector<TokenId>* ids) {
  const std::string key = name.is_string() ? name.get<std::string>() : std::string();
  const json& given = Member(Member(Member(stage, "special_tokens"), key.c_str()), "ids");
  const std::string at = absl::StrCat(path, ".special_tokens[", Quoted(key), "].ids");
  if (!given.is_array()) return Malformed(at, "an array of ids");
  for (const json& value : given) {
    const std::optional<TokenId> id = ReadId(value);
    if (!id.has_value()) return MalformedId(at);
    ids->push_back(*id);
  }
  return absl::OkStatus();
}

// What a template of one text puts before it and after it.
absl::Status ReadTemplate(const json& stage, const std::string& path, std::vector<TokenId>* before,
                          std::vector<TokenId>* after) {
  const json& single = Member(stage, "single");
  int texts = 0;
  for (const json& piece : single) {
    if (const json& token = Member(piece, "SpecialToken"); token.is_object()) {
      ABSTRACT_RETURN_IF_ERROR(
          ReadTemplateToken(stage, path, Member(token, "id"), texts == 0 ? before : after));
    } else {
      texts += Member(Member(piece, "Sequence"), "id") == "A" ? 1 : 2;
    }
  }
  if (single.is_array() && texts == 1) return absl::OkStatus();
  return Malformed(path + ".single", "an array of special tokens and the sequence \"A\", once");
}

// ["</s>", 2].
absl::Status ReadNamedToken(const json& stage, const std::string& path, const char* key,
                            std::vector<TokenId>* ids) {
  const json& pair = Member(stage, key);
  const std::optional<TokenId> id = pair.is_array() && pair.size() == 2 ? ReadId(pair[1]) : std::nullopt;
  if (!id.has_value()) return Malformed(absl::StrCat(path, ".", key), "a token and its id");
  ids->push_back(*id);
  return absl::OkStatus();
}

absl::Status ReadPostProcessorStep(const json& stage, const std::string& path, TokenizerSpec* spec) {
  const std::string type = TypeOf(stage);
  if (type == "TemplateProcessing") {
    return ReadTemplate(stage, path, &spec->tokens_before, &spec->tokens_after);
  }
  if (type == "BertProcessing" || type == "RobertaProcessing") {
    ABSTRACT_RETURN_IF_ERROR(ReadNamedToken(stage, path, "cls", &spec->tokens_before));
    return ReadNamedToken(stage, path, "sep", &spec->tokens_after);
  }
  return Unsupported(path + ".type", Member(stage, "type"),
                     "\"Sequence\", \"ByteLevel\", \"TemplateProcessing\", \"BertProcessing\", "
                     "\"RobertaProcessing\"");
}

}  // namespace

absl::Status ReadNormalizer(const json& root, TokenizerSpec* spec) {
  std::vector<Stage> stages;
  ABSTRACT_RETURN_IF_ERROR(Flatten(Member(root, "normalizer"), "normalizer", "normalizers", &stages));
  for (const Stage& stage : stages) {
    ABSTRACT_ASSIGN_OR_RETURN(NormalizerStep step, ReadNormalizerStep(*stage.value, stage.path));
    spec->normalizer.push_back(std::move(step));
  }
  return absl::OkStatus();
}

absl::Status ReadPreTokenizer(const json& root, TokenizerSpec* spec) {
  std::vector<Stage> stages;
  ABSTRACT_RETURN_IF_ERROR(Flatten(Member(root, "pre_tokenizer"), "pre_tokenizer", "pretokenizers", &stages));
  for (const Stage& stage : stages) {
    // What comes after it would have to read the byte-level alphabet.
    if (TypeOf(*stage.value) == "ByteLevel" && &stage == &stages.back()) {
      return ReadByteLevel(*stage.value, stage.path, spec);
    }
    ABSTRACT_ASSIGN_OR_RETURN(PreTokenizerStep step, ReadPreTokenizerStep(*stage.value, stage.path));
    spec->pre_tokenizer.push_back(std::move(step));
  }
  return absl::OkStatus();
}

absl::Status ReadDecoder(const json& root, TokenizerSpec* spec) {
  std::vector<Stage> stages;
  ABSTRACT_RETURN_IF_ERROR(Flatten(Member(root, "decoder"), "decoder", "decoders", &stages));
  bool fused = false;
  for (const Stage& stage : stages) {
    ABSTRACT_ASSIGN_OR_RETURN(DecoderStep step, ReadDecoderStep(*stage.value, stage.path));
    const auto* strip = std::get_if<StripDecoder>(&step);
    // The text that is streamed is made piece by piece.
    if (fused && !std::holds_alternative<FuseDecoder>(step) && (strip == nullptr || strip->stop > 0)) {
      return Unsupported(stage.path, Member(*stage.value, "type"),
                         "\"Strip\" of the start, after \"Fuse\" and \"ByteLevel\"");
    }
    fused |= std::holds_alternative<FuseDecoder>(step) || std::holds_alternative<ByteLevelDecoder>(step);
    spec->decoder.push_back(std::move(step));
  }
  return absl::OkStatus();
}

absl::Status ReadPostProcessor(const json& root, TokenizerSpec* spec) {
  std::vector<Stage> stages;
  ABSTRACT_RETURN_IF_ERROR(Flatten(Member(root, "post_processor"), "post_processor", "processors", &stages));
  bool framed = false;
  for (const Stage& stage : stages) {
    if (TypeOf(*stage.value) == "ByteLevel") continue;  // changes offsets, which nobody asks for
    // Hugging Face takes what the first made for a pair of texts.
    if (std::exchange(framed, true)) {
      return Unsupported(stage.path + ".type", Member(*stage.value, "type"), "\"ByteLevel\" beside another");
    }
    ABSTRACT_RETURN_IF_ERROR(ReadPostProcessorStep(*stage.value, stage.path, spec));
  }
  return absl::OkStatus();
}

}  // namespace mechinterp::engine
