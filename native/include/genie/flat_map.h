// A hash table from u64 to V without an allocation per entry: linear probing, at most half full.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace genie {

template <typename V>
class FlatMap {
 public:
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

  V* find(std::uint64_t key) {
    if (size_ == 0) return nullptr;
    for (std::size_t i = home(key); slots_[i].used; i = next(i)) {
      if (slots_[i].key == key) return &slots_[i].value;
    }
    return nullptr;
  }

  // The key must not be there yet. Pointers into the table are invalid afterwards.
  V& insert(std::uint64_t key, V value) {
    if (2 * (size_ + 1) > slots_.size()) grow();
    std::size_t i = home(key);
    while (slots_[i].used) i = next(i);
    slots_[i] = Slot{key, true, std::move(value)};
    ++size_;
    return slots_[i].value;
  }

  bool erase(std::uint64_t key) {
    if (size_ == 0) return false;
    std::size_t i = home(key);
    while (slots_[i].used && slots_[i].key != key) i = next(i);
    if (!slots_[i].used) return false;
    // Move later entries of the probe chain back, so that no tombstones are needed.
    for (std::size_t j = next(i); slots_[j].used; j = next(j)) {
      const std::size_t wanted = home(slots_[j].key);
      if (((j - wanted) & mask()) >= ((j - i) & mask())) {
        slots_[i] = std::move(slots_[j]);
        i = j;
      }
    }
    slots_[i] = Slot{};
    --size_;
    return true;
  }

  void clear() {
    slots_.clear();
    size_ = 0;
  }

  // Calls f(key, value) for each entry; f must not change the table.
  template <typename F>
  void each(F f) {
    for (auto& slot : slots_) {
      if (slot.used) f(slot.key, slot.value);
    }
  }
  template <typename F>
  void each(F f) const {
    for (const auto& slot : slots_) {
      if (slot.used) f(slot.key, slot.value);
    }
  }

 private:
  struct Slot {
    std::uint64_t key = 0;
    bool used = false;
    V value{};
  };

  std::size_t mask() const { return slots_.size() - 1; }
  std::size_t next(std::size_t i) const { return (i + 1) & mask(); }
  std::size_t home(std::uint64_t key) const {
    return static_cast<std::size_t>((key * 0x9E3779B97F4A7C15ull) >> 32) & mask();
  }

  void grow() {
    std::vector<Slot> old(slots_.empty() ? 16 : 2 * slots_.size());
    old.swap(slots_);
    size_ = 0;
    for (auto& slot : old) {
      if (slot.used) insert(slot.key, std::move(slot.value));
    }
  }

  std::vector<Slot> slots_;
  std::size_t size_ = 0;
};

}  // namespace genie
