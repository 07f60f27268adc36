#include "services/engine/interventions/sweep_grid.h"

#include <algorithm>
#include <iterator>
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

// Ascending, each once: of those below `count` all, of others the largest alone, which is enough to be
// told of. So a list is no longer than what it chooses from, however long it was sent.
std::vector<int> Bounded(const std::vector<int>& values, int count) {
  std::vector<int> bounded = AscendingOnce(values);
  const auto outside = std::lower_bound(bounded.begin(), bounded.end(), count);
  if (outside != bounded.end()) bounded.erase(outside, std::prev(bounded.end()));
  return bounded;
}

// Of any site.
int LargestWidth(const SweepGrid& grid, const ModelConfig& config, const TokenizedPrompt& prompt) {
  int largest = prompt.length();
  for (const HookPoint point : AscendingOnce(grid.points))
    largest = std::max(largest, ShapeOf(point, config).width);
  return largest;
}

// The prototype, of which every set has a copy, with lists that are no longer than they need be. The
// positions that are split are replaced in each.
Intervention WithoutRepetitions(const SweepGrid& grid, const ModelConfig& config,
                                const TokenizedPrompt& prompt) {
  Intervention prototype = grid.prototype;
  Selector& selector = prototype.selector;
  selector.heads = Bounded(selector.heads, config.head_count);
  selector.dims = Bounded(selector.dims, LargestWidth(grid, config, prompt));
  selector.positions.indices = AscendingOnce(selector.positions.indices);
  selector.positions.named = AscendingOnce(selector.positions.named);
  return prototype;
}

int64_t BytesOf(const Selector& selector) {
  const PositionSelector& positions = selector.positions;
  return static_cast<int64_t>(
      (selector.heads.size() + selector.dims.size() + positions.indices.size()) * sizeof(int) +
      positions.ranges.size() * sizeof(PositionRange) + positions.named.size() * sizeof(NamedPosition));
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
      : grid_(grid), prototype_(WithoutRepetitions(grid, config, prompt)), config_(config), prompt_(prompt) {
    if (grid.split_positions) {
      counts_from_end_ = prototype_.selector.positions.counts_from_end();
      prototype_.selector.positions = {};
    }
  }

  // False, and nothing is added, where there would be more than kMaxSets.
  bool AddSite(const HookSite& site, const std::vector<int>& selected_positions, bool only_count) {
    const SiteShape shape = ShapeOf(site.point, config_);
    const int width = shape.width == kWidthIsKeys ? prompt_.length() : shape.width;
    const auto positions = Choices(grid_.split_positions, selected_positions);
    const auto heads = Choices(grid_.split_heads, SelectedOrAll(prototype_.selector.heads, shape.heads));
    const std::vector<int> dims = SelectedOrAll(prototype_.selector.dims, width);
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
  // Of the lists that each set has a copy of.
  int64_t selector_bytes() const { return BytesOf(prototype_.selector); }
  ExpandedGrid Take() { return std::move(expanded_); }

 private:
  void Add(const HookSite& site, std::optional<int> position, std::optional<int> head,
           const std::vector<int>& dims, size_t begin, size_t end) {
    Intervention member = prototype_;
    member.site = site;
    SweepSite touched{site, position, head, std::nullopt, std::nullopt};
    if (position) {
      member.selector.positions.indices = {counts_from_end_ ? *position - prompt_.length() : *position};
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
  Intervention prototype_;
  bool counts_from_end_ = false;
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
  return expansion.count() * (kBytesPerSet + 2 * (BytesOf(grid.prototype.edit) + expansion.selector_bytes()));
}

}  // namespace mechinterp::engine
