// Making an entry of the shape cache: the operator runs once on meta tensors.
#include <ATen/ops/_conj.h>
#include <ATen/ops/_neg_view.h>
#include <ATen/ops/as_strided.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/item.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <map>

#include "cache.h"

namespace genie::lazy {

namespace {

/// Meta tensors for a call: those of one storage share one, so that results tell what they view.
class Meta {
 public:
  at::Tensor of(const at::Tensor& tensor) {
    if (!tensor.defined() || tensor.unsafeGetTensorImpl()->is_wrapped_number()) {
      return tensor;
    }
    if (!is_lazy(tensor) && tensor.dim() == 0) {
      flat.push_back(tensor);
      return tensor;
    }
    const Layout layout = layout_of(*tensor.unsafeGetTensorImpl());
    const auto options = at::TensorOptions().device(c10::kMeta).dtype(layout.dtype);
    const auto nbytes = static_cast<int64_t>(tensor.storage().nbytes());
    const int64_t count = nbytes / static_cast<int64_t>(c10::elementSize(layout.dtype));
    at::Tensor& whole =
        wholes[{tensor.storage().unsafeGetStorageImpl(), static_cast<int>(layout.dtype)}];
    if (!whole.defined()) {
      whole = at::empty({count}, options);
    }
    at::Tensor made = at::as_strided(whole, layout.sizes, layout.strides, layout.offset);
    // A view of ours has no base that torch could complain about when it is resized.
    made = layout.conj ? at::_conj(made) : made;
    made = layout.neg ? at::_neg_view(made) : made;
    flat.push_back(made);
    return made;
  }

  c10::IValue of_value(const c10::IValue& value) {
    if (value.isTensor()) {
      return of(value.toTensor());
    }
    if (value.isTensorList()) {
      c10::List<at::Tensor> made;
      for (const at::Tensor& item : value.toTensorVector()) {
        made.push_back(keep(of(item), item));
      }
      return made;
    }
    if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> made;
      for (const c10::IValue& item : value.toListRef()) {
        if (item.isNone()) {
          flat.emplace_back();
          made.push_back(std::nullopt);
        } else {
          made.push_back(keep(of(item.toTensor()), item.toTensor()));
        }
      }
      return made;
    }
    if (value.isDevice()) {
      return c10::Device(c10::kMeta);
    }
    return value;
  }

  /// The tensors, in the order in which `record` sees them.
  std::vector<at::Tensor> flat;

 private:
  at::Tensor keep(at::Tensor made, const at::Tensor& given) {
    // In a list, a number or nothing takes a place of its own among the flat arguments.
    if (!given.defined() || given.unsafeGetTensorImpl()->is_wrapped_number()) {
      flat.push_back(given);
    }
    return made;
  }

  std::map<std::pair<const void*, int>, at::Tensor> wholes;
};

bool dense(const at::Tensor& tensor) {
  return tensor.storage_offset() == 0 && tensor.is_non_overlapping_and_dense();
}

Result result_of(const at::Tensor& out, const std::vector<at::Tensor>& flat) {
  Result result;
  if (!out.defined()) {
    result.from = From::Undefined;
    return result;
  }
  TORCH_CHECK_NOT_IMPLEMENTED(out.layout() == c10::kStrided, "a result that is not strided");
  result.layout = layout_of(*out.unsafeGetTensorImpl());
  for (size_t i = 0; i < flat.size(); i++) {
    if (flat[i].defined() && out.is_same(flat[i])) {
      result.from = From::Argument;
      result.source = static_cast<int32_t>(i);
      return result;
    }
  }
  for (size_t i = 0; i < flat.size(); i++) {
    if (flat[i].defined() && out.numel() >= 0 && flat[i].storage().is_alias_of(out.storage())) {
      result.from = From::View;
      result.source = static_cast<int32_t>(i);
      return result;
    }
  }
  if (!dense(out)) {
    result.compact = true;
    const at::Tensor straight = at::empty(out.sizes(), out.options());
    result.layout.strides = straight.strides();
    result.layout.offset = 0;
  }
  result.layout.conj = result.layout.neg = false;
  return result;
}

void hidden_writes(const OpInfo& info, const Stack& stack, size_t first, Entry& entry) {
  // Batch norm writes its running statistics when it trains; its schema does not say so.
  if (info.name == "aten.native_batch_norm.default" && stack[first + 5].toBool()) {
    for (int32_t at = 3; at <= 4; at++) {
      if (stack[first + static_cast<size_t>(at)].isTensor() &&
          stack[first + static_cast<size_t>(at)].toTensor().defined()) {
        int32_t flat = 0;
        for (int32_t i = 0; i < at; i++) {
          flat += entry.kinds[static_cast<size_t>(i)] == Kind::Tensor;
        }
        entry.writes.push_back(flat);
      }
    }
  }
}

}  // namespace

void fill(Entry& entry, const OpInfo& info, const Stack& stack, size_t first) {
  const auto& schema = entry.op.schema();
  if (info.not_tensors) {
    entry.on_host = true;
    entry.reason = "it returns something other than tensors";
    return;
  }
  if (!info.allowed) {
    entry.on_host = true;
    entry.reason = "plans may not name it";
    return;
  }
  Meta meta;
  Stack call;
  std::vector<size_t> starts;
  for (size_t i = 0; i < info.arguments; i++) {
    const c10::IValue& value = stack[first + i];
    starts.push_back(meta.flat.size());
    call.push_back(meta.of_value(value));
    const bool number = value.isTensor() && value.toTensor().defined() &&
                        value.toTensor().unsafeGetTensorImpl()->is_wrapped_number();
    if (value.isTensorList() || value.isOptionalTensorList()) {
      entry.kinds.push_back(Kind::List);
      entry.literals.emplace_back(static_cast<int64_t>(value.toListRef().size()));
    } else if (value.isTensor() && value.toTensor().defined() && !number) {
      entry.kinds.push_back(Kind::Tensor);
      entry.literals.emplace_back();
    } else {
      entry.kinds.push_back(Kind::Literal);
      if (number) {
        entry.literals.emplace_back(value.toTensor().item());
      } else if (value.isTensor()) {
        entry.literals.emplace_back();
      } else {
        entry.literals.push_back(value);
      }
    }
    const auto* alias = schema.arguments()[i].alias_info();
    if (alias != nullptr && alias->isWrite() && !info.silent) {
      for (size_t at = starts.back(); at < meta.flat.size(); at++) {
        entry.writes.push_back(static_cast<int32_t>(at));
      }
    }
  }
  hidden_writes(info, stack, first, entry);
  std::vector<Layout> before;
  for (const at::Tensor& tensor : meta.flat) {
    before.push_back(tensor.defined() ? layout_of(*tensor.unsafeGetTensorImpl()) : Layout());
  }
  {
    const c10::impl::ExcludeDispatchKeyGuard no_autograd(
        c10::autograd_dispatch_keyset_with_ADInplaceOrView);
    entry.op.callBoxed(&call);
  }
  for (size_t i = 0; i < meta.flat.size(); i++) {
    if (meta.flat[i].defined() && meta.flat[i].is_meta()) {
      const Layout after = layout_of(*meta.flat[i].unsafeGetTensorImpl());
      if (after != before[i]) {
        entry.moved.emplace_back(static_cast<int32_t>(i), after);
      }
    }
  }
  entry.silent = info.silent;
  for (const c10::IValue& out : call) {
    if (out.isTensor()) {
      entry.lists.push_back(-1);
      entry.results.push_back(result_of(out.toTensor(), meta.flat));
    } else {
      const auto items = out.toTensorVector();
      entry.lists.push_back(static_cast<int32_t>(items.size()));
      for (const at::Tensor& item : items) {
        entry.results.push_back(result_of(item, meta.flat));
      }
    }
  }
}

}  // namespace genie::lazy
