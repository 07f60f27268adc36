#include "services/engine/tokenizer/decoder.h"

#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "services/common/overloaded.h"
#include "services/common/status_macros.h"
#include "services/engine/tokenizer/absl_view.h"
#include "services/engine/tokenizer/byte_alphabet.h"
#include "services/engine/tokenizer/utf8.h"

namespace mechinterp::engine {
namespace {

bool StartsWith(std::string_view text, std::string_view prefix) {
  return text.substr(0, prefix.size()) == prefix;
}

bool EndsWith(std::string_view text, std::string_view suffix) {
  return text.size() >= suffix.size() && text.substr(text.size() - suffix.size()) == suffix;
}

int HexDigit(char digit) {
  if (digit >= '0' && digit <= '9') return digit - '0';
  if (digit >= 'A' && digit <= 'F') return digit - 'A' + 10;
  if (digit >= 'a' && digit <= 'f') return digit - 'a' + 10;
  return -1;
}

// The byte that "<0x0A>" stands for.
std::optional<char> FallbackByte(std::string_view token) {
  if (token.size() != 6 || !StartsWith(token, "<0x") || token.back() != '>') return std::nullopt;
  const int high = HexDigit(token[3]);
  const int low = HexDigit(token[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<char>(high * 16 + low);
}

// A run of bytes that is not a text as a whole is one replacement for each byte,
// in Hugging Face: so no byte of it can be shown before the run ends.
std::string TextOfRun(const std::string& bytes) {
  if (ValidUtf8PrefixLength(bytes) == bytes.size()) return bytes;
  std::string text;
  for (size_t i = 0; i < bytes.size(); ++i) text.append(kReplacementCharacter);
  return text;
}

// A text outside the alphabet stands for itself, as some added tokens do.
std::string BytesOf(const std::string& token) { return AlphabetToBytes(token).value_or(token); }

void StripToken(const StripDecoder& strip, std::string* token) {
  std::string_view rest = *token;
  for (int i = 0; i < strip.start && StartsWith(rest, strip.content); ++i) {
    rest.remove_prefix(strip.content.size());
  }
  for (int i = 0; i < strip.stop && EndsWith(rest, strip.content); ++i) {
    rest.remove_suffix(strip.content.size());
  }
  *token = std::string(rest);
}

}  // namespace

absl::StatusOr<Decoder> Decoder::Create(const std::vector<DecoderStep>& steps) {
  std::vector<Step> compiled;
  bool fused = false;
  for (const DecoderStep& step : steps) {
    if (const auto* replace = std::get_if<Replace>(&step)) {
      ABSTRACT_ASSIGN_OR_RETURN(TextPattern pattern, TextPattern::Compile(replace->pattern));
      compiled.emplace_back(CompiledReplace{std::move(pattern), replace->content});
    } else if (const auto* strip = std::get_if<StripDecoder>(&step); strip != nullptr && fused) {
      compiled.emplace_back(StripStart{strip->content, strip->start});
    } else if (std::holds_alternative<FuseDecoder>(step)) {
      fused = true;
    } else {
      fused |= std::holds_alternative<ByteLevelDecoder>(step);
      std::visit(Overloaded{[](const Replace&) {}, [](const FuseDecoder&) {},
                            [&](const auto& other) { compiled.emplace_back(other); }},
                 step);
    }
  }
  if (steps.empty()) compiled.emplace_back(JoinBySpaces{});
  return Decoder(std::move(compiled));
}

// Each operator changes `texts`, tokens or pieces of the fused text, in place.
struct Decoder::Run {
  Texts& texts;
  State::OfStep& state;
  bool at_end;

  void operator()(const CompiledReplace& replace) const {
    for (std::string& text : texts) text = replace.pattern.ReplaceAll(text, replace.content);
  }

  void operator()(const ByteLevelDecoder& /*step*/) const {
    for (const std::string& text : texts) state.held += BytesOf(text);
    std::string result;
    const size_t truncated = AppendWellFormed(state.held, &result);
    state.held.erase(0, state.held.size() - truncated);
    if (at_end && !std::exchange(state.held, {}).empty()) result.append(kReplacementCharacter);
    texts = {std::move(result)};
  }

  void operator()(const ByteFallbackDecoder& /*step*/) const {
    Texts result;
    const auto end_run = [&] {
      if (!state.held.empty()) result.push_back(TextOfRun(std::exchange(state.held, {})));
    };
    for (std::string& text : texts) {
      if (const std::optional<char> byte = FallbackByte(text)) {
        state.held.push_back(*byte);
      } else {
        end_run();
        result.push_back(std::move(text));
      }
    }
    if (at_end) end_run();
    texts = std::move(result);
  }

  void operator()(const StripDecoder& strip) const {
    for (std::string& text : texts) StripToken(strip, &text);
  }

  void operator()(const StripStart& strip) const {
    for (std::string& text : texts) {
      size_t start = 0;
      while (state.cut >= 0 && start < text.size()) {
        const bool cuts =
            state.cut < strip.count && StartsWith(std::string_view(text).substr(start), strip.content);
        state.cut = cuts ? state.cut + 1 : -1;
        if (cuts) start += strip.content.size();
      }
      text.erase(0, start);
    }
  }

  void operator()(const MetaspaceDecoder& metaspace) const {
    for (std::string& text : texts) {
      const bool drops = metaspace.drops_first && !state.begun;
      text = absl::StrReplaceAll(text, {{metaspace.replacement, drops ? "" : " "}});
      state.begun = true;
    }
  }

  void operator()(const JoinBySpaces& /*step*/) const {
    for (std::string& text : texts) {
      if (std::exchange(state.begun, true)) text.insert(0, " ");
    }
  }
};

std::string Decoder::Apply(Texts texts, bool at_end, State* state) const {
  state->steps.resize(steps_.size());
  for (size_t i = 0; i < steps_.size(); ++i) std::visit(Run{texts, state->steps[i], at_end}, steps_[i]);
  return absl::StrJoin(texts, "");
}

std::string Decoder::Push(std::string_view token, State* state) const {
  return Apply({std::string(token)}, /*at_end=*/false, state);
}

std::string Decoder::Flush(State* state) const {
  std::string text = Apply({}, /*at_end=*/true, state);
  *state = {};
  return text;
}

std::string Decoder::TokenBytes(std::string_view token) const {
  std::string text(token);
  std::optional<char> byte;
  const auto apply = Overloaded{
      [&](const CompiledReplace& replace) { text = replace.pattern.ReplaceAll(text, replace.content); },
      [&](const ByteLevelDecoder&) { text = BytesOf(text); },
      [&](const ByteFallbackDecoder&) { byte = FallbackByte(text); },
      [&](const StripDecoder& strip) { StripToken(strip, &text); },
      [&](const MetaspaceDecoder& metaspace) {
        text = absl::StrReplaceAll(text, {{metaspace.replacement, " "}});
      },
      [](const StripStart&) {},
      [](const JoinBySpaces&) {},
  };
  for (const Step& step : steps_) {
    std::visit(apply, step);
    if (byte.has_value()) return std::string(1, *byte);
  }
  return text;
}

}  // namespace mechinterp::engine
