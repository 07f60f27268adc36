#include "services/engine/interventions/sweep_grid.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"

namespace mechinterp::engine {
namespace {

// More runs than this in one request are a mistake, not a sweep.
constexpr size_t kMaxSets = 1'000'000;

// The choices on one axis of one site.
std::vector<std::optional<int>> Choices(bool split, const std::vector<int>& values) {
  if (!split) return {std::nullopt};
  return {values.begin(), values.end()};
}

template <typename Value>
std::vector<Value> AscendingOnce(std::vector<Value> values) {
  std::sort(values.begin(), values.end());
  values.erase(std::unique(values.begin(), values.end()), values.end());
  return values;
}

std::vector<int> SelectedOrAll(const std::vector<int>& selected, int count) {
  if (!selected.empty()) return AscendingOnce(selected);
  std::vector<int> all(count);
  std::iota(all.begin(), all.end(), 0);
  return all;
}

// Ends of groups of at most `size` neighbours, as indices in ascending `dims`.
std::vector<size_t> GroupEnds(const std::vector<int>& dims, size_t size) {
  std::vector<size_t> ends;
  size_t begin = 0;
  for (size_t i = 0; i < dims.size(); ++i) {
    const bool neighbour_follows = i + 1 < dims.size() && dims[i + 1] == dims[i] + 1;
    if (neighbour_follows && i + 1 - begin < size) continue;
    begin = i + 1;
    ends.push_back(begin);
  }
  return ends;
}

class Expansion {
 public:
  Expansion(const SweepGrid& grid, const ModelConfig& config, const TokenizedPrompt& prompt)
      : grid_(grid), config_(config), prompt_(prompt) {}

  // False, and nothing is added, where there would be more than kMaxSets.
  bool AddSite(const HookSite& site, const std::vector<int>& selected_positions, bool only_count) {
    const SiteShape shape = ShapeOf(site.point, config_);
    const int width = shape.width == kWidthIsKeys ? prompt_.length() : shape.width;
    const auto positions = Choices(grid_.split_positions, selected_positions);
    const auto heads = Choices(grid_.split_heads, SelectedOrAll(grid_.prototype.selector.heads, shape.heads));
    const std::vector<int> dims = SelectedOrAll(grid_.prototype.selector.dims, width);
    // Without groups, one with no dims of its own.
    const std::vector<size_t> ends =
        grid_.dims_per_group == 0 ? std::vector<size_t>{0} : GroupEnds(dims, grid_.dims_per_group);
    const double count = static_cast<double>(positions.size()) * heads.size() * ends.size();
    if (static_cast<double>(count_) + count > kMaxSets) return false;
    count_ += static_cast<int64_t>(count);
    if (only_count) return true;
    for (std::optional<int> position : positions) {
      for (std::optional<int> head : heads) {
        for (size_t i = 0; i < ends.size(); ++i)
          Add(site, position, head, dims, i == 0 ? 0 : ends[i - 1], ends[i]);
      }
    }
    return true;
  }

  int64_t count() const { return count_; }
  ExpandedGrid Take() { return std::move(expanded_); }

 private:
  void Add(const HookSite& site, std::optional<int> position, std::optional<int> head,
           const std::vector<int>& dims, size_t begin, size_t end) {
    Intervention member = grid_.prototype;
    member.site = site;
    SweepSite touched{site, position, head, std::nullopt, std::nullopt};
    if (position) {
      const bool from_end = grid_.prototype.selector.positions.counts_from_end();
      member.selector.positions = {};
      member.selector.positions.indices = {from_end ? *position - prompt_.length() : *position};
    }
    if (head) member.selector.heads = {*head};
    if (begin < end) {
      member.selector.dims.assign(dims.begin() + begin, dims.begin() + end);
      touched.dim_begin = dims[begin];
      touched.dim_end = dims[end - 1] + 1;
    }
    expanded_.sets.push_back({std::move(member)});
    expanded_.sites.push_back(touched);
  }

  const SweepGrid& grid_;
  const ModelConfig& config_;
  const TokenizedPrompt& prompt_;
  ExpandedGrid expanded_;
  int64_t count_ = 0;
};

int64_t BytesOf(const ActivationSource& source) {
  const HostTensor* tensor = std::get_if<HostTensor>(&source.origin);
  return tensor == nullptr ? 0 : static_cast<int64_t>(tensor->values.size() * sizeof(float));
}

int64_t BytesOf(const std::vector<ActivationSource>& sources) {
  int64_t bytes = 0;
  for (const ActivationSource& source : sources) bytes += BytesOf(source);
  return bytes;
}

// Of what an edit brings along.
int64_t BytesOf(const Edit& edit) {
  return std::visit(
      [](const auto& one) -> int64_t {
        int64_t bytes = 0;
        if constexpr (requires { one.source; }) bytes += BytesOf(one.source);
        if constexpr (requires { one.sources; }) bytes += BytesOf(one.sources);
        if constexpr (requires { one.vector; })
          bytes += static_cast<int64_t>(one.vector.values.size() * sizeof(float));
        if constexpr (requires { one.direction; }) {
          bytes += static_cast<int64_t>(one.direction.values.size() * sizeof(float));
        }
        return bytes;
      },
      edit);
}

// Every site, in the order of the results; false as soon as AddSite is.
bool AddSites(const SweepGrid& grid, const ModelConfig& config, const std::vector<int>& positions,
              bool only_count, Expansion& expansion) {
  for (HookPoint point : AscendingOnce(grid.points)) {
    const std::vector<int> layers =
        HasLayer(point) ? SelectedOrAll(grid.layers, config.layer_count()) : std::vector<int>{0};
    for (int layer : layers) {
      if (!expansion.AddSite({point, layer}, positions, only_count)) return false;
    }
  }
  return true;
}

}  // namespace

ExpandedGrid ExpandGrid(const SweepGrid& grid, const ModelConfig& config, const TokenizedPrompt& prompt,
                        const FieldViolations& violations) {
  const std::vector<int> positions = ResolvePositions(
      grid.prototype.selector.positions, prompt, violations.At("prototype").At("selector").At("positions"));
  if (grid.points.empty()) violations.At("points").Add("must not be empty");
  for (size_t i = 0; i < grid.layers.size(); ++i) {
    if (grid.layers[i] < 0 || grid.layers[i] >= config.layer_count()) {
      violations.At("layers", i)
          .Add(absl::StrCat("layer ", grid.layers[i], " is not in [0, ", config.layer_count(), ")"));
    }
  }
  for (size_t i = 0; i < grid.points.size(); ++i) {
    if (grid.split_heads && !ShapeOf(grid.points[i], config).has_head_axis) {
      violations.At("points", i)
          .Add(absl::StrCat(SiteName({grid.points[i], 0}), " has no head axis to split by"));
    }
  }
  if (!violations.empty()) return {};

  Expansion expansion(grid, config, prompt);
  if (AddSites(grid, config, positions, /*only_count=*/false, expansion)) return expansion.Take();
  violations.Add(absl::StrCat("expands to more than ", kMaxSets, " runs"));
  return {};
}

int64_t ExpandedGridBytes(const SweepGrid& grid, const ModelConfig& config, const TokenizedPrompt& prompt) {
  // Sets, sites and what the compiler makes of them: 1,200 measured over 112,640 sets of one edit.
  constexpr int64_t kBytesPerSet = 1536;
  Violations ignored;
  const std::vector<int> positions =
      ResolvePositions(grid.prototype.selector.positions, prompt, ignored.root());
  Expansion expansion(grid, config, prompt);
  AddSites(grid, config, positions, /*only_count=*/true, expansion);
  // The set's own copy, and the plan's.
  return expansion.count() * (kBytesPerSet + 2 * BytesOf(grid.prototype.edit));
}

}  // namespace mechinterp::engine
