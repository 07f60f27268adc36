#include "tests/benchmarks/libtorch_products.h"

#include <ATen/ATen.h>
#include <torch/version.h>

#include "tests/benchmarks/matrices.h"

#define MECHINTERP_HAS_INT4_PRODUCT \
  (TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 6))

namespace mechinterp::benchmarks {
namespace {

class Unquantized : public LibtorchProduct {
 public:
  Unquantized(int64_t in, int64_t out, at::ScalarType type) : type_(type) {
    const at::Tensor weights =
        at::randn({out, in}, at::TensorOptions().dtype(at::kFloat)).mul_(0.02).to(type);
    const int copies = CopiesToRotate(static_cast<int64_t>(weights.nbytes()));
    for (int i = 0; i < copies; ++i) copies_.push_back(weights.clone());
  }
  void Multiply(const at::Tensor& x) override {
    if (!y_.defined() || y_.size(0) != x.size(0))
      y_ = at::empty({x.size(0), copies_[0].size(0)}, x.options());
    at::mm_out(y_, x, copies_[next_].t());
    next_ = (next_ + 1) % copies_.size();
  }
  at::ScalarType type() const override { return type_; }

 private:
  at::ScalarType type_;
  std::vector<at::Tensor> copies_;
  at::Tensor y_;
  size_t next_ = 0;
};

#if MECHINTERP_HAS_INT4_PRODUCT
class Int4 : public LibtorchProduct {
 public:
  static constexpr int64_t kGroup = 64;

  Int4(int64_t in, int64_t out)
      : scales_(at::full({in / kGroup, out, 2}, 0.01, at::TensorOptions().dtype(at::kBFloat16))) {
    const at::Tensor weights = at::randint(0, 16, {out, in}, at::TensorOptions().dtype(at::kInt));
    const at::Tensor packed = at::_convert_weight_to_int4pack_for_cpu(weights, /*innerKTiles=*/2);
    const int copies = CopiesToRotate(static_cast<int64_t>(packed.nbytes()));
    for (int i = 0; i < copies; ++i) copies_.push_back(packed.clone());
  }
  void Multiply(const at::Tensor& x) override {
    y_ = at::_weight_int4pack_mm_for_cpu(x, copies_[next_], kGroup, scales_);
    next_ = (next_ + 1) % copies_.size();
  }
  at::ScalarType type() const override { return at::kBFloat16; }

 private:
  std::vector<at::Tensor> copies_;
  at::Tensor scales_;
  at::Tensor y_;
  size_t next_ = 0;
};
#endif

}  // namespace

std::unique_ptr<LibtorchProduct> UnquantizedProduct(int64_t in, int64_t out, at::ScalarType type) {
  return std::make_unique<Unquantized>(in, out, type);
}

std::unique_ptr<LibtorchProduct> Int4Product(int64_t in, int64_t out) {
#if MECHINTERP_HAS_INT4_PRODUCT
  return std::make_unique<Int4>(in, out);
#else
  return nullptr;
#endif
}

}  // namespace mechinterp::benchmarks
