#include "cache.h"

#include <ATen/ops/item.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <deque>
#include <unordered_map>

namespace genie::lazy {

namespace {

using Words = std::vector<uint64_t>;

struct WordsHash {
  size_t operator()(const Words& words) const {
    uint64_t hash = words.size();
    for (const uint64_t word : words) {
      hash = (hash ^ word) * 0x9e3779b97f4a7c15ull;
      hash ^= hash >> 29;
    }
    return hash;
  }
};

std::unordered_map<Words, Entry*, WordsHash> cache;
std::deque<Entry> entries;
std::unordered_map<const void*, OpInfo> infos;
std::unordered_set<std::string> allowed;
thread_local Words key;

enum Tag : uint64_t {
  NONE = 1,
  INT,
  DOUBLE,
  BOOL,
  INTS,
  LIST,
  STRING,
  DEVICE_TAG,
  COMPLEX,
  TENSOR,
  UNDEFINED,
  NUMBER,
};

void put_tensor(const at::Tensor& tensor) {
  if (!tensor.defined()) {
    key.push_back(UNDEFINED);
    return;
  }
  const at::TensorImpl& impl = *tensor.unsafeGetTensorImpl();
  if (impl.is_wrapped_number()) {
    key.push_back(NUMBER | static_cast<uint64_t>(impl.dtype().toScalarType()) << 8);
    const at::Scalar number = tensor.item();
    const auto parts = number.toComplexDouble();
    if (number.isIntegral(true)) {
      key.push_back(static_cast<uint64_t>(number.toLong()));
    } else {
      key.push_back(std::bit_cast<uint64_t>(parts.real()));
      key.push_back(std::bit_cast<uint64_t>(parts.imag()));
    }
    return;
  }
  key.push_back(TENSOR | static_cast<uint64_t>(impl.dtype().toScalarType()) << 8 |
                static_cast<uint64_t>(impl.device_type()) << 16 |
                static_cast<uint64_t>(impl.is_conj()) << 24 |
                static_cast<uint64_t>(impl.is_neg()) << 25 |
                static_cast<uint64_t>(impl.dim()) << 32);
  for (const int64_t size : impl.sizes()) {
    key.push_back(static_cast<uint64_t>(size));
  }
  for (const int64_t stride : impl.strides()) {
    key.push_back(static_cast<uint64_t>(stride));
  }
  key.push_back(static_cast<uint64_t>(impl.storage_offset()));
  if (impl.device_type() == DEVICE) {
    key.push_back(impl.unsafe_storage().nbytes());
  }
}

void put(const c10::IValue& value) {
  if (value.isTensor()) {
    put_tensor(value.toTensor());
  } else if (value.isNone()) {
    key.push_back(NONE);
  } else if (value.isInt()) {
    key.insert(key.end(), {INT, static_cast<uint64_t>(value.toInt())});
  } else if (value.isDouble()) {
    key.insert(key.end(), {DOUBLE, std::bit_cast<uint64_t>(value.toDouble())});
  } else if (value.isBool()) {
    key.push_back(BOOL | static_cast<uint64_t>(value.toBool()) << 8);
  } else if (value.isIntList()) {
    const auto numbers = value.toIntList();
    key.push_back(INTS | static_cast<uint64_t>(numbers.size()) << 8);
    for (const int64_t number : numbers) {
      key.push_back(static_cast<uint64_t>(number));
    }
  } else if (value.isList()) {
    const auto items = value.toListRef();
    key.push_back(LIST | static_cast<uint64_t>(items.size()) << 8);
    for (const c10::IValue& item : items) {
      put(item);
    }
  } else if (value.isString()) {
    const std::string& text = value.toStringRef();
    key.push_back(STRING | static_cast<uint64_t>(text.size()) << 8);
    for (size_t at = 0; at < text.size(); at += 8) {
      uint64_t word = 0;
      std::memcpy(&word, text.data() + at, std::min<size_t>(8, text.size() - at));
      key.push_back(word);
    }
  } else if (value.isDevice()) {
    key.push_back(DEVICE_TAG | static_cast<uint64_t>(value.toDevice().type()) << 8);
  } else if (value.isComplexDouble()) {
    const auto number = value.toComplexDouble();
    key.insert(key.end(), {COMPLEX, std::bit_cast<uint64_t>(number.real()),
                           std::bit_cast<uint64_t>(number.imag())});
  } else {
    TORCH_CHECK_NOT_IMPLEMENTED(false, "an argument of type ", value.tagKind());
  }
}

Entry& add(Entry entry) {
  entry.id = static_cast<uint32_t>(entries.size());
  entries.push_back(std::move(entry));
  return entries.back();
}

}  // namespace

void set_allowed(std::unordered_set<std::string> names) { allowed = std::move(names); }

Entry& entry_at(uint32_t id) {
  const Hold hold;
  return entries.at(id);
}

size_t entry_count() {
  const Hold hold;
  return entries.size();
}

OpInfo& info_of(const c10::OperatorHandle& op) {
  const Hold hold;
  const auto [found, fresh] = infos.try_emplace(&op.schema());
  OpInfo& info = found->second;
  if (!fresh) {
    return info;
  }
  const auto& schema = op.schema();
  std::string name = schema.name();
  name.replace(name.find("::"), 2, ".");
  info.name = name + "." + (schema.overload_name().empty() ? "default" : schema.overload_name());
  info.arguments = schema.arguments().size();
  info.allowed = allowed.contains(info.name);
  static const std::unordered_set<std::string> layouts_only = {
      "aten.t_.default",        "aten.transpose_.default", "aten.squeeze_.default",
      "aten.squeeze_.dim",      "aten.squeeze_.dims",      "aten.unsqueeze_.default",
      "aten.swapaxes_.default", "aten.swapdims_.default",  "aten.as_strided_.default",
  };
  info.silent = layouts_only.contains(info.name);
  info.allowed |= info.silent;
  info.foreign = info.name.starts_with("aten.index") || info.name.starts_with("aten._index") ||
                 info.name.starts_with("aten._unsafe_index");
  for (size_t i = 0; i < info.arguments; i++) {
    const std::string type = schema.arguments()[i].type()->str();
    info.random |= type.find("Generator") != std::string::npos;
    if (type.find("Device") != std::string::npos) {
      info.device = static_cast<int>(i);
    }
  }
  for (const auto tag : op.getTags()) {
    info.random |= tag == at::Tag::nondeterministic_seeded;
  }
  for (const auto& item : schema.returns()) {
    const std::string type = item.type()->str();
    info.not_tensors |= type != "Tensor" && type != "Tensor[]";
  }
  return info;
}

Entry& find_entry(const c10::OperatorHandle& op, OpInfo& info, const Stack& stack, size_t first) {
  key.clear();
  key.push_back(reinterpret_cast<uintptr_t>(&info));
  for (size_t i = 0; i < info.arguments; i++) {
    put(stack[first + i]);
  }
  {
    const Hold hold;
    const auto found = cache.find(key);
    if (found != cache.end()) {
      counts.hits++;
      return *found->second;
    }
  }
  const Words mine = key;  // the meta kernels below may come back here
  Entry made(op);
  try {
    fill(made, info, stack, first);
  } catch (const std::exception& error) {
    // A data-dependent size, no meta kernel, or the program's own mistake: the host will tell.
    made = Entry(op);
    made.on_host = true;
    made.reason = std::string("its result cannot be told beforehand: ") + error.what();
    made.reason = made.reason.substr(0, made.reason.find('\n'));
  }
  const Hold hold;
  const auto [found, fresh] = cache.try_emplace(mine, nullptr);
  if (fresh) {
    counts.misses++;
    found->second = &add(std::move(made));
  }
  return *found->second;
}

Entry& internal_entry(const char* name, const char* overload, Stack arguments, size_t inputs,
                      const Layout& made) {
  const auto op = c10::Dispatcher::singleton().findSchemaOrThrow(name, overload);
  Words mine{reinterpret_cast<uintptr_t>(&op.schema()), static_cast<uint64_t>(made.dtype),
             static_cast<uint64_t>(made.conj) << 1 | static_cast<uint64_t>(made.neg)};
  {
    const Words outer = std::exchange(key, {});
    for (const c10::IValue& argument : arguments) {
      put(argument);
    }
    mine.insert(mine.end(), key.begin(), key.end());
    key = outer;
  }
  const auto [found, fresh] = cache.try_emplace(mine, nullptr);
  if (!fresh) {
    return *found->second;
  }
  Entry entry(op);
  for (size_t i = 0; i < arguments.size(); i++) {
    entry.kinds.push_back(i < inputs ? Kind::Tensor : Kind::Literal);
    entry.literals.push_back(std::move(arguments[i]));
  }
  Result result;
  result.from = inputs == 0 ? From::Fresh : From::View;
  result.source = 0;
  result.layout = made;
  entry.results.push_back(result);
  entry.lists.push_back(-1);
  found->second = &add(std::move(entry));
  return *found->second;
}

}  // namespace genie::lazy
