// Automatic mixed precision: which operators run in the lower type, and which in float32.
#include <ATen/autocast_mode.h>
#include <torch/library.h>

#include "kernel.h"

namespace genie::lazy {

namespace {

/// Cast the floating tensors of a call and make it again, autocast having done its part.
void cast_arguments(const c10::OperatorHandle& op, Stack* stack, at::ScalarType type) {
  const c10::impl::ExcludeDispatchKeyGuard below(c10::DispatchKey::AutocastPrivateUse1);
  const size_t first = stack->size() - op.schema().arguments().size();
  for (size_t i = first; i < stack->size(); i++) {
    c10::IValue& value = (*stack)[i];
    if (value.isTensor() && value.toTensor().defined()) {
      value = at::autocast::cached_cast(type, value.toTensor(), DEVICE);
    } else if (value.isTensorList()) {
      c10::List<at::Tensor> cast;
      for (const at::Tensor& item : value.toTensorVector()) {
        cast.push_back(at::autocast::cached_cast(type, item, DEVICE));
      }
      value = std::move(cast);
    }
  }
  op.callBoxed(stack);
}

void lower(const c10::OperatorHandle& op, Stack* stack) {
  cast_arguments(op, stack, at::autocast::get_autocast_dtype(DEVICE));
}

void single(const c10::OperatorHandle& op, Stack* stack) { cast_arguments(op, stack, at::kFloat); }

// The lists of torch's own devices (aten/src/ATen/autocast_mode.h), without what needs a policy
// for its dtype argument: softmax and its kin are single precision here whatever they are asked.
constexpr const char* LOWER[] = {
    "conv1d",
    "conv1d.padding",
    "conv2d",
    "conv2d.padding",
    "conv3d",
    "conv3d.padding",
    "conv_tbc",
    "conv_transpose1d",
    "conv_transpose2d.input",
    "conv_transpose3d.input",
    "convolution",
    "prelu",
    "addmm",
    "addmv",
    "addr",
    "matmul",
    "einsum",
    "mm",
    "mv",
    "linalg_vecdot",
    "linear",
    "addbmm",
    "baddbmm",
    "bmm",
    "chain_matmul",
    "linalg_multi_dot",
    "scaled_dot_product_attention",
};
constexpr const char* SINGLE[] = {
    "acos",
    "asin",
    "cosh",
    "erfinv",
    "exp",
    "expm1",
    "log",
    "log10",
    "log2",
    "log1p",
    "reciprocal",
    "rsqrt",
    "sinh",
    "tan",
    "pow.Tensor_Scalar",
    "pow.Tensor_Tensor",
    "pow.Scalar",
    "softplus",
    "layer_norm",
    "native_layer_norm",
    "group_norm",
    "cosine_similarity",
    "poisson_nll_loss",
    "cosine_embedding_loss",
    "nll_loss",
    "nll_loss2d",
    "hinge_embedding_loss",
    "kl_div",
    "l1_loss",
    "smooth_l1_loss",
    "huber_loss",
    "mse_loss",
    "margin_ranking_loss",
    "multilabel_margin_loss",
    "soft_margin_loss",
    "triplet_margin_loss",
    "multi_margin_loss",
    "binary_cross_entropy_with_logits",
    "dist",
    "pdist",
    "cdist",
    "renorm",
    "logsumexp",
    "softmax.int",
    "log_softmax.int",
    "cumprod",
    "cumsum",
    "prod",
    "sum",
    "norm.Scalar",
};

}  // namespace

TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFallthrough());
}

TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, library) {
  for (const char* name : LOWER) {
    library.impl(name, torch::CppFunction::makeFromBoxedFunction<&lower>());
  }
  for (const char* name : SINGLE) {
    library.impl(name, torch::CppFunction::makeFromBoxedFunction<&single>());
  }
}

}  // namespace genie::lazy
