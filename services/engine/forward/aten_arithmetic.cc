#include "services/engine/forward/aten_arithmetic.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "services/engine/device/transfer.h"
#include "services/engine/forward/aten_attention_gradient.h"
#include "services/engine/weights/device_matrix.h"

namespace mechinterp::engine {

AtenArithmetic::AtenArithmetic(const Model& model)
    : device_(TorchDevice(model.device())),
      attention_(model.config(), device_),
      compute_(model.formats().compute_type),
      runner_(model.kernel_runner()) {}

Rows AtenArithmetic::Allocate(Slot slot, int64_t count, int64_t width) {
  Whole(slot) = at::empty({count, width}, at::TensorOptions(at::kFloat).device(device_));
  return {slot, 0, count, width};
}

// As rows of the width asked for, which may be a part of the slot's.
at::Tensor AtenArithmetic::Get(const Rows& rows) {
  const at::Tensor whole = Whole(rows.slot).view({-1, rows.width});
  return rows.count == whole.size(0) ? whole : whole.narrow(0, rows.first, rows.count);
}

// A result that fills a slot becomes it, without a copy.
void AtenArithmetic::Set(const Rows& rows, const at::Tensor& values) {
  at::Tensor& whole = Whole(rows.slot);
  if (rows.size() == whole.numel()) {
    whole = values.reshape({rows.count, rows.width});
  } else {
    Get(rows).copy_(values.reshape({rows.count, rows.width}));
  }
}

at::Tensor AtenArithmetic::FromHost(const float* values, at::IntArrayRef shape) const {
  at::Tensor host = at::empty(shape, at::kFloat);
  std::memcpy(host.data_ptr<float>(), values, host.nbytes());
  return ToDevice(host, device_);
}

void AtenArithmetic::WriteRows(const Rows& rows, absl::FunctionRef<void(float*)> write) {
  const at::Tensor host = at::zeros({rows.count, rows.width}, at::kFloat);
  write(host.data_ptr<float>());
  Overwrite(Get(rows), host);
}

void AtenArithmetic::WithHostRows(const Rows& rows, absl::FunctionRef<bool(float*)> function) {
  const at::Tensor there = Get(rows);
  const at::Tensor host = ToHost(there);
  if (function(host.data_ptr<float>())) Overwrite(there, host);
}

void AtenArithmetic::Copy(const Rows& from, const Rows& to) { Get(to).copy_(Get(from)); }

void AtenArithmetic::RootMeanSquare(const Rows& x, float epsilon, const Rows& scale) {
  const at::Tensor values = Get(x);
  Set(scale, at::sqrt(at::mul(values, values).mean({1}, true).add(epsilon)));
}

void AtenArithmetic::DivideRows(const Rows& x, const Rows& scale, const Rows& y) {
  Set(y, at::div(Get(x), Get(scale)));
}

void AtenArithmetic::MultiplyColumns(const Rows& x, const at::Tensor& gain) { Get(x).mul_(gain); }

void AtenArithmetic::AddColumns(const Rows& x, const at::Tensor& bias) { Get(x).add_(bias); }

void AtenArithmetic::Multiply(const Rows& x, absl::Span<const Product> products) {
  const DeviceOperand operand = RoundOperand(Get(x), compute_);
  for (const Product& product : products) {
    // Logits are differences of large numbers to those who read them.
    const bool full_precision = product.slot == Slot::kLogits;
    at::Tensor y = MultiplyOnDevice(operand, *product.weight->device, full_precision, runner_);
    const int64_t end = std::min(product.end_output, product.weight->out());
    if (end - product.first_output < product.weight->out()) {
      y = y.narrow(1, product.first_output, end - product.first_output).contiguous();
    }
    Whole(product.slot) = std::move(y);
  }
}

void AtenArithmetic::MultiplyInputs(const Rows& x, const LinearWeight& weight, int64_t first_input,
                                    Slot slot) {
  at::Tensor all = at::zeros({x.count, weight.in()}, Get(x).options());
  all.narrow(1, first_input, x.width).copy_(Get(x));
  Whole(slot) =
      MultiplyOnDevice(RoundOperand(all, compute_), *weight.device, /*full_precision=*/false, runner_);
}

void AtenArithmetic::Add(const Rows& x, const Rows& y) { Get(x).add_(Get(y)); }

void AtenArithmetic::SiluMultiply(const Rows& gate, const Rows& up, const Rows& y) {
  Set(y, at::silu(Get(gate)).mul_(Get(up)));
}

void AtenArithmetic::SetAngles(absl::Span<const float> cosines, absl::Span<const float> sines, int64_t half) {
  const int64_t rows = static_cast<int64_t>(cosines.size()) / half;
  cosines_ = FromHost(cosines.data(), {rows, 1, half});
  sines_ = FromHost(sines.data(), {rows, 1, half});
}

void AtenArithmetic::Rotate(const Rows& x, int64_t heads) { RotateBy(x, heads, false); }

void AtenArithmetic::RotateBack(const Rows& x, int64_t heads) { RotateBy(x, heads, true); }

void AtenArithmetic::RotateBy(const Rows& x, int64_t heads, bool back) {
  const int64_t half = x.width / heads / 2;
  const at::Tensor values = Get(x).view({x.count, heads, 2 * half});
  const at::Tensor first = values.narrow(2, 0, half), second = values.narrow(2, half, half);
  const at::Tensor cosines = cosines_.narrow(0, 0, x.count), turned = sines_.narrow(0, 0, x.count);
  const at::Tensor sines = back ? turned.neg() : turned;
  Set(x,
      at::cat({first.mul(cosines).sub_(second.mul(sines)), second.mul(cosines).add_(first.mul(sines))}, 2));
}

void AtenArithmetic::Attend(const Batch& batch, int layer, const Rows& query, const Rows& key,
                            const Rows& value, const Rows& z) {
  attention_.Attend(
      batch, layer, Get(query), Get(key), Get(value),
      [&](int64_t first, int64_t count, const at::Tensor& values) { Set(z.Part(first, count), values); });
}

void AtenArithmetic::MultiplyTransposed(absl::Span<const TransposedProduct> products,
                                        const Rows& x_gradient) {
  at::Tensor sum;
  for (const TransposedProduct& product : products) {
    const at::Tensor part = MultiplyTransposedOnDevice(Get(product.gradient), *product.weight->device,
                                                       product.first_output, compute_, runner_);
    sum = sum.defined() ? sum.add(part) : part;
  }
  Set(x_gradient, sum);
}

void AtenArithmetic::ScaleGradient(const Rows& x, const Rows& scale, const Rows& gradient,
                                   const Rows& scale_gradient) {
  const at::Tensor divisor = Get(scale);
  Set(scale_gradient, Get(gradient).mul(Get(x)).sum({1}, true).div(divisor.mul(divisor)).neg());
}

void AtenArithmetic::NormGradient(const Rows& x, const Rows& root, const Rows& scale,
                                  const Rows& root_gradient, const Rows& gradient) {
  const at::Tensor factor = Get(root_gradient).div(Get(root).mul(static_cast<double>(x.width)));
  Set(gradient, Get(gradient).div(Get(scale)).add(Get(x).mul(factor)));
}

void AtenArithmetic::SiluMultiplyGradient(BackwardRule rule, const Rows& gate, const Rows& up,
                                          const Rows& gradient, const Rows& gate_gradient,
                                          const Rows& up_gradient) {
  const at::Tensor g = Get(gate), u = Get(up), d = Get(gradient), sigmoid = at::sigmoid(g);
  if (rule == BackwardRule::kRelevance) {
    const at::Tensor share = d.mul(sigmoid).mul(0.5);
    Set(gate_gradient, share.mul(u));
    Set(up_gradient, share.mul(g));
    return;
  }
  // SiLU' = sigmoid (1 + g (1 - sigmoid)).
  Set(gate_gradient, d.mul(u).mul(sigmoid).mul(g.mul(sigmoid.neg().add(1)).add(1)));
  Set(up_gradient, d.mul(g).mul(sigmoid));
}

void AtenArithmetic::AttendBackward(const Batch& batch, int layer, int run, const AttentionRows& forward,
                                    const Rows& z_gradient, const AttentionRows& gradients) {
  for (const Batch::Item& item : batch.items()) {
    const auto part = [&](const Rows& rows) { return Get(rows.Part(item.first_row, item.rows)); };
    const AttentionTensors of_item = engine::AttendBackward(
        attention_, item, layer, run, {part(forward.query), part(forward.key), part(forward.value)},
        part(z_gradient));
    Set(gradients.query.Part(item.first_row, item.rows), of_item.query);
    Set(gradients.key.Part(item.first_row, item.rows), of_item.key);
    Set(gradients.value.Part(item.first_row, item.rows), of_item.value);
  }
}

}  // namespace mechinterp::engine
