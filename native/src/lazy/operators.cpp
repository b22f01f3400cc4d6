// The kernels that make and move tensors themselves, and the registration of all others.
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/copy.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/item.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <optional>

#include "kernel.h"

namespace genie::lazy {

namespace {

void boxed(const c10::OperatorHandle& op, Stack* stack) { call_boxed(op, stack); }

Layout contiguous(at::ScalarType dtype, c10::IntArrayRef sizes, c10::MemoryFormat format) {
  Layout layout;
  layout.dtype = dtype;
  layout.sizes = sizes;
  // torch knows best where strides of sizes 0 and 1 go.
  const auto like = at::empty_strided({0}, {1}, at::TensorOptions().device(c10::kMeta));
  auto* impl = like.unsafeGetTensorImpl();
  impl->set_sizes_contiguous(sizes);
  if (format != c10::MemoryFormat::Contiguous && format != c10::MemoryFormat::Preserve) {
    impl->empty_tensor_restride(format);
  }
  layout.strides = impl->strides();
  return layout;
}

at::Tensor empty(c10::SymIntArrayRef sizes, std::optional<at::ScalarType> dtype,
                 std::optional<c10::Layout>, std::optional<c10::Device> device, std::optional<bool>,
                 std::optional<c10::MemoryFormat> format) {
  counts.ops++;
  check_device(device);
  const auto kind = dtype.value_or(c10::typeMetaToScalarType(c10::get_default_dtype()));
  return make_tensor(contiguous(kind, C10_AS_INTARRAYREF_SLOW(sizes),
                                format.value_or(c10::MemoryFormat::Contiguous)));
}

at::Tensor empty_strided(c10::SymIntArrayRef sizes, c10::SymIntArrayRef strides,
                         std::optional<at::ScalarType> dtype, std::optional<c10::Layout>,
                         std::optional<c10::Device> device, std::optional<bool>) {
  counts.ops++;
  check_device(device);
  Layout layout;
  layout.dtype = dtype.value_or(c10::typeMetaToScalarType(c10::get_default_dtype()));
  layout.sizes = C10_AS_INTARRAYREF_SLOW(sizes);
  layout.strides = C10_AS_INTARRAYREF_SLOW(strides);
  const auto like = at::empty_strided(layout.sizes, layout.strides,
                                      at::TensorOptions().device(c10::kMeta).dtype(layout.dtype));
  if (like.is_non_overlapping_and_dense()) {
    return make_tensor(layout);
  }
  // Bytes lie dense on the device: strides with gaps are a window on a row of elements.
  const auto count = static_cast<int64_t>(like.storage().nbytes() / like.itemsize());
  return make_view(make_tensor(Layout{layout.dtype, {count}, {1}, 0, false, false}), layout);
}

/// Tangents that are nought: elsewhere without memory, which nothing has here.
at::Tensor zeros(c10::SymIntArrayRef sizes, std::optional<at::ScalarType> dtype,
                 std::optional<c10::Layout>, std::optional<c10::Device> device,
                 std::optional<bool>) {
  return at::zeros_symint(sizes, at::TensorOptions().dtype(dtype).device(device));
}

void record_copy(const at::Tensor& self, const at::Tensor& src, bool non_blocking) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("aten::copy_", "");
  Stack stack{self, src, non_blocking};
  Entry& entry = find_entry(op, info_of(op), stack, 0);
  TORCH_CHECK(!entry.on_host, entry.reason);
  const Hold hold;
  record(entry, stack, 0);
}

/// Let a store that holds nothing yet hold the content of a host's tensor.
void give(Store& store, const at::Tensor& src) {
  auto content = at::empty_strided(store.base.sizes, store.base.strides,
                                   at::TensorOptions().dtype(store.base.dtype));
  content.copy_(src);
  if (static_cast<int64_t>(content.nbytes()) <= SMALL) {
    const Hold hold;
    store.host = content;
    list_store(store);
    return;
  }
  const uint64_t handle = python().upload(content);
  const Hold hold;
  store.handle = handle;
  store.written = true;
}

at::Tensor& copy(at::Tensor& self, const at::Tensor& src, bool non_blocking) {
  counts.ops++;
  if (!is_lazy(self)) {
    self.copy_(python().fetch({src}, "copied to the host").front());
    return self;
  }
  if (is_lazy(src)) {
    record_copy(self, src, non_blocking);
    return self;
  }
  const Layout layout = layout_of(*self.unsafeGetTensorImpl());
  Store& store = store_of(self);
  TORCH_CHECK(src.device().is_cpu(), "a tensor on ", src.device(), " cannot be copied to genie");
  if (!store.written && store.epoch == 0 && layout == store.base) {
    give(store, src.expand(self.sizes()));
    return self;
  }
  const at::Tensor there =
      make_tensor(contiguous(src.scalar_type(), src.sizes(), c10::MemoryFormat::Contiguous));
  give(store_of(there), src);
  record_copy(self, there, non_blocking);
  return self;
}

at::Scalar local_scalar(const at::Tensor& self) {
  counts.ops++;
  return python().fetch({self}, "the value of a tensor was asked for").front().item();
}

at::Tensor detach(const at::Tensor& self) {
  counts.ops++;
  auto made = self.unsafeGetTensorImpl()->shallow_copy_and_detach(c10::VariableVersion(0), false);
  return at::Tensor(std::move(made));
}

at::Tensor same(const at::Tensor& self) { return self; }

void take_storage(at::TensorImpl& impl, const c10::Storage& storage) {
  impl.set_storage_keep_dtype(storage);
  if (auto* lazy = dynamic_cast<LazyTensor*>(&impl)) {
    lazy->epoch = 0;
  }
}

const at::Tensor& resize(const at::Tensor& self, c10::SymIntArrayRef sizes,
                         std::optional<c10::MemoryFormat> format) {
  counts.ops++;
  at::TensorImpl& impl = *self.unsafeGetTensorImpl();
  const Layout wanted = contiguous(self.scalar_type(), C10_AS_INTARRAYREF_SLOW(sizes),
                                   format.value_or(c10::MemoryFormat::Contiguous));
  const auto item = static_cast<int64_t>(self.itemsize());
  const int64_t needs = dense_bytes(wanted.dtype, wanted.sizes) + self.storage_offset() * item;
  const auto has = static_cast<int64_t>(self.storage().nbytes());
  if (needs > has) {
    at::Tensor grown =
        make_tensor(self.storage_offset() == 0 && !store_of(self).written
                        ? wanted
                        : Layout{wanted.dtype, {needs / item}, {1}, 0, false, false});
    if (store_of(self).written && has > 0) {
      const Layout old{wanted.dtype, {has / item}, {1}, 0, false, false};
      record_copy(make_view(grown, old), make_view(self, old), false);
    }
    take_storage(impl, grown.storage());
  }
  impl.set_sizes_and_strides(wanted.sizes, wanted.strides, self.storage_offset());
  if (auto* lazy = dynamic_cast<LazyTensor*>(&impl)) {
    lazy->epoch = 0;
  }
  return self;
}

at::Tensor& set_storage(at::Tensor& self, at::Storage source, c10::SymInt offset,
                        c10::SymIntArrayRef sizes, c10::SymIntArrayRef strides) {
  at::TensorImpl& impl = *self.unsafeGetTensorImpl();
  take_storage(impl, source);
  impl.set_sizes_and_strides(C10_AS_INTARRAYREF_SLOW(sizes), C10_AS_INTARRAYREF_SLOW(strides),
                             offset.guard_int(__FILE__, __LINE__));
  return self;
}

at::Tensor& set_tensor(at::Tensor& self, const at::Tensor& source) {
  at::TensorImpl& impl = *self.unsafeGetTensorImpl();
  take_storage(impl, source.storage());
  impl.set_sizes_and_strides(source.sizes(), source.strides(), source.storage_offset());
  return self;
}

at::Tensor& set_whole(at::Tensor& self, at::Storage source) {
  const auto count = static_cast<int64_t>(source.nbytes() / self.itemsize());
  take_storage(*self.unsafeGetTensorImpl(), source);
  self.unsafeGetTensorImpl()->set_sizes_and_strides(c10::IntArrayRef{count}, c10::IntArrayRef{1},
                                                    0);
  return self;
}

at::Tensor& set_nothing(at::Tensor& self) {
  const at::Tensor fresh = make_tensor(Layout{self.scalar_type(), {0}, {1}, 0, false, false});
  return set_tensor(self, fresh);
}

int64_t fused_choice(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                     const std::optional<at::Tensor>&, double, bool, std::optional<double>, bool) {
  return 0;  // the formula, whose parts all have derivatives
}

at::Tensor copy_from(const at::Tensor& self, const at::Tensor& dst, bool non_blocking) {
  at::Tensor target = dst;
  return copy(target, self, non_blocking);
}

bool takes_or_makes_tensors(const c10::FunctionSchema& schema) {
  for (const auto& argument : schema.arguments()) {
    if (argument.type()->str().find("Tensor") != std::string::npos ||
        argument.type()->str().find("Device") != std::string::npos) {
      return true;
    }
  }
  return false;
}

}  // namespace

size_t register_operators(const std::unordered_set<std::string>& left) {
  static std::vector<torch::Library> libraries;
  auto& library = libraries.emplace_back(torch::Library::IMPL, "aten",
                                         c10::DispatchKey::PrivateUse1, __FILE__, __LINE__);
  library.impl("empty.memory_format", &empty);
  library.impl("empty_strided", &empty_strided);
  library.impl("copy_", &copy);
  library.impl("_copy_from", &copy_from);
  library.impl("_local_scalar_dense", &local_scalar);
  library.impl("detach", &detach);
  library.impl("alias", &detach);
  library.impl("lift_fresh", &same);
  library.impl("lift", &same);
  library.impl("resize_", &resize);
  library.impl("set_.source_Storage_storage_offset", &set_storage);
  library.impl("set_.source_Storage", &set_whole);
  library.impl("set_.source_Tensor", &set_tensor);
  library.impl("set_", &set_nothing);
  library.impl("_fused_sdp_choice", &fused_choice);
  library.impl("_efficientzerotensor", &zeros);
  auto& dispatcher = c10::Dispatcher::singleton();
  size_t count = 16;
  for (const auto& name : dispatcher.getAllOpNames()) {
    if (!name.name.starts_with("aten::")) {
      continue;
    }
    const auto op = dispatcher.findSchema(name);
    if (!op || op->hasKernelForDispatchKey(c10::DispatchKey::PrivateUse1) ||
        !takes_or_makes_tensors(op->schema())) {
      continue;
    }
    const std::string overload = name.overload_name.empty() ? "default" : name.overload_name;
    const std::string full = "aten." + name.name.substr(6) + "." + overload;
    const bool composed = op->hasKernelForDispatchKey(c10::DispatchKey::CompositeImplicitAutograd);
    // What autograd.cpp has a kernel for is recorded whole where no gradient is wanted.
    const bool whole = op->hasKernelForDispatchKey(c10::DispatchKey::AutogradPrivateUse1);
    if ((composed && !whole) || left.contains(full)) {
      continue;
    }
    const std::string said =
        name.name.substr(6) + (name.overload_name.empty() ? "" : "." + name.overload_name);
    library.impl(said.c_str(), torch::CppFunction::makeFromBoxedFunction<&boxed>());
    count++;
  }
  return count;
}

}  // namespace genie::lazy
