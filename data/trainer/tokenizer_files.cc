#include <string>
#include <vector>

#include "data/trainer/bpe_trainer.h"
#include "services/common/json_file.h"
#include "services/common/status_macros.h"

namespace mechinterp::trainer {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kSpecialTokens[] = {"<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>",
                                          "<|end_header_id|>", "<|eot_id|>"};

// As in Llama 3's tokenizer_config.json.
constexpr char kChatTemplate[] =
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ "
    "message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}";

Json ByteLevel(bool add_prefix_space, bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", add_prefix_space},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

// Encoding with special tokens puts <|begin_of_text|> before the text.
Json BeginOfTextTemplate(int64_t bos_id) {
  const Json bos = {{"SpecialToken", {{"id", kSpecialTokens[0]}, {"type_id", 0}}}};
  const Json first = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const Json second_bos = {{"SpecialToken", {{"id", kSpecialTokens[0]}, {"type_id", 1}}}};
  const Json second = {{"Sequence", {{"id", "B"}, {"type_id", 1}}}};
  const Json token = {{"id", kSpecialTokens[0]},
                      {"ids", Json::array({bos_id})},
                      {"tokens", Json::array({kSpecialTokens[0]})}};
  return {{"type", "TemplateProcessing"},
          {"single", Json::array({bos, first})},
          {"pair", Json::array({bos, first, second_bos, second})},
          {"special_tokens", {{kSpecialTokens[0], token}}}};
}

Json AddedToken(const char* content) {
  return {{"content", content}, {"single_word", false}, {"lstrip", false},
          {"rstrip", false},    {"normalized", false},  {"special", true}};
}

Json TokenizerJson(const BpeVocabulary& vocabulary) {
  const int64_t first_special = static_cast<int64_t>(vocabulary.tokens.size());
  Json added = Json::array();
  for (int64_t i = 0; i < static_cast<int64_t>(std::size(kSpecialTokens)); ++i) {
    Json token = {{"id", first_special + i}};
    token.update(AddedToken(kSpecialTokens[i]));
    added.push_back(std::move(token));
  }
  Json ids = Json::object();
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) ids[vocabulary.tokens[id]] = id;
  Json merges = Json::array();
  for (const auto& [left, right] : vocabulary.merges) merges.push_back(left + " " + right);
  const Json split = {{"type", "Split"},
                      {"pattern", {{"Regex", kLlama3SplitPattern}}},
                      {"behavior", "Isolated"},
                      {"invert", false}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", std::move(added)},
          {"normalizer", nullptr},
          {"pre_tokenizer",
           {{"type", "Sequence"}, {"pretokenizers", Json::array({split, ByteLevel(false, false)})}}},
          {"post_processor", BeginOfTextTemplate(first_special)},
          {"decoder", ByteLevel(true, true)},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", true},
            {"vocab", std::move(ids)},
            {"merges", std::move(merges)}}}};
}

Json TokenizerConfigJson(const BpeVocabulary& vocabulary) {
  Json decoder = Json::object();
  for (size_t i = 0; i < std::size(kSpecialTokens); ++i) {
    decoder[std::to_string(vocabulary.tokens.size() + i)] = AddedToken(kSpecialTokens[i]);
  }
  return {{"added_tokens_decoder", std::move(decoder)},
          {"bos_token", "<|begin_of_text|>"},
          {"chat_template", kChatTemplate},
          {"clean_up_tokenization_spaces", false},
          {"eos_token", "<|eot_id|>"},
          {"model_input_names", {"input_ids", "attention_mask"}},
          {"model_max_length", 512},
          {"tokenizer_class", "PreTrainedTokenizerFast"}};
}

}  // namespace

absl::Status WriteTokenizerFiles(const std::string& folder, const BpeVocabulary& vocabulary) {
  ABSTRACT_RETURN_IF_ERROR(WriteJsonFile(folder + "/tokenizer.json", TokenizerJson(vocabulary), 1));
  ABSTRACT_RETURN_IF_ERROR(WriteJsonFile(folder + "/tokenizer_config.json", TokenizerConfigJson(vocabulary)));
  return WriteJsonFile(folder + "/special_tokens_map.json",
                       {{"bos_token", "<|begin_of_text|>"}, {"eos_token", "<|eot_id|>"}});
}

}  // namespace mechinterp::trainer
