#include "tensor.h"

#include <c10/core/Allocator.h>

#include <mutex>

#include "trace.h"

namespace genie::lazy {

namespace {

std::mutex dropped_lock;
std::vector<uint64_t> dropped;
std::vector<Store*> ended;

using Weak = c10::weak_intrusive_ptr<c10::StorageImpl>;

/// A storage may end while its thread holds the interpreter's lock, for which a thread that records
/// may be waiting with the trace's: so the trace learns of it later.
void end_store(void* context) {
  auto* store = static_cast<Store*>(context);
  const std::lock_guard hold(dropped_lock);
  if (store->handle != 0) {
    dropped.push_back(store->handle);
  }
  ended.push_back(store);
}

c10::DataPtr make_data(Store* store) {
  return {nullptr, store, &end_store, c10::Device(DEVICE, 0)};
}

/// Memory of this device is never had; a storage that torch makes by itself gets an empty store.
struct NoMemory final : c10::Allocator {
  c10::DataPtr allocate(size_t nbytes) override {
    auto* store = new Store;
    store->base.dtype = at::kByte;
    store->base.sizes = {static_cast<int64_t>(nbytes)};
    store->base.strides = {1};
    return make_data(store);
  }
  void copy_data(void*, const void*, std::size_t) const override {
    TORCH_CHECK(false, "a tensor on the genie device has no memory to copy from");
  }
};

NoMemory no_memory;
REGISTER_ALLOCATOR(DEVICE, &no_memory)

}  // namespace

Store::Store() : storage(c10::intrusive_ptr<c10::StorageImpl>()) {}

std::vector<uint64_t> take_dropped() {
  const std::lock_guard hold(dropped_lock);
  return std::exchange(dropped, {});
}

void delete_ended() {
  std::vector<Store*> gone;
  {
    const std::lock_guard hold(dropped_lock);
    gone.swap(ended);
  }
  for (Store* store : gone) {
    unlist(*store);
    delete store;
  }
}

void drop(uint64_t handle) {
  const std::lock_guard hold(dropped_lock);
  dropped.push_back(handle);
}

int64_t dense_bytes(at::ScalarType dtype, c10::IntArrayRef sizes) {
  int64_t total = static_cast<int64_t>(c10::elementSize(dtype));
  for (const int64_t size : sizes) {
    total *= size;
  }
  return total;
}

Layout layout_of(const at::TensorImpl& tensor) {
  Layout found;
  found.dtype = tensor.dtype().toScalarType();
  found.sizes = tensor.sizes();
  found.strides = tensor.strides();
  found.offset = tensor.storage_offset();
  found.conj = tensor.is_conj();
  found.neg = tensor.is_neg();
  return found;
}

LazyTensor::LazyTensor(c10::Storage storage, at::ScalarType dtype)
    : TensorImpl(std::move(storage), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                 c10::scalarTypeToTypeMeta(dtype)) {}

LazyTensor::LazyTensor(const at::Tensor& base, at::ScalarType dtype)
    : TensorImpl(TensorImpl::VIEW, c10::Storage(base.storage()), base.key_set(),
                 c10::scalarTypeToTypeMeta(dtype)) {}

template <typename Version>
c10::intrusive_ptr<at::TensorImpl> LazyTensor::copied(Version&& version, bool allow_change) const {
  auto made = c10::make_intrusive<LazyTensor>(storage(), dtype().toScalarType());
  copy_tensor_metadata(this, made.get(), std::forward<Version>(version), allow_change);
  made->epoch = epoch;
  made->value = value;
  return made;
}

c10::intrusive_ptr<at::TensorImpl> LazyTensor::shallow_copy_and_detach(
    const c10::VariableVersion& version, bool allow_change) const {
  return copied(version, allow_change);
}

c10::intrusive_ptr<at::TensorImpl> LazyTensor::shallow_copy_and_detach(
    c10::VariableVersion&& version, bool allow_change) const {
  return copied(std::move(version), allow_change);
}

void LazyTensor::shallow_copy_from(const c10::intrusive_ptr<TensorImpl>& other) {
  TensorImpl::shallow_copy_from(other);
  if (auto* lazy = dynamic_cast<LazyTensor*>(other.get())) {
    epoch = lazy->epoch;
    value = lazy->value;
  } else {
    epoch = 0;
  }
}

Store& store_of(const at::Tensor& tensor) {
  auto* found = tensor.unsafeGetTensorImpl()->unsafe_storage().data_ptr().get_context();
  TORCH_CHECK(found != nullptr, "a tensor on the genie device has lost its store");
  auto& store = *static_cast<Store*>(found);
  if (store.storage.expired()) {
    store.storage = Weak(tensor.storage().getWeakStorageImpl());
  }
  return store;
}

void set_layout(at::TensorImpl& tensor, const Layout& layout) {
  tensor.set_sizes_and_strides(layout.sizes, layout.strides, layout.offset);
  tensor._set_conj(layout.conj);
  tensor._set_neg(layout.neg);
  if (auto* lazy = dynamic_cast<LazyTensor*>(&tensor)) {
    lazy->epoch = 0;
  }
}

at::Tensor make_tensor(const Layout& base) {
  auto* store = new Store;
  store->base = base;
  const auto nbytes = static_cast<size_t>(dense_bytes(base.dtype, base.sizes));
  auto storage = c10::make_intrusive<c10::StorageImpl>(c10::StorageImpl::use_byte_size_t(), nbytes,
                                                       make_data(store), &no_memory, true);
  store->storage = Weak(storage);
  auto made = c10::make_intrusive<LazyTensor>(c10::Storage(std::move(storage)), base.dtype);
  made->set_sizes_and_strides(base.sizes, base.strides, 0);
  return at::Tensor(std::move(made));
}

at::Tensor make_view(const at::Tensor& base, const Layout& layout) {
  auto made = c10::make_intrusive<LazyTensor>(base, layout.dtype);
  set_layout(*made, layout);
  return at::Tensor(std::move(made));
}

}  // namespace genie::lazy
