#ifndef SERVICES_MODEL_STORED_RUN_FILE_H_
#define SERVICES_MODEL_STORED_RUN_FILE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "services/engine/checkpoint/model_config.h"
#include "services/engine/checkpoint/safetensors_header.h"
#include "services/engine/checkpoint/safetensors_writer.h"
#include "services/model/stored_run.h"

namespace mechinterp {

// A file that is being read: its length when it was opened, and its bytes from `offset` on, all
// of them or an error.
struct ByteSource {
  uint64_t size = 0;
  std::function<absl::Status(uint64_t offset, absl::Span<std::byte> bytes)> read;
};

// How a stored run lies in a file: safetensors, with a tensor F32 [positions, heads, width] for
// each site, by the site's name, and the rest in the metadata, as text. The last tensor,
// `sha256` U8 [2, 64], holds two sums in hexadecimal digits: of the header, and of all bytes of
// the file before that sum. So a file is known to be whole by itself, and its header without
// reading the rest.
//
// Reading trusts nothing: no size, shape, position or token that the model does not have gets
// through, and what a file takes of memory is bounded by its length. Errors: DataLoss, saying
// what is wrong; FailedPrecondition when it is of another model; and the source's own.
// Immutable; thread-safe.
class StoredRunFormat {
 public:
  StoredRunFormat(const engine::ModelConfig& config, std::string serving_hash);

  // The beginning of the run's file, and how long the whole is. InvalidArgument when no file holds it.
  absl::StatusOr<std::string> Prologue(const StoredRunInfo& info, const engine::RecordedRun& run,
                                       uint64_t& file_bytes) const;
  // Hands the whole file to the sink, in order. Errors are the sink's.
  static absl::Status Write(absl::string_view prologue, const engine::RecordedRun& run,
                            const engine::ByteSink& sink);

  // By the header alone, whose sum is verified.
  absl::StatusOr<StoredRunInfo> ReadInfo(const ByteSource& source) const;
  // The run that the index knows as `expected`, bit for bit; DataLoss when it is another.
  absl::StatusOr<engine::RecordedRun> ReadRun(const ByteSource& source, const StoredRunInfo& expected) const;

 private:
  using Metadata = std::map<std::string, std::string, std::less<>>;
  struct Header;

  // The bytes of the header, verified; and what they say.
  static absl::StatusOr<Header> ReadBytes(const ByteSource& source);
  absl::StatusOr<Header> ReadHeader(const ByteSource& source) const;
  absl::Status ReadMetadata(const Metadata& metadata, StoredRunInfo& info) const;
  absl::Status ReadTensors(const engine::SafetensorsHeader& parsed, uint64_t data_bytes,
                           Header& header) const;
  absl::Status ReadActivation(const std::string& name, const engine::SafetensorsHeader::Entry& entry,
                              const Metadata& metadata, Header& header) const;

  const engine::ModelConfig config_;
  const std::string serving_hash_;
  std::map<std::string, engine::HookSite, std::less<>> sites_;  // by name
};

}  // namespace mechinterp

#endif  // SERVICES_MODEL_STORED_RUN_FILE_H_
