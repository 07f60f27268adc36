#include "clients/lib/activation_reader.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/tensor_bytes.h"

namespace mechinterp {

absl::Status ActivationReader::Begin(const v1::RunHeader& header) {
  run_ = CachedRun();
  run_.header = header;
  ended_ = false;
  received_bytes_.assign(static_cast<size_t>(header.activations_size()), 0);
  if (stored_) return absl::OkStatus();
  for (const v1::ActivationInfo& info : header.activations()) {
    const std::optional<size_t> element = ElementBytes(info.data_type());
    if (!element || info.byte_count() % *element != 0) {
      return absl::DataLossError(absl::StrCat(info.name(), ": the server sends ", info.byte_count(),
                                              " bytes of type ", info.data_type()));
    }
    run_.activations.push_back({info, std::vector<float>(info.byte_count() / *element)});
  }
  return absl::OkStatus();
}

absl::Status ActivationReader::Add(const v1::ActivationChunk& chunk) {
  if (chunk.activation_index() >= run_.activations.size()) {
    return absl::DataLossError(absl::StrCat("a chunk of activation ", chunk.activation_index(), ", of ",
                                            run_.activations.size(), " announced"));
  }
  Activation& activation = run_.activations[chunk.activation_index()];
  const uint64_t byte_count = activation.info.byte_count();
  if (chunk.offset_bytes() > byte_count || chunk.data().size() > byte_count - chunk.offset_bytes()) {
    return absl::DataLossError(absl::StrCat(activation.info.name(), ": a chunk lies outside the activation"));
  }
  const size_t element = ElementBytes(activation.info.data_type()).value();
  if (chunk.offset_bytes() % element != 0 || chunk.data().size() % element != 0) {
    return absl::DataLossError(absl::StrCat(activation.info.name(), ": a chunk cuts a value"));
  }
  if (chunk.has_crc32() && chunk.crc32() != Crc32(chunk.data())) {
    return absl::DataLossError(absl::StrCat(activation.info.name(), ": the chunk at byte ",
                                            chunk.offset_bytes(), " was damaged on its way"));
  }
  DecodeValues(chunk.data(), activation.info.data_type(),
               activation.values.data() + chunk.offset_bytes() / element);
  received_bytes_[chunk.activation_index()] += chunk.data().size();
  return absl::OkStatus();
}

absl::Status ActivationReader::End(const v1::RunSummary& summary) {
  run_.summary = summary;
  ended_ = true;
  return absl::OkStatus();
}

absl::StatusOr<CachedRun> ActivationReader::Finish() && {
  if (!ended_) return absl::DataLossError("the stream ended without a summary");
  for (size_t i = 0; i < run_.activations.size(); ++i) {
    const v1::ActivationInfo& info = run_.activations[i].info;
    if (received_bytes_[i] != info.byte_count()) {
      return absl::DataLossError(
          absl::StrCat(info.name(), ": ", received_bytes_[i], " of ", info.byte_count(), " bytes came"));
    }
  }
  return std::move(run_);
}

}  // namespace mechinterp
