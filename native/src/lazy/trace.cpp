#include "trace.h"

#include <condition_variable>
#include <deque>
#include <unordered_map>

#include "cache.h"

namespace genie::lazy {

Counts counts;

namespace {

struct Trace {
  uint64_t epoch = 1;
  std::vector<uint32_t> words;
  std::vector<uint64_t> leaves;
  std::vector<at::Tensor> hosts;
  std::vector<Store*> stores;  // written in this trace; null where one has gone
  int32_t values = 0;
  size_t ops = 0;
  uint32_t module = 0;       // of what is recorded next
  uint32_t module_said = 0;  // of the last MODULE word
};

Trace trace;
std::vector<at::Tensor> flat;  // the tensor arguments of the call being recorded

struct LayoutHash {
  size_t operator()(const Layout& layout) const {
    uint64_t hash = static_cast<uint64_t>(layout.dtype);
    const auto mix = [&hash](int64_t word) {
      hash = (hash ^ static_cast<uint64_t>(word)) * 0x9e3779b97f4a7c15ull;
      hash ^= hash >> 29;
    };
    for (const int64_t size : layout.sizes) mix(size);
    for (const int64_t stride : layout.strides) mix(stride);
    mix(layout.offset);
    return hash;
  }
};

std::unordered_map<Layout, uint32_t, LayoutHash> numbers;
std::deque<Layout> layouts;

uint32_t number_of(const Layout& layout) {
  const auto [found, fresh] = numbers.try_emplace(layout, static_cast<uint32_t>(layouts.size()));
  if (fresh) {
    layouts.push_back(layout);
  }
  return found->second;
}

void say_module() {
  if (trace.module != trace.module_said) {
    trace.words.insert(trace.words.end(), {MODULE, trace.module});
    trace.module_said = trace.module;
  }
}

/// A call that no program made: a view taken again, or an empty tensor.
int32_t internal_call(const char* name, const char* overload, Stack arguments,
                      const std::vector<int32_t>& inputs, const Layout& made) {
  Entry& entry = internal_entry(name, overload, std::move(arguments), inputs.size(), made);
  say_module();
  trace.words.push_back(entry.id);
  for (const int32_t input : inputs) {
    trace.words.push_back(static_cast<uint32_t>(input));
  }
  trace.ops++;
  return trace.values++;
}

std::condition_variable_any settled;

bool away(const at::Tensor& tensor) { return is_lazy(tensor) && store_of(tensor).away; }

/// Whether a call reads what a run that another thread waits for has yet to settle.
bool reads_away(const Entry& entry, const Stack& stack, size_t first) {
  for (size_t i = 0; i < entry.kinds.size(); i++) {
    const c10::IValue& given = stack[first + i];
    if (entry.kinds[i] == Kind::Tensor && away(given.toTensor())) {
      return true;
    }
    if (entry.kinds[i] == Kind::List) {
      for (const c10::IValue& item : given.toListRef()) {
        if (item.isTensor() && away(item.toTensor())) {
          return true;
        }
      }
    }
  }
  return false;
}

std::vector<int64_t> plain(c10::ArrayRef<int64_t> numbers_) { return numbers_.vec(); }

/// The value that is the whole of a store.
int32_t base_of(Store& store) {
  if (store.epoch == trace.epoch) {
    return store.value;
  }
  TORCH_CHECK(!store.lost,
              "GEN0260: this tensor was to be computed by a run that failed; the run's error said "
              "why. Compute it again from tensors that are still there.");
  store.epoch = trace.epoch;
  if (store.handle != 0) {
    trace.words.insert(trace.words.end(), {LEAF, number_of(store.base)});
    trace.leaves.push_back(store.handle);
    store.value = trace.values++;
  } else if (store.host.defined()) {
    trace.words.insert(trace.words.end(), {HOST, number_of(store.base)});
    trace.hosts.push_back(store.host);
    store.value = trace.values++;
    list_store(store);
  } else {
    Stack call{plain(store.base.sizes),
               plain(store.base.strides),
               static_cast<int64_t>(store.base.dtype),
               c10::IValue(),
               c10::IValue(),
               c10::IValue()};
    store.value = internal_call("aten::empty_strided", "", std::move(call), {}, store.base);
    list_store(store);
  }
  return store.value;
}

int32_t view_of_base(Store& store, const Layout& layout) {
  int32_t value = base_of(store);
  Layout now = store.base;
  if (now.dtype != layout.dtype) {
    // As one row of elements first: `view` to another dtype needs the last stride to be 1.
    const int64_t count =
        dense_bytes(now.dtype, now.sizes) / static_cast<int64_t>(c10::elementSize(now.dtype));
    Layout row{now.dtype, {count}, {1}, 0, false, false};
    Stack call{c10::IValue(), std::vector<int64_t>{count}, std::vector<int64_t>{1}, int64_t{0}};
    value = internal_call("aten::as_strided", "", std::move(call), {value}, row);
    const int64_t other =
        dense_bytes(now.dtype, now.sizes) / static_cast<int64_t>(c10::elementSize(layout.dtype));
    now = Layout{layout.dtype, {other}, {1}, 0, false, false};
    Stack retype{c10::IValue(), static_cast<int64_t>(layout.dtype)};
    value = internal_call("aten::view", "dtype", std::move(retype), {value}, now);
  }
  Layout straight = layout;
  straight.conj = straight.neg = false;
  if (now != straight) {
    Stack call{c10::IValue(), plain(layout.sizes), plain(layout.strides), layout.offset};
    value = internal_call("aten::as_strided", "", std::move(call), {value}, straight);
    now = straight;
  }
  if (layout.conj) {
    now.conj = true;
    value = internal_call("aten::_conj", "", Stack{c10::IValue()}, {value}, now);
  }
  if (layout.neg) {
    now.neg = true;
    value = internal_call("aten::_neg_view", "", Stack{c10::IValue()}, {value}, now);
  }
  return value;
}

}  // namespace

Hold::Hold() : interpreter(PyGILState_Check() != 0 ? PyEval_SaveThread() : nullptr) {
  lock().lock();
}

Hold::~Hold() {
  lock().unlock();
  if (interpreter != nullptr) {
    PyEval_RestoreThread(interpreter);
  }
}

std::recursive_mutex& Hold::lock() {
  static std::recursive_mutex instance;
  return instance;
}

void Hold::wait_for_run() { settled.wait(lock()); }
void Hold::run_ended() { settled.notify_all(); }

const Layout& numbered_layout(uint32_t number) {
  const Hold hold;
  return layouts.at(number);
}

bool idle() { return trace.ops == 0; }
size_t pending_ops() { return trace.ops; }
void set_module(uint32_t number) { trace.module = number; }

void list_store(Store& store) {
  store.written = true;
  if (store.listed < 0) {
    store.listed = static_cast<int64_t>(trace.stores.size());
    trace.stores.push_back(&store);
  }
}

void unlist(Store& store) {
  if (store.listed >= 0) {
    trace.stores[static_cast<size_t>(store.listed)] = nullptr;
    store.listed = -1;
  }
}

int32_t value_of(const at::Tensor& tensor) {
  if (!tensor.defined()) {
    return -1;
  }
  if (!is_lazy(tensor)) {
    // A number in a tensor of the host's: it travels with the run.
    trace.words.insert(trace.words.end(),
                       {HOST, number_of(layout_of(*tensor.unsafeGetTensorImpl()))});
    trace.hosts.push_back(tensor.clone());
    return trace.values++;
  }
  auto* lazy = dynamic_cast<LazyTensor*>(tensor.unsafeGetTensorImpl());
  if (lazy != nullptr && lazy->epoch == trace.epoch) {
    return lazy->value;
  }
  const int32_t value = view_of_base(store_of(tensor), layout_of(*tensor.unsafeGetTensorImpl()));
  if (lazy != nullptr) {
    lazy->epoch = trace.epoch;
    lazy->value = value;
  }
  return value;
}

void record(Entry& entry, Stack& stack, size_t first) {
  while (reads_away(entry, stack, first)) {
    Hold::wait_for_run();
  }
  delete_ended();
  flat.clear();
  for (size_t i = 0; i < entry.kinds.size(); i++) {
    const c10::IValue& given = stack[first + i];
    if (entry.kinds[i] == Kind::Tensor) {
      flat.push_back(given.toTensor());
    } else if (entry.kinds[i] == Kind::List) {
      for (const c10::IValue& item : given.toListRef()) {
        flat.push_back(item.isTensor() ? item.toTensor() : at::Tensor());
      }
    }
  }
  int32_t out = 0;
  if (!entry.silent) {
    say_module();
    // Values of arguments first: taking a view again puts words of its own before this call's.
    c10::SmallVector<uint32_t, 12> values;
    for (const at::Tensor& tensor : flat) {
      values.push_back(static_cast<uint32_t>(value_of(tensor)));
    }
    trace.words.push_back(entry.id);
    trace.words.insert(trace.words.end(), values.begin(), values.end());
    trace.ops++;
    out = trace.values;
    trace.values += static_cast<int32_t>(entry.results.size());
    for (const int32_t at : entry.writes) {
      if (is_lazy(flat[static_cast<size_t>(at)])) {
        list_store(store_of(flat[static_cast<size_t>(at)]));
      }
    }
  }
  for (const auto& [at, layout] : entry.moved) {
    set_layout(*flat[static_cast<size_t>(at)].unsafeGetTensorImpl(), layout);
  }
  c10::SmallVector<c10::IValue, 4> returned;
  size_t next = 0;
  const auto result = [&]() -> at::Tensor {
    const Result& item = entry.results[next];
    const int32_t value = out + static_cast<int32_t>(next++);
    switch (item.from) {
      case From::Undefined:
        return {};
      case From::Argument:
        return flat[static_cast<size_t>(item.source)];
      case From::View: {
        at::Tensor made = make_view(flat[static_cast<size_t>(item.source)], item.layout);
        if (!entry.silent) {
          auto* lazy = static_cast<LazyTensor*>(made.unsafeGetTensorImpl());
          lazy->epoch = trace.epoch;
          lazy->value = value;
        }
        return made;
      }
      case From::Fresh:
        break;
    }
    at::Tensor made = make_tensor(item.layout);
    auto* lazy = static_cast<LazyTensor*>(made.unsafeGetTensorImpl());
    lazy->epoch = trace.epoch;
    lazy->value = value;
    Store& store = store_of(made);
    store.epoch = trace.epoch;
    store.value = value;
    list_store(store);
    return made;
  };
  for (const int32_t length : entry.lists) {
    if (length < 0) {
      returned.emplace_back(result());
      continue;
    }
    c10::List<at::Tensor> list;
    for (int32_t i = 0; i < length; i++) {
      list.push_back(result());
    }
    returned.emplace_back(std::move(list));
  }
  stack.resize(first);
  for (c10::IValue& item : returned) {
    stack.push_back(std::move(item));
  }
  flat.clear();
}

Taken peek(const std::vector<at::Tensor>& fetch) {
  Taken seen;
  std::vector<uint32_t> last;
  for (const at::Tensor& tensor : fetch) {
    const auto value = static_cast<uint32_t>(value_of(tensor));
    last.insert(last.end(), {FETCH, value, number_of(layout_of(*tensor.unsafeGetTensorImpl()))});
  }
  seen.words = trace.words;
  seen.words.insert(seen.words.end(), last.begin(), last.end());
  seen.leaves = trace.leaves;
  seen.hosts = trace.hosts;
  seen.ops = trace.ops;
  return seen;
}

size_t trace_bytes() {
  return trace.words.capacity() * sizeof(uint32_t) + trace.leaves.capacity() * sizeof(uint64_t) +
         trace.stores.capacity() * sizeof(Store*) + trace.hosts.capacity() * sizeof(at::Tensor);
}

Taken take(const std::vector<at::Tensor>& fetch) {
  delete_ended();
  Taken taken;
  std::vector<std::pair<int32_t, uint32_t>> fetched;
  for (const at::Tensor& tensor : fetch) {
    fetched.emplace_back(value_of(tensor), number_of(layout_of(*tensor.unsafeGetTensorImpl())));
  }
  // Asking for a store's value may list it once more: in the new list, which is thrown away.
  const std::vector<Store*> stores = std::exchange(trace.stores, {});
  for (Store* store : stores) {
    if (store == nullptr) {
      continue;
    }
    c10::Storage storage(store->storage.lock());
    if (!storage) {
      store->listed = -1;
      continue;  // its last tensor goes at this moment, in another thread
    }
    trace.words.insert(trace.words.end(),
                       {KEEP, static_cast<uint32_t>(base_of(*store)), number_of(store->base)});
    taken.kept.push_back(std::move(storage));
  }
  for (const auto& [value, number] : fetched) {
    trace.words.insert(trace.words.end(), {FETCH, static_cast<uint32_t>(value), number});
  }
  taken.words = std::exchange(trace.words, {});
  taken.leaves = std::exchange(trace.leaves, {});
  taken.hosts = std::exchange(trace.hosts, {});
  taken.ops = std::exchange(trace.ops, 0);
  trace.stores.clear();
  for (const c10::Storage& storage : taken.kept) {
    auto& store = *static_cast<Store*>(storage.data_ptr().get_context());
    store.listed = -1;
    store.away = true;
  }
  trace.values = 0;
  trace.module_said = 0;
  trace.epoch++;
  return taken;
}

void settle(const std::vector<c10::Storage>& kept, const std::vector<uint64_t>& handles) {
  const Hold hold;
  for (size_t i = 0; i < kept.size(); i++) {
    Store& store = *static_cast<Store*>(kept[i].data_ptr().get_context());
    const uint64_t before = store.handle;
    store.host = at::Tensor();
    store.away = false;
    store.lost = handles.empty();
    store.handle = handles.empty() ? 0 : handles[i];
    if (before != 0) {
      drop(before);
    }
  }
  Hold::run_ended();
}

}  // namespace genie::lazy
