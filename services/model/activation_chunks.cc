#include "services/model/activation_chunks.h"

#include <algorithm>
#include <utility>

#include "absl/types/span.h"
#include "services/common/paging.h"
#include "services/common/tensor_bytes.h"
#include "services/engine/operations/cached_run.h"
#include "services/model/response_building.h"

namespace mechinterp {
namespace {

// The forward pass's order: by layer, then by point; points without a layer
// before or after all layers.
std::vector<engine::HookSite> OrderedSites(const engine::ModelConfig& config,
                                           const engine::RecordedRun& run) {
  std::vector<engine::HookSite> sites;
  for (const engine::HookSite& site : engine::AllSites(config)) {
    if (run.activations.count(site) > 0) sites.push_back(site);
  }
  return sites;
}

// The chunk of an activation that begins with the value at `offset`; `count` becomes how many it has.
v1::ActivationChunk ChunkAt(uint32_t index, const std::vector<float>& values, size_t offset,
                            v1::DataType type, size_t& count) {
  const size_t element = ElementBytes(type).value();
  count = std::min(kPieceBytes / element, values.size() - offset);
  v1::ActivationChunk chunk;
  chunk.set_activation_index(index);
  chunk.set_offset_bytes(offset * element);
  EncodeValues(absl::MakeConstSpan(values).subspan(offset, count), type, *chunk.mutable_data());
  chunk.set_crc32(Crc32(chunk.data()));
  return chunk;
}

}  // namespace

v1::RunHeader BuildActivationHeader(const engine::Model& model, const std::string& self_check_id,
                                    const engine::RecordedRun& run, v1::DataType type) {
  v1::RunHeader header;
  *header.mutable_model() = BuildIdentity(model, self_check_id);
  for (engine::TokenId id : run.prompt.ids) header.add_prompt_token_ids(id);
  for (const engine::HookSite& site : OrderedSites(model.config(), run)) {
    const std::vector<int64_t>& shape = run.activations.at(site).values.shape;
    *header.add_activations() =
        BuildActivationInfo(site, engine::PublicShape(site.point, model.config(), shape[0], shape[2]), type);
  }
  return header;
}

void ForEachChunkOf(uint32_t index, const std::vector<float>& values,
                    const std::function<bool(v1::ActivationChunk chunk)>& write) {
  size_t count = 0;
  for (size_t offset = 0; offset < values.size(); offset += count) {
    if (!write(ChunkAt(index, values, offset, v1::DATA_TYPE_FLOAT32, count))) return;
  }
}

ChunkReader::ChunkReader(const engine::ModelConfig& config, std::shared_ptr<const engine::RecordedRun> run,
                         v1::DataType type)
    : config_(config), run_(std::move(run)), type_(type), sites_(OrderedSites(config, *run_)) {
  Open();
}

void ChunkReader::Open() {
  offset_ = 0;
  if (index_ == sites_.size()) return;
  const engine::HookSite& site = sites_[index_];
  values_ = &engine::InPublicOrder(site.point, run_->activations.at(site), room_);
}

std::optional<v1::ActivationChunk> ChunkReader::Next() {
  while (index_ < sites_.size() && offset_ == values_->size()) {
    ++index_;
    Open();
  }
  if (index_ == sites_.size()) return std::nullopt;
  size_t count = 0;
  v1::ActivationChunk chunk = ChunkAt(static_cast<uint32_t>(index_), *values_, offset_, type_, count);
  offset_ += count;
  return chunk;
}

}  // namespace mechinterp
