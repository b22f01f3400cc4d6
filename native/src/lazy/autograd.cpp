// Operators that stay whole where no gradient is wanted, and are composed where one is.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/linear_native.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/scaled_dot_product_attention_native.h>
#include <torch/library.h>

#include "tensor.h"

namespace genie::lazy {

namespace {

template <typename... Tensors>
bool wants_gradient(const Tensors&... tensors) {
  return c10::GradMode::is_enabled() && (tensors.requires_grad() || ...);
}

at::Tensor linear(const at::Tensor& input, const at::Tensor& weight,
                  const std::optional<at::Tensor>& bias) {
  if (wants_gradient(input, weight, bias.value_or(at::Tensor(input)))) {
    return at::native::linear(input, weight, bias);
  }
  const at::AutoDispatchBelowADInplaceOrView below;
  return at::linear(input, weight, bias);
}

at::Tensor attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                     const std::optional<at::Tensor>& mask, double dropout, bool causal,
                     std::optional<double> scale, bool grouped) {
  if (dropout > 0 || wants_gradient(query, key, value, mask.value_or(at::Tensor(query)))) {
    return at::native::scaled_dot_product_attention(query, key, value, mask, dropout, causal, scale,
                                                    grouped);
  }
  const at::AutoDispatchBelowADInplaceOrView below;
  return at::scaled_dot_product_attention(query, key, value, mask, dropout, causal, scale, grouped);
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, AutogradPrivateUse1, library) {
  library.impl("linear", &linear);
  library.impl("scaled_dot_product_attention", &attention);
}

}  // namespace genie::lazy
