#include "services/engine/tokenizer/tokenizer.h"

#include <cstdint>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "services/common/json_file.h"
#include "services/common/status_macros.h"
#include "services/common/text_file.h"
#include "services/engine/tokenizer/added_tokens.h"
#include "services/engine/tokenizer/bpe.h"
#include "services/engine/tokenizer/decoder.h"
#include "services/engine/tokenizer/normalizer.h"
#include "services/engine/tokenizer/pre_tokenizer.h"
#include "services/engine/tokenizer/tokenizer_spec.h"
#include "services/engine/tokenizer/utf8.h"
#include "services/engine/tokenizer/vocabulary.h"

namespace mechinterp::engine {
namespace {

// Three times the largest that is published.
constexpr uint64_t kMaxBytes = 100 << 20;

constexpr absl::string_view kWithoutTokenizer =
    "; a copy of the checkpoint's folder without tokenizer.json (links will do) is served by token ids";

absl::flat_hash_set<TokenId> SpecialIds(const TokenizerSpec& spec) {
  absl::flat_hash_set<TokenId> ids;
  for (const AddedToken& token : spec.added_tokens) {
    if (token.special) ids.insert(token.id);
  }
  return ids;
}

absl::Status CheckFrame(const std::vector<TokenId>& ids, const Vocabulary& vocabulary) {
  for (const TokenId id : ids) {
    if (vocabulary.Text(id) != nullptr) continue;
    return absl::InvalidArgumentError(absl::StrCat("post_processor: ", id, " is no token's id"));
  }
  return absl::OkStatus();
}

// What was made, or why not and in which part of the file.
template <typename T>
absl::StatusOr<T> OfPart(absl::string_view part, absl::StatusOr<T> made) {
  if (made.ok()) return made;
  return absl::Status(made.status().code(), absl::StrCat(part, ": ", made.status().message()));
}

}  // namespace

// The stages, in order.
struct Tokenizer::Impl {
  Vocabulary vocabulary;
  Normalizer normalizer;
  AddedTokenSplitter added_tokens;
  PreTokenizer pre_tokenizer;
  BytePairEncoder encoder;
  Decoder decoder;
  std::vector<TokenId> tokens_before;
  std::vector<TokenId> tokens_after;

  static absl::StatusOr<std::unique_ptr<Impl>> Create(const TokenizerSpec& spec);
  void EncodePlainText(std::string_view text, bool at_start, std::vector<TokenId>* ids) const;
};

absl::StatusOr<std::unique_ptr<Tokenizer::Impl>> Tokenizer::Impl::Create(const TokenizerSpec& spec) {
  ABSTRACT_ASSIGN_OR_RETURN(Normalizer normalizer, OfPart("normalizer", Normalizer::Create(spec.normalizer)));
  ABSTRACT_ASSIGN_OR_RETURN(Vocabulary vocabulary, Vocabulary::Create(spec, normalizer));
  ABSTRACT_RETURN_IF_ERROR(CheckFrame(spec.tokens_before, vocabulary));
  ABSTRACT_RETURN_IF_ERROR(CheckFrame(spec.tokens_after, vocabulary));
  ABSTRACT_ASSIGN_OR_RETURN(PreTokenizer pre_tokenizer,
                            OfPart("pre_tokenizer", PreTokenizer::Create(spec.pre_tokenizer)));
  ABSTRACT_ASSIGN_OR_RETURN(BytePairEncoder encoder, BytePairEncoder::Create(spec.model, SpecialIds(spec)));
  ABSTRACT_ASSIGN_OR_RETURN(Decoder decoder, OfPart("decoder", Decoder::Create(spec.decoder)));
  AddedTokenSplitter added_tokens(spec.added_tokens, normalizer);
  return std::unique_ptr<Impl>(new Impl{std::move(vocabulary), std::move(normalizer), std::move(added_tokens),
                                        std::move(pre_tokenizer), std::move(encoder), std::move(decoder),
                                        spec.tokens_before, spec.tokens_after});
}

void Tokenizer::Impl::EncodePlainText(std::string_view text, bool at_start, std::vector<TokenId>* ids) const {
  const TextPieces pieces = pre_tokenizer.Split(text, at_start);
  for (const std::string_view piece : pieces.views) encoder.Encode(piece, ids);
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;

absl::StatusOr<std::shared_ptr<const Tokenizer>> Tokenizer::Load(const std::string& tokenizer_json_path) {
  ABSTRACT_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(tokenizer_json_path, kMaxBytes));
  ABSTRACT_ASSIGN_OR_RETURN(const nlohmann::json root, ParseJsonObject(text, tokenizer_json_path));
  absl::StatusOr<TokenizerSpec> spec = ReadTokenizerSpec(root);
  absl::StatusOr<std::unique_ptr<Impl>> impl = spec.ok() ? Impl::Create(*spec) : spec.status();
  if (impl.ok()) return std::shared_ptr<const Tokenizer>(new Tokenizer(*std::move(impl)));
  const bool unsupported = impl.status().code() == absl::StatusCode::kUnimplemented;
  return absl::Status(impl.status().code(), absl::StrCat(tokenizer_json_path, ": ", impl.status().message(),
                                                         unsupported ? kWithoutTokenizer : ""));
}

std::vector<TokenId> Tokenizer::Encode(std::string_view text, SpecialTokens special,
                                       absl::Span<const TokenId> also_plain, TextPlace place) const {
  std::vector<TokenId> ids;
  for (const TextSegment& raw : impl_->added_tokens.SplitRaw(text, special, also_plain)) {
    if (raw.added_token.has_value()) {
      ids.push_back(*raw.added_token);
      continue;
    }
    const std::string normalized = impl_->normalizer.Normalize(raw.text);
    bool at_start = place == TextPlace::kStart && raw.text.data() == text.data();
    for (const TextSegment& segment : impl_->added_tokens.SplitNormalized(normalized, special, also_plain)) {
      if (segment.added_token.has_value()) {
        ids.push_back(*segment.added_token);
      } else {
        impl_->EncodePlainText(segment.text, at_start, &ids);
      }
      at_start = false;
    }
  }
  return ids;
}

const std::vector<TokenId>& Tokenizer::tokens_before() const { return impl_->tokens_before; }
const std::vector<TokenId>& Tokenizer::tokens_after() const { return impl_->tokens_after; }

std::string Tokenizer::Decode(absl::Span<const TokenId> ids, bool skip_special) const {
  std::string text;
  Decoder::State state;
  for (const TokenId id : ids) {
    const std::string* token = RawToken(id);
    if (token == nullptr || (skip_special && IsSpecial(id))) continue;
    text += impl_->decoder.Push(*token, &state);
  }
  return text + impl_->decoder.Flush(&state);
}

std::string Tokenizer::DecodeBytes(absl::Span<const TokenId> ids, bool skip_special) const {
  std::string bytes;
  for (const TokenId id : ids) {
    const std::string* token = impl_->vocabulary.Text(id);
    if (token == nullptr || (skip_special && IsSpecial(id))) continue;
    bytes += IsAdded(id) ? *token : impl_->decoder.TokenBytes(*token);
  }
  return bytes;
}

std::string Tokenizer::TokenText(TokenId id) const {
  std::string text;
  const size_t truncated = AppendWellFormed(DecodeBytes({id}), &text);
  if (truncated > 0) text.append(kReplacementCharacter);
  return text;
}

const std::string* Tokenizer::RawToken(TokenId id) const { return impl_->vocabulary.DecodedText(id); }
const Decoder& Tokenizer::decoder() const { return impl_->decoder; }

std::optional<TokenId> Tokenizer::TokenToId(std::string_view token) const {
  return impl_->vocabulary.Find(token);
}

bool Tokenizer::IsSpecial(TokenId id) const { return impl_->vocabulary.IsSpecial(id); }

bool Tokenizer::IsAdded(TokenId id) const { return impl_->vocabulary.IsAdded(id); }

int Tokenizer::vocab_size() const { return impl_->vocabulary.size(); }

}  // namespace mechinterp::engine
