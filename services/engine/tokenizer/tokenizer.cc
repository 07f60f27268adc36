#include "services/engine/tokenizer/tokenizer.h"

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "services/engine/tokenizer/added_tokens.h"
#include "services/engine/tokenizer/bpe.h"
#include "services/engine/tokenizer/split_regex.h"
#include "services/engine/tokenizer/tokenizer_spec.h"
#include "services/engine/tokenizer/utf8.h"
#include "services/engine/tokenizer/vocabulary.h"

namespace mechinterp::engine {
namespace {

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::error_code error;
  // Asked first, because opening a directory succeeds and fails only later.
  const auto size = std::filesystem::file_size(path, error);
  std::ifstream file(path, std::ios::binary);
  std::string contents;
  if (!error && file) {
    contents.resize(size);
    file.read(contents.data(), static_cast<std::streamsize>(size));
  }
  if (error || !file) {
    return absl::NotFoundError(absl::StrCat("cannot be read", error ? ": " + error.message() : ""));
  }
  return contents;
}

}  // namespace

// The stages of encoding, in order: added tokens are cut out of the text, the
// rest is split by patterns, and each piece is merged.
struct Tokenizer::Impl {
  Vocabulary vocabulary;
  AddedTokenSplitter added_tokens;
  std::vector<SplitRegex> splits;
  BytePairEncoder encoder;

  static absl::StatusOr<std::unique_ptr<Impl>> Create(const std::string& path);
  void EncodePlainText(std::string_view text, std::vector<TokenId>* ids) const;
  void EncodeValidUtf8(std::string_view text, std::vector<TokenId>* ids) const;
};

absl::StatusOr<std::unique_ptr<Tokenizer::Impl>> Tokenizer::Impl::Create(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadFile(path);
  if (!text.ok()) return text.status();
  const absl::StatusOr<TokenizerSpec> spec = ParseTokenizerJson(*text);
  if (!spec.ok()) return spec.status();
  absl::StatusOr<Vocabulary> vocabulary = Vocabulary::Create(*spec);
  if (!vocabulary.ok()) return vocabulary.status();
  absl::StatusOr<BytePairEncoder> encoder = BytePairEncoder::Create(*spec, *vocabulary);
  if (!encoder.ok()) return encoder.status();
  std::vector<SplitRegex> splits;
  for (const std::string& pattern : spec->split_patterns) {
    absl::StatusOr<SplitRegex> split = SplitRegex::Compile(pattern);
    if (!split.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("pre_tokenizer: ", split.status().message()));
    }
    splits.push_back(*std::move(split));
  }
  return std::unique_ptr<Impl>(new Impl{*std::move(vocabulary), AddedTokenSplitter(spec->added_tokens),
                                        std::move(splits), *std::move(encoder)});
}

void Tokenizer::Impl::EncodePlainText(std::string_view text, std::vector<TokenId>* ids) const {
  while (!text.empty()) {
    const size_t valid = ValidUtf8PrefixLength(text);
    if (valid > 0) EncodeValidUtf8(text.substr(0, valid), ids);
    text.remove_prefix(valid);
    if (text.empty()) return;
    // Patterns are not defined on malformed UTF-8, bytes are.
    const size_t malformed = ReadUtf8Unit(text).length;
    for (const char byte : text.substr(0, malformed)) {
      ids->push_back(encoder.ByteToken(static_cast<uint8_t>(byte)));
    }
    text.remove_prefix(malformed);
  }
}

void Tokenizer::Impl::EncodeValidUtf8(std::string_view text, std::vector<TokenId>* ids) const {
  std::vector<std::string_view> pieces = {text};
  std::vector<std::string_view> finer;
  for (const SplitRegex& split : splits) {
    finer.clear();
    for (const std::string_view piece : pieces) split.Split(piece, &finer);
    std::swap(pieces, finer);
  }
  for (const std::string_view piece : pieces) encoder.Encode(piece, ids);
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;

absl::StatusOr<std::shared_ptr<const Tokenizer>> Tokenizer::Load(const std::string& tokenizer_json_path) {
  absl::StatusOr<std::unique_ptr<Impl>> impl = Impl::Create(tokenizer_json_path);
  if (!impl.ok()) {
    return absl::Status(impl.status().code(),
                        absl::StrCat(tokenizer_json_path, ": ", impl.status().message()));
  }
  return std::shared_ptr<const Tokenizer>(new Tokenizer(*std::move(impl)));
}

std::vector<TokenId> Tokenizer::Encode(std::string_view text, SpecialTokens special,
                                       absl::Span<const TokenId> also_plain) const {
  std::vector<TokenId> ids;
  for (const TextSegment& segment : impl_->added_tokens.Split(text, special, also_plain)) {
    if (segment.added_token.has_value()) {
      ids.push_back(*segment.added_token);
    } else {
      impl_->EncodePlainText(segment.text, &ids);
    }
  }
  return ids;
}

std::string Tokenizer::DecodeBytes(absl::Span<const TokenId> ids, bool skip_special) const {
  std::string bytes;
  for (const TokenId id : ids) {
    if (skip_special && IsSpecial(id)) continue;
    bytes.append(impl_->vocabulary.Bytes(id));
  }
  return bytes;
}

std::string Tokenizer::Decode(absl::Span<const TokenId> ids, bool skip_special) const {
  std::string text;
  const size_t truncated = AppendWellFormed(DecodeBytes(ids, skip_special), &text);
  if (truncated > 0) text.append(kReplacementCharacter);
  return text;
}

std::optional<TokenId> Tokenizer::TokenToId(std::string_view token) const {
  return impl_->vocabulary.Find(token);
}

bool Tokenizer::IsSpecial(TokenId id) const { return impl_->vocabulary.IsSpecial(id); }

bool Tokenizer::IsAdded(TokenId id) const { return impl_->vocabulary.IsAdded(id); }

int Tokenizer::vocab_size() const { return impl_->vocabulary.size(); }

}  // namespace mechinterp::engine
