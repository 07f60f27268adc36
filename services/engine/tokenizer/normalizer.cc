#include "services/engine/tokenizer/normalizer.h"

#include "services/common/overloaded.h"
#include "services/common/status_macros.h"
#include "services/engine/tokenizer/unicode.h"

namespace mechinterp::engine {
namespace {

std::string Stripped(std::string_view text, const StripWhiteSpace& strip) {
  if (strip.left) text.remove_prefix(LeadingWhiteSpace(text));
  if (strip.right) text.remove_suffix(TrailingWhiteSpace(text));
  return std::string(text);
}

}  // namespace

absl::StatusOr<Normalizer> Normalizer::Create(const std::vector<NormalizerStep>& steps) {
  std::vector<Step> compiled;
  for (const NormalizerStep& step : steps) {
    if (const auto* replace = std::get_if<Replace>(&step)) {
      ABSTRACT_ASSIGN_OR_RETURN(TextPattern pattern, TextPattern::Compile(replace->pattern));
      compiled.emplace_back(CompiledReplace{std::move(pattern), replace->content});
      continue;
    }
    std::visit(Overloaded{[](const Replace&) {}, [&](const auto& other) { compiled.emplace_back(other); }},
               step);
  }
  return Normalizer(std::move(compiled));
}

std::string Normalizer::Normalize(std::string_view text) const {
  std::string result(text);
  const auto apply = Overloaded{
      [&](const Prepend& prepend) {
        if (!result.empty()) result.insert(0, prepend.text);
      },
      [&](const CompiledReplace& replace) { result = replace.pattern.ReplaceAll(result, replace.content); },
      [&](UnicodeForm form) { result = ToForm(form, result); },
      [&](const StripWhiteSpace& strip) { result = Stripped(result, strip); },
  };
  for (const Step& step : steps_) std::visit(apply, step);
  return result;
}

}  // namespace mechinterp::engine
