// abstract-train-tiny-model: makes the embedded model of this repository.
//
//   (default)          train the tokenizer and the model, write a checkpoint
//   --evaluate         judge the answers of an existing checkpoint
//   --study            ablation check of an existing checkpoint
//   --print-corpus N   show N training conversations
//   --choose-heldout N choose N pairs to hold out and write them

#include <spdlog/spdlog.h>

#include <chrono>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "data/trainer/bpe_trainer.h"
#include "data/trainer/checkpoint.h"
#include "data/trainer/corpus.h"
#include "data/trainer/encoding.h"
#include "data/trainer/evaluation.h"
#include "data/trainer/heldout.h"
#include "data/trainer/lexicon.h"
#include "data/trainer/study.h"
#include "data/trainer/training.h"
#include "services/common/command_line.h"
#include "services/common/status_macros.h"
#include "services/common/version.h"

namespace mechinterp::trainer {
namespace {

struct Options {
  std::string grammar = "data/trainer/grammar.json";
  std::string prompts = "data/prompts.json";
  std::string heldout = "data/heldout_prompts.json";
  std::string phrases = "data/refusal_phrases.json";
  std::string output = "data/models/tiny-llama-refusal";
  std::string reference_tokenizer;
  size_t vocabulary = 3000;  // at most: merging ends when every word of the corpus is one token
  bool evaluate = false, study = false, verbose = false;
  int print_corpus = 0;
  size_t choose_heldout = 0;
  ModelConfig model;
  TrainingOptions training;
};

absl::StatusOr<Corpus> MakeCorpus(const Options& options, const Grammar& grammar) {
  std::vector<PromptSet> held_out;
  for (const std::string& path : {options.prompts, options.heldout}) {
    ABSTRACT_ASSIGN_OR_RETURN(PromptSet prompts, LoadPrompts(path));
    held_out.push_back(std::move(prompts));
  }
  return Corpus::Create(grammar, held_out);
}

absl::Status PrintCorpus(const Options& options, const Corpus& corpus) {
  Random random(options.training.seed);
  for (int i = 0; i < options.print_corpus; ++i) {
    const Conversation conversation = corpus.Sample(random);
    if (!conversation.system.empty()) std::cout << "[" << conversation.system << "] ";
    std::cout << conversation.user << "\n    " << conversation.assistant << "\n";
  }
  return absl::OkStatus();
}

absl::Status RunTraining(const Options& options, const Grammar& grammar, const Corpus& corpus) {
  spdlog::info("corpus: {} harmful and {} harmless verb-object pairs", corpus.combination_count(true),
               corpus.combination_count(false));
  Random random(options.training.seed);
  WordCounts counts;
  ABSTRACT_RETURN_IF_ERROR(CountWords(TokenizerText(grammar, corpus, random), counts));
  const BpeVocabulary vocabulary = TrainBpe(counts, options.vocabulary);
  ABSTRACT_RETURN_IF_ERROR(WriteTokenizerFiles(options.output, vocabulary));
  ABSTRACT_ASSIGN_OR_RETURN(auto tokenizer, engine::Tokenizer::Load(options.output + "/tokenizer.json"));
  size_t split_words = 0;
  for (const auto& [word, count] : counts) split_words += tokenizer->Encode(word).size() > 1 ? 1 : 0;
  spdlog::info("tokenizer: {} tokens; {} of {} words take more than one", tokenizer->vocab_size(),
               split_words, counts.size());

  ModelConfig config = options.model;
  config.vocab_size = tokenizer->vocab_size();
  const auto start = std::chrono::steady_clock::now();
  ABSTRACT_ASSIGN_OR_RETURN(Weights weights, Train(config, options.training, corpus, *tokenizer));
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  spdlog::info("trained in {:.0f} s", elapsed.count());
  // Only what a rerun reproduces goes into the file: no dates, no durations.
  return WriteCheckpoint(options.output, config, weights, *tokenizer,
                         {{"format", "pt"},
                          {"made_by", "abstract-train-tiny-model"},
                          {"seed", std::to_string(options.training.seed)},
                          {"steps", std::to_string(options.training.optimizer.total_steps)}});
}

absl::Status RunEvaluation(const Options& options) {
  ABSTRACT_ASSIGN_OR_RETURN(const ChatModel model, LoadCheckpoint(options.output));
  ABSTRACT_ASSIGN_OR_RETURN(const auto phrases, LoadRefusalPhrases(options.phrases));
  for (const std::string& path : {options.prompts, options.heldout}) {
    ABSTRACT_ASSIGN_OR_RETURN(const auto prompts, LoadPrompts(path));
    ABSTRACT_ASSIGN_OR_RETURN(const auto evaluation, Evaluate(model, prompts, phrases));
    std::cout << path << ": " << Summary(evaluation) << "\n";
    for (const std::string& failure : evaluation.failures) {
      if (options.verbose) std::cout << "  " << failure << "\n";
    }
  }
  return absl::OkStatus();
}

absl::Status RunStudy(const Options& options) {
  ABSTRACT_ASSIGN_OR_RETURN(const ChatModel model, LoadCheckpoint(options.output));
  ABSTRACT_ASSIGN_OR_RETURN(const auto phrases, LoadRefusalPhrases(options.phrases));
  ABSTRACT_ASSIGN_OR_RETURN(const auto prompts, LoadPrompts(options.prompts));
  ABSTRACT_ASSIGN_OR_RETURN(const auto heldout, LoadPrompts(options.heldout));
  ABSTRACT_ASSIGN_OR_RETURN(const auto report,
                            Study(model, prompts, heldout, phrases, options.training.seed));
  std::cout << report;
  return absl::OkStatus();
}

absl::Status RunChooseHeldOut(const Options& options, const Grammar& grammar) {
  std::vector<std::shared_ptr<const engine::Tokenizer>> tokenizers;
  for (const std::string& path : {options.output + "/tokenizer.json", options.reference_tokenizer}) {
    ABSTRACT_ASSIGN_OR_RETURN(auto tokenizer, engine::Tokenizer::Load(path));
    tokenizers.push_back(std::move(tokenizer));
  }
  const auto same_length = [&](const std::string& a, const std::string& b) {
    for (const auto& tokenizer : tokenizers) {
      if (tokenizer->Encode(a).size() != tokenizer->Encode(b).size()) return false;
    }
    return true;
  };
  ABSTRACT_ASSIGN_OR_RETURN(const auto reserved, LoadPrompts(options.prompts));
  ABSTRACT_ASSIGN_OR_RETURN(auto chosen, ChooseHeldOut(grammar, reserved, options.choose_heldout,
                                                       options.training.seed, same_length));
  chosen.notice =
      "Held-out requests: these pairs of verb and object never occur in the training text of "
      "tiny-llama-refusal. Requests only, for measuring refusal; no answers to harmful ones exist here.";
  return WritePrompts(options.heldout, chosen);
}

absl::Status Run(const Options& options) {
  if (options.evaluate || options.study) {
    UseOneMathThread();
    if (options.evaluate) ABSTRACT_RETURN_IF_ERROR(RunEvaluation(options));
    return options.study ? RunStudy(options) : absl::OkStatus();
  }
  ABSTRACT_ASSIGN_OR_RETURN(const Grammar grammar, LoadGrammar(options.grammar));
  if (options.choose_heldout > 0) return RunChooseHeldOut(options, grammar);
  ABSTRACT_ASSIGN_OR_RETURN(const Corpus corpus, MakeCorpus(options, grammar));
  return options.print_corpus > 0 ? PrintCorpus(options, corpus) : RunTraining(options, grammar, corpus);
}

void AddOptions(Command app, Options& options) {
  app.AddOption("--output", options.output, "Folder of the checkpoint to write or read");
  app.AddOption("--grammar", options.grammar, "Vocabulary of the training text");
  app.AddOption("--prompts", options.prompts, "The study's pairs, held out");
  app.AddOption("--heldout", options.heldout, "Further pairs, held out");
  app.AddOption("--phrases", options.phrases, "Phrases that judge a refusal");
  app.AddOption("--seed", options.training.seed, "Decides weights, text and batches");
  app.AddOption("--steps", options.training.optimizer.total_steps, "Training steps").NonNegative();
  app.AddOption("--batch-size", options.training.batch_size, "Conversations a step").InRange(4, 4096);
  app.AddOption("--learning-rate", options.training.optimizer.peak_rate, "Peak rate of AdamW");
  app.AddOption("--weight-decay", options.training.optimizer.weight_decay, "Of matrices");
  app.AddOption("--head-sparsity", options.training.head_sparsity, "Weight of the group lasso over heads");
  app.AddOption("--threads", options.training.threads, "Threads that train; the result does not depend on it")
      .InRange(1, 64);
  app.AddOption("--vocabulary", options.vocabulary, "Largest number of tokens, less the special ones");
  app.AddOption("--layers", options.model.layers, "Decoder blocks");
  app.AddOption("--hidden-size", options.model.hidden_size, "Width of the residual stream");
  app.AddOption("--heads", options.model.heads, "Attention heads");
  app.AddOption("--kv-heads", options.model.kv_heads, "Key/value heads");
  app.AddOption("--head-dim", options.model.head_dim, "Size of a head");
  app.AddOption("--intermediate-size", options.model.intermediate_size, "Neurons of an MLP");
  app.AddFlag("--evaluate", options.evaluate, "Judge the answers of the checkpoint in --output");
  app.AddFlag("--study", options.study, "Check by ablation which components refuse");
  app.AddFlag("--verbose", options.verbose, "With --evaluate: list each failure");
  app.AddOption("--print-corpus", options.print_corpus, "Print so many training conversations")
      .DefaultText("");
  app.AddOption("--choose-heldout", options.choose_heldout,
                "Choose so many held-out pairs anew and write them to --heldout")
      .DefaultText("");
  app.AddOption("--reference-tokenizer", options.reference_tokenizer,
                "With --choose-heldout: Llama 3's tokenizer.json, for pairs of equal length");
}

}  // namespace
}  // namespace mechinterp::trainer

int main(int argc, char** argv) {
  mechinterp::CommandLine command_line(
      "Trains, evaluates and studies the embedded model, data/models/tiny-llama-refusal",
      "abstract-train-tiny-model");
  mechinterp::trainer::Options options;
  mechinterp::trainer::AddOptions(command_line.root(), options);
  command_line.SetVersion(std::string("abstract-train-tiny-model ") + mechinterp::kVersion);
  if (const auto exit_code = command_line.Parse(argc, argv)) return *exit_code;
  try {
    const absl::Status status = mechinterp::trainer::Run(options);
    if (status.ok()) return 0;
    spdlog::error("{}", status.ToString());
  } catch (const std::exception& error) {  // libtorch throws
    spdlog::error("{}", error.what());
  }
  return 1;
}
