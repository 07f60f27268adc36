// tokenizer.json; after a zero byte a text to encode.

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "services/engine/tokenizer/streaming_detokenizer.h"
#include "services/engine/tokenizer/tokenizer.h"
#include "services/engine/tokenizer/tokenizer_spec.h"
#include "tests/fuzz/fuzz_target.h"

namespace mechinterp::engine {
namespace {

using fuzz::Require;

// Whether nothing is put into a text, or taken from it, but what has no token.
bool KeepsTexts(const TokenizerSpec& spec) {
  const auto is_plain_split = [](const PreTokenizerStep& step) {
    const auto* const split = std::get_if<Split>(&step);
    return split != nullptr && split->behavior != SplitBehavior::kRemoved;
  };
  const auto is_plain_token = [](const AddedToken& token) { return !token.lstrip && !token.rstrip; };
  return spec.model.byte_level && spec.model.unk_token.empty() && spec.normalizer.empty() &&
         std::all_of(spec.pre_tokenizer.begin(), spec.pre_tokenizer.end(), is_plain_split) &&
         std::all_of(spec.added_tokens.begin(), spec.added_tokens.end(), is_plain_token) &&
         spec.decoder.size() == 1 && std::holds_alternative<ByteLevelDecoder>(spec.decoder[0]);
}

// In order, with gaps.
bool IsWithin(std::string_view part, std::string_view whole) {
  for (const char c : whole) {
    if (!part.empty() && part[0] == c) part.remove_prefix(1);
  }
  return part.empty();
}

std::string Streamed(const std::shared_ptr<const Tokenizer>& tokenizer, const std::vector<TokenId>& ids,
                     bool skip_special) {
  StreamingDetokenizer stream(tokenizer, skip_special);
  std::string text;
  for (const TokenId id : ids) {
    const std::string piece = stream.Push(id);
    Require(fuzz::IsUtf8(piece), "no piece is half a character");
    text += piece;
  }
  return text + stream.Flush();
}

void CheckText(const std::shared_ptr<const Tokenizer>& tokenizer, std::string_view text,
               SpecialTokens special, const TokenizerSpec& spec) {
  const std::optional<TokenId> unknown = tokenizer->TokenToId(spec.model.unk_token);
  const std::vector<TokenId> ids = tokenizer->Encode(text, special);
  for (const TokenId id : ids) {
    Require(id >= 0 && id < tokenizer->vocab_size() && tokenizer->RawToken(id) != nullptr,
            "a text becomes tokens of the vocabulary");
    Require(fuzz::IsUtf8(tokenizer->TokenText(id)), "a token's text is UTF-8");
    Require(special == SpecialTokens::kParse || !tokenizer->IsSpecial(id) || id == unknown,
            "a text forges no special token");
  }
  for (const bool skip_special : {false, true}) {
    const std::string decoded = tokenizer->Decode(ids, skip_special);
    Require(fuzz::IsUtf8(decoded), "what is decoded is UTF-8");
    Require(decoded == Streamed(tokenizer, ids, skip_special), "streamed text is the text");
  }
  if (KeepsTexts(spec)) {
    Require(IsWithin(tokenizer->DecodeBytes(ids), text), "no byte is decoded that was not encoded");
  }
}

}  // namespace
}  // namespace mechinterp::engine

ABSTRACT_FUZZ_TARGET(tokenizer) {
  using namespace mechinterp::engine;
  constexpr std::string_view kText = "Hello, w\u00f6rld <|end|>\u2581 42 \xff";
  const auto [file, text] = mechinterp::fuzz::CutAt(input, '\0');
  const std::string path = mechinterp::fuzz::ScratchFile("tokenizer.json", file);
  const auto tokenizer = Tokenizer::Load(path);
  if (!tokenizer.ok()) return mechinterp::fuzz::RequireRefusal(tokenizer.status(), path);
  const auto spec = ReadTokenizerSpec(nlohmann::json::parse(file));
  mechinterp::fuzz::RequireOk(spec.status(), "what was loaded has a specification");
  for (const SpecialTokens special : {SpecialTokens::kParse, SpecialTokens::kAsPlainText}) {
    CheckText(*tokenizer, text.empty() ? kText : text, special, *spec);
  }
}
