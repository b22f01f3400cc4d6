// Lazy tensors: sizes and strides like any tensor's, and no bytes behind them.
//
// A storage of this device holds a `Store` where others hold memory. The store says what its bytes
// are: a value of the trace that is being recorded, a tensor kept on the device (its handle), or a
// small tensor of the host that travels with the next run. A tensor is a window on its store.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace genie::lazy {

constexpr auto DEVICE = c10::DeviceType::PrivateUse1;

/// How dense bytes are read: an element type, sizes, strides, and where the first element lies.
struct Layout {
  at::ScalarType dtype = at::kFloat;
  c10::SmallVector<int64_t, 5> sizes, strides;
  int64_t offset = 0;
  bool conj = false, neg = false;

  bool operator==(const Layout&) const = default;
};

Layout layout_of(const at::TensorImpl& tensor);

/// What a storage's bytes are. Owned by the storage: it goes when the last tensor on it goes.
struct Store {
  Layout base;          ///< how the bytes lie as a whole: dense, offset 0
  uint64_t handle = 0;  ///< a tensor kept on the device; 0: none
  uint64_t epoch = 0;   ///< the trace in which `value` stands for the bytes
  int32_t value = -1;
  int64_t listed = -1;   ///< its place among the stores that the trace writes to
  bool written = false;  ///< false: nobody has given it any content
  bool lost = false;     ///< the run that was to compute it failed
  bool away = false;     ///< a run that has not ended computes its content
  at::Tensor host;       ///< its content, when that is small and has not travelled yet
  c10::weak_intrusive_ptr<c10::StorageImpl> storage;  ///< what owns this

  Store();
};

/// A window on a store; remembers which value of the present trace it is.
struct LazyTensor final : at::TensorImpl {
  LazyTensor(c10::Storage storage, at::ScalarType dtype);

  /// A window on the memory of `base`. In inference mode it is a normal tensor when `base` is.
  LazyTensor(const at::Tensor& base, at::ScalarType dtype);

  uint64_t epoch = 0;
  int32_t value = -1;

  c10::intrusive_ptr<TensorImpl> shallow_copy_and_detach(const c10::VariableVersion& version,
                                                         bool allow_change) const override;
  c10::intrusive_ptr<TensorImpl> shallow_copy_and_detach(c10::VariableVersion&& version,
                                                         bool allow_change) const override;
  void shallow_copy_from(const c10::intrusive_ptr<TensorImpl>& other) override;

 private:
  template <typename Version>
  c10::intrusive_ptr<TensorImpl> copied(Version&& version, bool allow_change) const;
};

inline bool is_lazy(const at::Tensor& tensor) {
  return tensor.defined() && tensor.unsafeGetTensorImpl()->device_type() == DEVICE;
}

/// A new storage with the layout `base`, nothing in it.
at::Tensor make_tensor(const Layout& base);

/// Another window on the storage of a tensor.
at::Tensor make_view(const at::Tensor& base, const Layout& layout);

/// Give a tensor other sizes, strides and offset, on its own storage.
void set_layout(at::TensorImpl& tensor, const Layout& layout);

Store& store_of(const at::Tensor& tensor);

/// Bytes that a dense tensor of these sizes takes.
int64_t dense_bytes(at::ScalarType dtype, c10::IntArrayRef sizes);

/// Handles of kept tensors that no storage names any more; the caller drops them on the device.
std::vector<uint64_t> take_dropped();
void drop(uint64_t handle);

/// Delete the stores of storages that have ended; the caller holds the trace's lock.
void delete_ended();

}  // namespace genie::lazy
