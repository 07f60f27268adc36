#ifndef SERVICES_ENGINE_TOKENIZER_TOKENIZER_SPEC_H_
#define SERVICES_ENGINE_TOKENIZER_TOKENIZER_SPEC_H_

#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json_fwd.hpp"
#include "services/engine/base/token_id.h"

namespace mechinterp::engine {

// What a tokenizer.json says, checked for shape and for support, in the words of
// that file and of Hugging Face's tokenizers, whose stages these are.

struct AddedToken {
  std::string content;
  TokenId id = 0;
  bool special = false;
  // Looked for, normalized itself, in the normalized text that the others leave.
  bool normalized = false;
  // Only where no letter, digit or mark adjoins.
  bool single_word = false;
  // Takes the white space before it, after it.
  bool lstrip = false;
  bool rstrip = false;
};

struct Pattern {
  std::string text;
  bool is_regex = false;  // else the text itself
};

// Normalizers.
struct Prepend {
  std::string text;  // unless the text is empty
};
struct Replace {  // a decoder too
  Pattern pattern;
  std::string content;
};
enum class UnicodeForm { kNfc, kNfd, kNfkc, kNfkd };
struct StripWhiteSpace {
  bool left = true;
  bool right = true;
};
using NormalizerStep = std::variant<Prepend, Replace, UnicodeForm, StripWhiteSpace>;

// Pre-tokenizers.
enum class SplitBehavior { kRemoved, kIsolated, kContiguous, kMergedWithPrevious, kMergedWithNext };
struct Split {
  Pattern pattern;
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;  // matches and what lies between change places
};
enum class PrependScheme { kFirst, kAlways, kNever };
struct Metaspace {
  std::string replacement;  // of a space, and in front of pieces as the scheme says
  PrependScheme scheme = PrependScheme::kAlways;
  bool split = true;  // before each replacement
};
struct PrefixSpace {};  // ByteLevel's add_prefix_space: of every piece
using PreTokenizerStep = std::variant<Split, Metaspace, PrefixSpace>;

// Decoders.
struct ByteLevelDecoder {};
struct ByteFallbackDecoder {};
struct FuseDecoder {};
struct StripDecoder {
  std::string content;  // one character
  int start = 0;        // how many at most
  int stop = 0;
};
struct MetaspaceDecoder {
  std::string replacement;
  bool drops_first = true;  // those of the first token
};
using DecoderStep =
    std::variant<Replace, ByteLevelDecoder, ByteFallbackDecoder, FuseDecoder, StripDecoder, MetaspaceDecoder>;

struct BpeModel {
  std::vector<std::pair<std::string, TokenId>> vocab;
  std::vector<std::pair<std::string, std::string>> merges;  // by rank
  bool ignore_merges = false;
  bool byte_fallback = false;
  bool fuse_unk = false;
  std::string unk_token;    // empty: none
  bool byte_level = false;  // tokens are written in the byte-level alphabet
};

struct TokenizerSpec {
  std::vector<AddedToken> added_tokens;
  std::vector<NormalizerStep> normalizer;
  std::vector<PreTokenizerStep> pre_tokenizer;
  BpeModel model;
  std::vector<DecoderStep> decoder;
  // The post-processor's.
  std::vector<TokenId> tokens_before;
  std::vector<TokenId> tokens_after;
};

// Errors: InvalidArgument, naming the part ("model.merges[17]") that is malformed;
// Unimplemented where it asks for something that this tokenizer does not do. What
// only concerns how Hugging Face batches (truncation, padding) is not read.
absl::StatusOr<TokenizerSpec> ReadTokenizerSpec(const nlohmann::json& root);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_TOKENIZER_TOKENIZER_SPEC_H_
