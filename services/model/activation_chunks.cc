#include "services/model/activation_chunks.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/types/span.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
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

// How a field of bytes or of a message begins: protobuf's encoding, wire type LEN.
void WriteStartOf(int field, size_t bytes, google::protobuf::io::CodedOutputStream& out) {
  constexpr uint32_t kLengthDelimited = 2;
  out.WriteTag(static_cast<uint32_t>(field) << 3 | kLengthDelimited);
  out.WriteVarint64(bytes);
}

// `chunk` has all its fields but `data`.
grpc::ByteBuffer MessageOf(const v1::ActivationChunk& chunk, const grpc::Slice& data, int chunk_field) {
  using google::protobuf::io::CodedOutputStream;
  using google::protobuf::io::StringOutputStream;
  std::string fields;
  {
    StringOutputStream stream(&fields);
    CodedOutputStream out(&stream);
    chunk.SerializeToCodedStream(&out);
    WriteStartOf(v1::ActivationChunk::kDataFieldNumber, data.size(), out);
  }
  std::string start;
  {
    StringOutputStream stream(&start);
    CodedOutputStream out(&stream);
    WriteStartOf(chunk_field, fields.size() + data.size(), out);
  }
  const grpc::Slice slices[] = {grpc::Slice(start + fields), data};
  return grpc::ByteBuffer(slices, std::size(slices));
}

// The chunk of an activation that begins with the value at `offset`; `count` becomes how many it has.
grpc::ByteBuffer ChunkAt(uint32_t index, const std::vector<float>& values, size_t offset, v1::DataType type,
                         int chunk_field, size_t& count) {
  const size_t element = ElementBytes(type).value();
  count = std::min(kPieceBytes / element, values.size() - offset);
  const size_t bytes = count * element;
  auto encoded = std::make_unique_for_overwrite<char[]>(bytes);
  EncodeValues(absl::MakeConstSpan(values).subspan(offset, count), type, encoded.get());
  v1::ActivationChunk chunk;
  chunk.set_activation_index(index);
  chunk.set_offset_bytes(offset * element);
  chunk.set_crc32(Crc32({encoded.get(), bytes}));
  const grpc::Slice data(encoded.release(), bytes, [](void* text) { delete[] static_cast<char*>(text); });
  return MessageOf(chunk, data, chunk_field);
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

void ForEachChunkOf(uint32_t index, const std::vector<float>& values, int chunk_field,
                    const std::function<bool(grpc::ByteBuffer message)>& write) {
  size_t count = 0;
  for (size_t offset = 0; offset < values.size(); offset += count) {
    if (!write(ChunkAt(index, values, offset, v1::DATA_TYPE_FLOAT32, chunk_field, count))) return;
  }
}

ChunkReader::ChunkReader(const engine::ModelConfig& config, std::shared_ptr<const engine::RecordedRun> run,
                         v1::DataType type, int chunk_field)
    : config_(config),
      run_(std::move(run)),
      type_(type),
      chunk_field_(chunk_field),
      sites_(OrderedSites(config, *run_)) {
  Open();
}

void ChunkReader::Open() {
  offset_ = 0;
  if (index_ == sites_.size()) return;
  const engine::HookSite& site = sites_[index_];
  values_ = &engine::InPublicOrder(site.point, run_->activations.at(site), room_);
}

std::optional<grpc::ByteBuffer> ChunkReader::Next() {
  while (index_ < sites_.size() && offset_ == values_->size()) {
    ++index_;
    Open();
  }
  if (index_ == sites_.size()) return std::nullopt;
  size_t count = 0;
  grpc::ByteBuffer message =
      ChunkAt(static_cast<uint32_t>(index_), *values_, offset_, type_, chunk_field_, count);
  offset_ += count;
  return message;
}

}  // namespace mechinterp
