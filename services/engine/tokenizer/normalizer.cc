#include "services/engine/tokenizer/normalizer.h"

#include <algorithm>
#include <variant>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
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

// How many times as long a step may make a text: a form's longest expansion is U+FDFA's, 3
// bytes to 33 by NFKC and NFKD.
double Growth(const NormalizerStep& step) {
  if (const auto* replace = std::get_if<Replace>(&step)) {
    return std::max<double>(1, static_cast<double>(replace->content.size()));
  }
  return std::holds_alternative<UnicodeForm>(step) ? 11 : 1;
}

}  // namespace

absl::StatusOr<Normalizer> Normalizer::Create(const std::vector<NormalizerStep>& steps) {
  constexpr double kMostGrowth = 4096;
  double growth = 1;
  for (const NormalizerStep& step : steps) growth *= Growth(step);
  if (growth > kMostGrowth) {
    return absl::InvalidArgumentError(
        absl::StrCat("its steps may make a text more than ", kMostGrowth, " times as long"));
  }
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
