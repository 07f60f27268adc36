#include "services/model/stored_run_file.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "services/common/status_macros.h"
#include "services/engine/checkpoint/content_hash.h"

namespace mechinterp {
namespace {

using engine::NumberFormat;
using Metadata = std::map<std::string, std::string, std::less<>>;  // as SafetensorsHeader has it

constexpr char kFormat[] = "abstract stored run 1";
constexpr char kSums[] = "sha256";
constexpr uint64_t kSumBytes = 64;
constexpr uint64_t kTailBytes = 2 * kSumBytes;
constexpr uint64_t kMaxHeaderBytes = 16 << 20;  // a prompt of a million tokens takes 7 MB
constexpr size_t kPieceBytes = 1 << 20;

absl::Status Damaged(absl::string_view what) { return absl::DataLossError(what); }

absl::Span<const std::byte> AsBytes(absl::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}
absl::Span<std::byte> WritableBytes(std::string& text) {
  return {reinterpret_cast<std::byte*>(text.data()), text.size()};
}
std::string SumOf(absl::string_view text) {
  engine::Sha256 sum;
  sum.Add(text.data(), text.size());
  return sum.Hex();
}

// Of all sites but those that have a key of their own.
constexpr char kPositions[] = "positions";
std::string PositionsKey(absl::string_view site) { return absl::StrCat(kPositions, " ", site); }

// "0-11 14".
std::string PositionsText(const std::vector<int>& positions) {
  std::string text;
  for (size_t i = 0; i < positions.size();) {
    size_t end = i + 1;
    while (end < positions.size() && positions[end] == positions[end - 1] + 1) ++end;
    absl::StrAppend(&text, text.empty() ? "" : " ", positions[i]);
    if (end > i + 1) absl::StrAppend(&text, "-", positions[end - 1]);
    i = end;
  }
  return text;
}

// Ascending, in [0, prompt_length).
std::optional<std::vector<int>> ParsePositions(absl::string_view text, int prompt_length) {
  std::vector<int> positions;
  for (const absl::string_view part : absl::StrSplit(text, ' ')) {
    const std::pair<absl::string_view, absl::string_view> range =
        absl::StrSplit(part, absl::MaxSplits('-', 1));
    int begin = 0, end = 0;
    if (!absl::SimpleAtoi(range.first, &begin)) return std::nullopt;
    end = begin;
    if (range.first.size() < part.size() && !absl::SimpleAtoi(range.second, &end)) return std::nullopt;
    const int least = positions.empty() ? 0 : positions.back() + 1;
    if (begin < least || end < begin || end >= prompt_length) return std::nullopt;
    for (int position = begin; position <= end; ++position) positions.push_back(position);
  }
  positions.shrink_to_fit();  // as RunFootprintBytes has it
  return positions;
}

std::optional<std::vector<engine::TokenId>> ParseTokens(absl::string_view text, int vocabulary_size) {
  std::vector<engine::TokenId> ids;
  for (const absl::string_view part : absl::StrSplit(text, ' ', absl::SkipEmpty())) {
    engine::TokenId id = 0;
    if (!absl::SimpleAtoi(part, &id) || id < 0 || id >= vocabulary_size) return std::nullopt;
    ids.push_back(id);
  }
  ids.shrink_to_fit();
  return ids;
}

// Null where there is none.
const std::string* Find(const Metadata& metadata, absl::string_view key) {
  const auto found = metadata.find({key.data(), key.size()});
  return found == metadata.end() ? nullptr : &found->second;
}

absl::StatusOr<std::string> Require(const Metadata& metadata, absl::string_view key) {
  if (const std::string* text = Find(metadata, key)) return *text;
  return Damaged(absl::StrCat("its metadata lacks '", key, "'"));
}

absl::StatusOr<int64_t> RequireNumber(const Metadata& metadata, absl::string_view key) {
  ABSTRACT_ASSIGN_OR_RETURN(const std::string text, Require(metadata, key));
  int64_t number = 0;
  if (!absl::SimpleAtoi(text, &number)) return Damaged(absl::StrCat("its '", key, "' is no number"));
  return number;
}

// Reads into `bytes`, and adds them to the sum while they are in the cache.
absl::Status ReadSummed(const ByteSource& source, uint64_t offset, absl::Span<std::byte> bytes,
                        engine::Sha256& sum) {
  while (!bytes.empty()) {
    const absl::Span<std::byte> piece = bytes.subspan(0, kPieceBytes);
    ABSTRACT_RETURN_IF_ERROR(source.read(offset, piece));
    sum.Add(piece.data(), piece.size());
    offset += piece.size();
    bytes.remove_prefix(piece.size());
  }
  return absl::OkStatus();
}

}  // namespace

struct StoredRunFormat::Header {
  std::string prologue;  // its length and its text
  std::string tail;      // both sums
  StoredRunInfo info;
  std::vector<std::vector<int>> positions;  // of each activation
};

StoredRunFormat::StoredRunFormat(const engine::ModelConfig& config, std::string serving_hash)
    : config_(config), serving_hash_(std::move(serving_hash)) {
  for (const engine::HookSite& site : engine::AllSites(config)) sites_[engine::SiteName(site)] = site;
}

absl::StatusOr<std::string> StoredRunFormat::Prologue(const StoredRunInfo& info,
                                                      const engine::RecordedRun& run,
                                                      uint64_t& file_bytes) const {
  std::map<std::string, std::string> metadata = {
      {"format", kFormat},
      {"handle", info.handle},
      {"owner", absl::CHexEscape(info.owner)},  // any bytes; metadata is UTF-8
      {"serving_hash", serving_hash_},
      {"create_time_ns", absl::StrCat(absl::ToUnixNanos(info.create_time))},
      {"time_to_live_ns", absl::StrCat(absl::ToInt64Nanoseconds(info.time_to_live))},
      {"prompt_token_ids", absl::StrJoin(info.prompt.ids, " ")},
  };
  if (info.prompt.last_instruction_position) {
    metadata["last_instruction_position"] = absl::StrCat(*info.prompt.last_instruction_position);
  }
  std::vector<engine::TensorSource> tensors;
  file_bytes = kTailBytes;
  for (const auto& [site, recorded] : run.activations) {
    const std::string name = engine::SiteName(site);
    if (&recorded == &run.activations.begin()->second) {
      metadata[kPositions] = PositionsText(recorded.positions);
    } else if (recorded.positions != run.activations.begin()->second.positions) {
      metadata[PositionsKey(name)] = PositionsText(recorded.positions);
    }
    tensors.push_back({name, NumberFormat::kFloat32, recorded.values.shape, nullptr});
    file_bytes += recorded.values.values.size() * sizeof(float);
  }
  tensors.push_back({kSums, NumberFormat::kUint8, {2, kSumBytes}, nullptr});
  ABSTRACT_ASSIGN_OR_RETURN(std::string prologue, engine::SafetensorsPrologue(tensors, metadata));
  if (prologue.size() > kMaxHeaderBytes) {
    return absl::InvalidArgumentError(absl::StrCat("its header would take ", prologue.size(), " bytes"));
  }
  file_bytes += prologue.size();
  return prologue;
}

absl::Status StoredRunFormat::Write(absl::string_view prologue, const engine::RecordedRun& run,
                                    const engine::ByteSink& sink) {
  engine::Sha256 sum;
  const auto write = [&](absl::string_view bytes) {
    sum.Add(bytes.data(), bytes.size());
    return sink(AsBytes(bytes));
  };
  ABSTRACT_RETURN_IF_ERROR(write(prologue));
  for (const auto& [site, recorded] : run.activations) {
    absl::string_view bytes(reinterpret_cast<const char*>(recorded.values.values.data()),
                            recorded.values.values.size() * sizeof(float));
    for (; !bytes.empty(); bytes.remove_prefix(std::min(bytes.size(), kPieceBytes))) {
      ABSTRACT_RETURN_IF_ERROR(write(bytes.substr(0, kPieceBytes)));
    }
  }
  ABSTRACT_RETURN_IF_ERROR(write(SumOf(prologue)));
  return sink(AsBytes(sum.Hex()));
}

absl::StatusOr<StoredRunFormat::Header> StoredRunFormat::ReadBytes(const ByteSource& source) {
  Header header;
  uint64_t length = 0;
  if (source.size < sizeof(length) + kTailBytes) {
    return Damaged(absl::StrCat("it is only ", source.size, " bytes long"));
  }
  header.tail.resize(kTailBytes);
  ABSTRACT_RETURN_IF_ERROR(source.read(source.size - kTailBytes, WritableBytes(header.tail)));
  ABSTRACT_RETURN_IF_ERROR(source.read(0, {reinterpret_cast<std::byte*>(&length), sizeof(length)}));
  if (length > kMaxHeaderBytes || length > source.size - kTailBytes - sizeof(length)) {
    return Damaged(absl::StrCat("header length ", length, " in a file of ", source.size, " bytes"));
  }
  header.prologue.resize(sizeof(length) + length);
  ABSTRACT_RETURN_IF_ERROR(source.read(0, WritableBytes(header.prologue)));
  if (SumOf(header.prologue) != header.tail.substr(0, kSumBytes)) {
    return Damaged("its header does not have the checksum that it should have");
  }
  return header;
}

absl::Status StoredRunFormat::ReadMetadata(const Metadata& metadata, StoredRunInfo& info) const {
  ABSTRACT_ASSIGN_OR_RETURN(const std::string format, Require(metadata, "format"));
  if (format != kFormat) return absl::FailedPreconditionError("it is of another version");
  ABSTRACT_ASSIGN_OR_RETURN(const std::string serving_hash, Require(metadata, "serving_hash"));
  if (serving_hash != serving_hash_) return absl::FailedPreconditionError("it is of another model");
  ABSTRACT_ASSIGN_OR_RETURN(info.handle, Require(metadata, "handle"));
  ABSTRACT_ASSIGN_OR_RETURN(const std::string owner, Require(metadata, "owner"));
  if (!absl::CUnescape(owner, &info.owner)) return Damaged("its owner cannot be read");
  ABSTRACT_ASSIGN_OR_RETURN(const int64_t create_time, RequireNumber(metadata, "create_time_ns"));
  ABSTRACT_ASSIGN_OR_RETURN(const int64_t time_to_live, RequireNumber(metadata, "time_to_live_ns"));
  info.create_time = absl::FromUnixNanos(create_time);
  info.time_to_live = absl::Nanoseconds(time_to_live);
  ABSTRACT_ASSIGN_OR_RETURN(const std::string ids, Require(metadata, "prompt_token_ids"));
  auto tokens = ParseTokens(ids, config_.vocabulary_size);
  if (!tokens) return Damaged("its prompt has tokens that the model does not have");
  info.prompt.ids = *std::move(tokens);
  if (Find(metadata, "last_instruction_position") != nullptr) {
    ABSTRACT_ASSIGN_OR_RETURN(const int64_t position, RequireNumber(metadata, "last_instruction_position"));
    if (position < 0 || position >= info.prompt.length()) return Damaged("it has an impossible position");
    info.prompt.last_instruction_position = static_cast<int>(position);
  }
  return absl::OkStatus();
}

// Adds the activation of this name to the header.
absl::Status StoredRunFormat::ReadActivation(const std::string& name,
                                             const engine::SafetensorsHeader::Entry& entry,
                                             const Metadata& metadata, Header& header) const {
  const auto fault = [&](absl::string_view what) {
    return Damaged(absl::StrCat("tensor '", absl::CHexEscape(name), "' ", what));
  };
  const auto site = sites_.find(name);
  if (site == sites_.end()) return fault("is of no hook point of the model");
  const std::string* positions_text = Find(metadata, PositionsKey(name));
  if (positions_text == nullptr) positions_text = Find(metadata, kPositions);
  if (positions_text == nullptr) return fault("lacks positions");
  auto positions = ParsePositions(*positions_text, header.info.prompt.length());
  if (!positions) return fault("has impossible positions");
  const engine::SiteShape shape = engine::ShapeOf(site->second.point, config_);
  const std::array<int64_t, 3> expected = {
      static_cast<int64_t>(positions->size()), shape.heads,
      shape.width == engine::kWidthIsKeys ? header.info.prompt.length() : shape.width};
  uint64_t bytes = sizeof(float);
  for (const int64_t dim : expected) {
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(dim), &bytes)) return fault("is too large");
  }
  if (entry.dtype != NumberFormat::kFloat32 || bytes != entry.end - entry.begin ||
      !std::equal(entry.shape.begin(), entry.shape.end(), expected.begin(), expected.end())) {
    return fault("has not the shape that its hook point has");
  }
  auto& activations = header.info.activations;
  if (!activations.empty() && !(activations.back().site < site->second)) return fault("is out of order");
  activations.push_back({site->second, expected});
  header.positions.push_back(*std::move(positions));
  return absl::OkStatus();
}

absl::Status StoredRunFormat::ReadTensors(const engine::SafetensorsHeader& parsed, uint64_t data_bytes,
                                          Header& header) const {
  using Entry = engine::SafetensorsHeader::Entry;
  std::vector<std::pair<const std::string*, const Entry*>> tensors;
  for (const auto& [name, entry] : parsed.tensors) tensors.emplace_back(&name, &entry);
  std::sort(tensors.begin(), tensors.end(),
            [](const auto& a, const auto& b) { return a.second->begin < b.second->begin; });
  uint64_t filled = 0;
  for (const auto& [name, entry] : tensors) {
    if (entry->begin != filled || entry->end <= entry->begin) return Damaged("its tensors do not fill it");
    filled = entry->end;
    if (*name == kSums) continue;
    ABSTRACT_RETURN_IF_ERROR(ReadActivation(*name, *entry, parsed.metadata, header));
  }
  const bool ends_in_sums = !tensors.empty() && *tensors.back().first == kSums &&
                            tensors.back().second->end - tensors.back().second->begin == kTailBytes;
  if (!ends_in_sums || filled != data_bytes) {
    return Damaged("its tensors do not fill it");
  }
  return absl::OkStatus();
}

absl::StatusOr<StoredRunFormat::Header> StoredRunFormat::ReadHeader(const ByteSource& source) const {
  ABSTRACT_ASSIGN_OR_RETURN(Header header, ReadBytes(source));
  const absl::StatusOr<engine::SafetensorsHeader> parsed =
      engine::ParseSafetensorsHeader(absl::string_view(header.prologue).substr(sizeof(uint64_t)), "the file");
  if (!parsed.ok()) return Damaged(parsed.status().message());
  ABSTRACT_RETURN_IF_ERROR(ReadMetadata(parsed->metadata, header.info));
  ABSTRACT_RETURN_IF_ERROR(ReadTensors(*parsed, source.size - header.prologue.size(), header));
  return header;
}

absl::StatusOr<StoredRunInfo> StoredRunFormat::ReadInfo(const ByteSource& source) const {
  ABSTRACT_ASSIGN_OR_RETURN(Header header, ReadHeader(source));
  return std::move(header.info);
}

absl::StatusOr<engine::RecordedRun> StoredRunFormat::ReadRun(const ByteSource& source,
                                                             const StoredRunInfo& expected) const {
  ABSTRACT_ASSIGN_OR_RETURN(Header header, ReadHeader(source));
  const StoredRunInfo& info = header.info;
  if (info.handle != expected.handle || info.owner != expected.owner ||
      info.prompt.ids != expected.prompt.ids || info.activations != expected.activations) {
    return Damaged("it is another run's");
  }
  engine::RecordedRun run;
  run.prompt = info.prompt;
  engine::Sha256 sum;
  sum.Add(header.prologue);
  uint64_t offset = header.prologue.size();
  for (size_t i = 0; i < info.activations.size(); ++i) {
    const auto& [site, shape] = info.activations[i];
    engine::RecordedActivation& recorded = run.activations[site];
    recorded.positions = std::move(header.positions[i]);
    recorded.values.shape.assign(shape.begin(), shape.end());
    recorded.values.values.resize(shape[0] * shape[1] * shape[2]);
    const size_t bytes = recorded.values.values.size() * sizeof(float);
    ABSTRACT_RETURN_IF_ERROR(ReadSummed(
        source, offset, {reinterpret_cast<std::byte*>(recorded.values.values.data()), bytes}, sum));
    offset += bytes;
  }
  sum.Add(header.tail.substr(0, kSumBytes));
  if (sum.Hex() != header.tail.substr(kSumBytes)) {
    return Damaged("its values do not have the checksum that they should have");
  }
  return run;
}

}  // namespace mechinterp
