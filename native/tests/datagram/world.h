// Registered memory on both sides of a simulation, with canaries around it.
#pragma once

#include <cstring>
#include <vector>

#include "sim.h"

namespace genie::datagram::sim {

inline std::vector<std::byte> noise(std::size_t size, std::uint64_t seed) {
  Random random(seed);
  std::vector<std::byte> out(size);
  std::size_t i = 0;
  for (; i + 8 <= size; i += 8) store<std::uint64_t>(out.data() + i, random.next());
  for (; i < size; ++i) out[i] = static_cast<std::byte>(random.next());
  return out;
}

// One registered buffer. Nobody may ever write its canaries.
class Buffer {
 public:
  static constexpr std::size_t kGuard = 256;
  static constexpr std::byte kCanary{0xc5};

  Buffer(Session& session, std::uint64_t arena, std::size_t size, std::uint64_t epoch = 1,
         bool writable = true)
      : bytes_(size + 2 * kGuard, kCanary) {
    std::memset(data(), 0, size);
    region.base = data();
    region.arena = arena;
    region.length = size;
    region.epoch = epoch;
    region.key = Key{arena * 0x1234567 + 1, size + 77};
    region.writable = writable;
    if (!session.add(region)) std::abort();
  }

  std::byte* data() { return bytes_.data() + kGuard; }
  std::size_t size() const { return bytes_.size() - 2 * kGuard; }
  Destination part(std::uint64_t offset, std::uint64_t length) const {
    return {region.arena, offset, length, region.epoch, region.key};
  }
  Destination whole() const { return part(0, size()); }
  bool guarded() const {
    for (std::size_t i = 0; i < kGuard; ++i) {
      if (bytes_[i] != kCanary || bytes_[bytes_.size() - 1 - i] != kCanary) return false;
    }
    return true;
  }
  bool holds(const std::byte* expected) {
    return size() == 0 || std::memcmp(data(), expected, size()) == 0;
  }

  Region region{};

 private:
  std::vector<std::byte> bytes_;
};

}  // namespace genie::datagram::sim
