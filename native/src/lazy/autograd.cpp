// Operators that stay whole where no gradient is wanted, and are composed where one is.
#include <ATen/autocast_mode.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/gru.h>
#include <ATen/ops/gru_native.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/linear_native.h>
#include <ATen/ops/lstm.h>
#include <ATen/ops/lstm_native.h>
#include <ATen/ops/rnn_relu.h>
#include <ATen/ops/rnn_relu_native.h>
#include <ATen/ops/rnn_tanh.h>
#include <ATen/ops/rnn_tanh_native.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/scaled_dot_product_attention_native.h>
#include <torch/library.h>

#include <algorithm>

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

bool wants_gradient_of(at::TensorList tensors) {
  return std::any_of(tensors.begin(), tensors.end(),
                     [](const at::Tensor& tensor) { return wants_gradient(tensor); });
}

/// Whether a recurrent network is composed: for a gradient, for random draws, or for autocast,
/// which knows its products but not the whole.
bool composed(const at::Tensor& input, at::TensorList hidden, at::TensorList params, bool draws) {
  return draws || at::autocast::is_autocast_enabled(DEVICE) || wants_gradient(input) ||
         wants_gradient_of(hidden) || wants_gradient_of(params);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> lstm(const at::Tensor& input, at::TensorList hidden,
                                                    at::TensorList params, bool biases,
                                                    int64_t layers, double dropout, bool train,
                                                    bool both_ways, bool batch_first) {
  if (composed(input, hidden, params, train && dropout > 0)) {
    return at::native::lstm(input, hidden, params, biases, layers, dropout, train, both_ways,
                            batch_first);
  }
  const at::AutoDispatchBelowADInplaceOrView below;
  return at::lstm(input, hidden, params, biases, layers, dropout, train, both_ways, batch_first);
}

using Recurrent = std::tuple<at::Tensor, at::Tensor>(const at::Tensor&, const at::Tensor&,
                                                     at::TensorList, bool, int64_t, double, bool,
                                                     bool, bool);

template <Recurrent& whole, Recurrent& parts>
std::tuple<at::Tensor, at::Tensor> recurrent(const at::Tensor& input, const at::Tensor& hidden,
                                             at::TensorList params, bool biases, int64_t layers,
                                             double dropout, bool train, bool both_ways,
                                             bool batch_first) {
  if (composed(input, hidden, params, train && dropout > 0)) {
    return parts(input, hidden, params, biases, layers, dropout, train, both_ways, batch_first);
  }
  const at::AutoDispatchBelowADInplaceOrView below;
  return whole(input, hidden, params, biases, layers, dropout, train, both_ways, batch_first);
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, AutogradPrivateUse1, library) {
  library.impl("linear", &linear);
  library.impl("scaled_dot_product_attention", &attention);
  library.impl("lstm.input", &lstm);
  library.impl("gru.input", &recurrent<at::gru, at::native::gru>);
  library.impl("rnn_tanh.input", &recurrent<at::rnn_tanh, at::native::rnn_tanh>);
  library.impl("rnn_relu.input", &recurrent<at::rnn_relu, at::native::rnn_relu>);
}

}  // namespace genie::lazy
