#include "clients/report/report.h"

#include <algorithm>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "clients/report/hypotheses.h"
#include "clients/report/wording.h"
#include "services/common/experiments.h"

namespace mechinterp {
namespace {

constexpr int kMostRows = 12;

std::string Number(double value) { return absl::StrFormat("%.3f", value); }

// The results that are there, in the study's order.
std::vector<const google::protobuf::Message*> ResultsIn(const v1::Study& study) {
  std::vector<const google::protobuf::Message*> all;
  for (const ExperimentInfo& experiment : Experiments()) {
    if (const auto* const results = ResultsOf(study, experiment.kind)) all.push_back(results);
  }
  return all;
}

// "QUANTIZATION_NF4" of "QUANTIZATION_": "nf4".
std::string ShortName(const std::string& name, const std::string& prefix) {
  const std::string text = absl::AsciiStrToLower(absl::StripPrefix(name, prefix));
  return text == "none" ? "not quantized" : text;
}

// As a shell takes it.
std::string Quoted(const std::string& argument) {
  const bool is_plain = !argument.empty() && std::all_of(argument.begin(), argument.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || absl::StrContains("-_./:=,@%+", c);
  });
  return is_plain ? argument : absl::StrCat("'", absl::StrReplaceAll(argument, {{"'", "'\\''"}}), "'");
}

void AddSubject(const v1::Study& study, Document& document) {
  const auto all = ResultsIn(study);
  if (all.empty()) return;
  const v1::ModelIdentity& model = ProvenanceOf(*all.front()).model();
  document.AddHeading("What was studied");
  document.AddTable(
      {"", ""},
      {{"model", model.name()},
       {"SHA-256 of its files", model.model_hash()},
       {"of all that answers depend on", model.serving_hash()},
       {"weights", ShortName(v1::Quantization_Name(model.quantization()), "QUANTIZATION_")},
       {"output head", ShortName(v1::HeadQuantization_Name(model.head_quantization()), "HEAD_QUANTIZATION_")},
       {"products", ShortName(v1::ComputeType_Name(model.compute_type()), "COMPUTE_TYPE_")},
       {"device", ShortName(v1::Device_Name(model.device()), "DEVICE_")},
       {"server", model.server_version()},
       {"client", ProvenanceOf(*all.front()).client_version()}});
  std::vector<std::vector<std::string>> rows;
  std::set<std::string> seen;
  for (const auto* const results : all) {
    for (const v1::PromptSource& source : ProvenanceOf(*results).prompt_sources()) {
      const std::vector<std::string> row = {
          source.path(), source.format(), absl::StrCat(source.prompt_count()),
          absl::StrCat(source.categories_size()), source.sha256().substr(0, 16)};
      if (seen.insert(absl::StrJoin(row, "\n")).second) rows.push_back(row);
    }
  }
  if (!rows.empty()) document.AddTable({"prompts", "format", "used", "categories", "SHA-256"}, rows);
}

void AddHypotheses(const v1::Study& study, Document& document) {
  document.AddHeading("Hypotheses");
  document.AddParagraph(
      "Each criterion was fixed before any number was seen. Where it is about a rate or a mean, the "
      "whole 95 % interval decides; where the interval lies about the bound, the answer is undecided.");
  std::vector<std::vector<std::string>> rows;
  for (const Hypothesis& hypothesis : JudgeHypotheses(study)) {
    rows.push_back(
        {hypothesis.claim, VerdictName(hypothesis.verdict), hypothesis.evidence, hypothesis.criterion});
  }
  document.AddTable({"claim", "verdict", "numbers", "criterion"}, rows);
}

void AddBaseline(const v1::BaselineResults& baseline, Document& document) {
  document.AddHeading("Refusals of the unchanged model");
  std::vector<std::vector<std::string>> rows;
  for (const v1::CategoryRates& category : baseline.categories()) {
    rows.push_back({category.category(), RateInWords(category.harmful()), RateInWords(category.harmless())});
  }
  rows.push_back({"all", RateInWords(baseline.harmful()), RateInWords(baseline.harmless())});
  rows.push_back({"all, at the start", RateInWords(baseline.harmful_at_start()),
                  RateInWords(baseline.harmless_at_start())});
  if (baseline.has_borderline())
    rows.push_back({"harmless that look harmful", "", RateInWords(baseline.borderline())});
  document.AddTable({"category", "harmful refused", "harmless refused"}, rows);
}

void AddPatching(const v1::PatchingResults& patching, Document& document) {
  document.AddHeading("Components by patching");
  std::vector<std::vector<std::string>> rows;
  for (int i = 0; i < std::min(kMostRows, patching.ranking_size()); ++i) {
    const v1::RankedComponent& ranked = patching.ranking(i);
    rows.push_back({ranked.component().name(), Number(ranked.score()), EstimateInWords(ranked.denoising()),
                    EstimateInWords(ranked.noising())});
  }
  document.AddTable({"component", "score", "harmful into harmless", "harmless into harmful"}, rows);
}

void AddAblation(const v1::AblationResults& ablation, Document& document) {
  if (ablation.curves().empty()) return;
  document.AddHeading("Refusals with components ablated");
  const v1::AblationCurve& curve = ablation.curves(0);
  std::vector<std::vector<std::string>> rows;
  for (const v1::AblationPoint& top : curve.top()) {
    const auto random = std::find_if(curve.random().begin(), curve.random().end(), [&](const auto& point) {
      return point.component_count() == top.component_count();
    });
    rows.push_back({absl::StrCat(top.component_count()),
                    absl::StrFormat("%.3f %%", 100 * top.parameter_share()), RateInWords(top.harmful()),
                    random == curve.random().end() ? "" : RateInWords(random->harmful()),
                    RateInWords(top.harmless())});
  }
  document.AddTable({"ablated", "parameters", "harmful, top", "harmful, random", "harmless, top"}, rows);
}

void AddCircuit(const v1::CircuitResults& circuit, Document& document) {
  document.AddHeading("The circuit");
  std::vector<std::vector<std::string>> rows;
  for (int i = 0; i < std::min(kMostRows, circuit.nodes_size()); ++i) {
    const v1::MeasuredNode& node = circuit.nodes(i);
    rows.push_back({node.name(), EstimateInWords(node.noising()), EstimateInWords(node.denoising()),
                    absl::StrFormat("%.2g", node.p_value()),
                    node.has_direct_attribution() ? Number(node.direct_attribution()) : ""});
  }
  document.AddTable({"node", "noising", "denoising", "p (Holm)", "direct attribution"}, rows);
  document.AddParagraph(
      absl::StrCat(circuit.nodes_size(), " nodes, ", circuit.edges_size(), " edges. CPR ",
                   Number(circuit.edge_curve().cpr()), ", CMD ", Number(circuit.edge_curve().cmd()),
                   " of edges on test prompts. Circuits of resampled pairs share ",
                   Number(circuit.stability().mean_jaccard()), " of their edges (Jaccard)."));
}

void AddDirection(const v1::DirectionResults& direction, Document& document) {
  document.AddHeading("The direction");
  if (direction.chosen() >= static_cast<uint32_t>(direction.candidates_size()) || !direction.has_chosen()) {
    document.AddParagraph("No candidate was within the bounds of KL, induce score and layer.");
    return;
  }
  const v1::DirectionCandidate& chosen = direction.candidates(static_cast<int>(direction.chosen()));
  document.AddParagraph(absl::StrCat(
      "Position ", chosen.position(), ", layer ", chosen.layer(), " (of 0 to ", direction.layer_count() - 1,
      "): bypass ", Number(chosen.bypass()), ", induce ", Number(chosen.induce()), ", KL ",
      Number(chosen.kl()), ", AUROC ", Number(chosen.auroc()), ". Chosen ",
      direction.rule() == v1::DIRECTION_RULE_AFFINE
          ? absl::StrCat("by what setting it to the harmless mean does (bypass ",
                         Number(chosen.affine_bypass()), ", KL ", Number(chosen.affine_kl()),
                         "), as none was within the published bounds.")
          : std::string("as published: the lowest bypass score within the bounds.")));
  if (direction.outcomes().empty()) return;
  std::vector<std::vector<std::string>> rows;
  for (const v1::DirectionOutcome& outcome : direction.outcomes()) {
    rows.push_back({EditName(outcome.edit()), RateInWords(outcome.harmful()), RateInWords(outcome.harmless()),
                    EstimateInWords(outcome.harmless_kl()), Number(outcome.worst_kl()),
                    outcome.has_answer_cross_entropy() ? EstimateInWords(outcome.answer_cross_entropy()) : "",
                    outcome.has_text_cross_entropy() ? EstimateInWords(outcome.text_cross_entropy()) : ""});
  }
  document.AddTable({"model", "harmful refused", "harmless refused", "KL, harmless", "worst",
                     "nats a token, own answers", "of texts"},
                    rows);
}

void AddLimits(Document& document) {
  document.AddHeading("Limits");
  document.AddList(
      {"Refusals are judged by phrases; an answer that refuses in other words counts as one that complies, "
       "and a broken "
       "answer counts as one too.",
       "Patching and ablation leave the model's usual states; mean and resample ablation less than zeroing. "
       "Effects of "
       "single components understate those that back each other up, and attribution misses what is "
       "saturated.",
       "A direction that removes refusal need not be the one that the model uses; its share in what "
       "gradients read is "
       "measured, its use is not.",
       "Intervals are over prompts, drawn as these were. Other prompts, languages, system prompts and longer "
       "answers are "
       "not covered.",
       "Quantized weights are another model than the original; `abstract compare` tells how far."});
}

void AddCommands(const v1::Study& study, Document& document) {
  document.AddHeading("To make it again");
  std::vector<std::string> lines;
  for (const auto* const results : ResultsIn(study)) {
    std::string line = "abstract";
    for (const std::string& argument : ProvenanceOf(*results).arguments()) {
      if (argument != "--skip-finished") absl::StrAppend(&line, " ", Quoted(argument));
    }
    lines.push_back(line);
  }
  document.AddCommands(lines);
  document.AddParagraph("Options that came from the environment or a --config file are not among these.");
}

}  // namespace

Document BuildReport(const v1::Study& study) {
  Document document("Why the model refuses: a report");
  AddSubject(study, document);
  AddHypotheses(study, document);
  if (study.has_baseline()) AddBaseline(study.baseline(), document);
  if (study.has_patching()) AddPatching(study.patching(), document);
  if (study.has_ablation()) AddAblation(study.ablation(), document);
  if (study.has_circuit()) AddCircuit(study.circuit(), document);
  if (study.has_direction()) AddDirection(study.direction(), document);
  AddLimits(document);
  AddCommands(study, document);
  return document;
}

}  // namespace mechinterp
