#include "services/engine/operations/edge_attribution.h"

#include <algorithm>

#include "services/engine/kernels/matrix.h"
#include "services/engine/kernels/multiply.h"
#include "services/engine/kernels/parallel.h"

namespace mechinterp::engine {
namespace {

// Row `position` of a head in an activation [T, heads, width].
const float* RowOf(const RecordedActivation& activation, int64_t position, int head) {
  const auto& shape = activation.values.shape;
  return activation.values.values.data() + (position * shape[1] + head) * shape[2];
}

}  // namespace

// Position by position: the senders' changes are the rows of a matrix, which the receivers'
// gradients are multiplied by.
std::vector<std::vector<float>> EdgeScores(const ModelConfig& config, const Activations& clean,
                                           const Activations& source, const Activations& gradients) {
  const std::vector<Sender> senders = Senders(config);
  const std::vector<Receiver> receivers = Receivers(config);
  const int64_t d = config.d_model, length = clean.at({HookPoint::kEmbed, 0}).values.shape[0],
                offset = source.at({HookPoint::kEmbed, 0}).values.shape[0] - length;
  kernels::PackedMatrix changes = kernels::EmptyMatrix(NumberFormat::kFloat32, NumberFormat::kFloat32,
                                                       static_cast<int64_t>(senders.size()), d);
  kernels::Allocate(changes);
  std::vector<std::vector<float>> scores;
  for (const Receiver& receiver : receivers) scores.emplace_back(SenderCount(receiver, config));
  std::vector<float> product(senders.size());
  for (int64_t t = std::max<int64_t>(0, -offset); t < length; ++t) {
    kernels::ParallelFor(0, changes.panels(), 1, [&](int64_t begin, int64_t end) {
      std::vector<float> rows(kernels::kPanelOutputs * d);
      for (int64_t panel = begin; panel < end; ++panel) {
        const int64_t first = panel * kernels::kPanelOutputs;
        const int64_t count = std::min<int64_t>(kernels::kPanelOutputs, changes.out - first);
        for (int64_t i = 0; i < count; ++i) {
          const Sender& sender = senders[first + i];
          const float* before = RowOf(clean.at(SiteOf(sender)), t, sender.head);
          const float* after = RowOf(source.at(SiteOf(sender)), t + offset, sender.head);
          for (int64_t j = 0; j < d; ++j) rows[i * d + j] = after[j] - before[j];
        }
        kernels::PackPanel(changes, panel, rows.data());
      }
    });
    // Receivers of one point and layer have one count of senders and lie together.
    for (size_t r = 0; r < receivers.size();) {
      const HookSite site = SiteOf(receivers[r], config);
      const auto count = static_cast<int64_t>(scores[r].size());
      const int64_t heads = ShapeOf(site.point, config).heads;
      product.resize(heads * count);
      const kernels::Product all{&changes, product.data(), {0, count}};
      kernels::MultiplyEach(RowOf(gradients.at(site), t, 0), heads, std::span(&all, 1));
      for (int64_t head = 0; head < heads; ++head, ++r) {
        for (int64_t s = 0; s < count; ++s) scores[r][s] += product[head * count + s];
      }
    }
  }
  return scores;
}

int64_t EdgeScoresBytes(const ModelConfig& config) {
  const auto senders = static_cast<int64_t>(Senders(config).size());
  int64_t edges = 0;
  for (const Receiver& receiver : Receivers(config)) edges += SenderCount(receiver, config);
  const int64_t rows = kernels::ThreadCount() * kernels::kPanelOutputs * int64_t{config.d_model};
  return kernels::PackedBytes(NumberFormat::kFloat32, senders, config.d_model) +
         (edges + rows + senders * config.head_count) * static_cast<int64_t>(sizeof(float));
}

}  // namespace mechinterp::engine
