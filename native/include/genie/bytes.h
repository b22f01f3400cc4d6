// Fixed-width values as they stand on a wire or in shared memory: little-endian, unaligned.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace genie {

static_assert(std::endian::native == std::endian::little, "big-endian hosts are not supported");

template <typename T>
T load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

template <typename T>
void store(std::byte* at, T value) {
  std::memcpy(at, &value, sizeof(T));
}

// The 16 random bytes of a handle. Only keys made on this side are ever inserted in a table, so
// the hash needs no defence against chosen keys.
struct Key {
  std::uint64_t low = 0;
  std::uint64_t high = 0;

  friend bool operator==(const Key&, const Key&) = default;
};

struct KeyHash {
  std::size_t operator()(const Key& key) const noexcept {
    return static_cast<std::size_t>(key.low ^ (key.high * 0x9E3779B97F4A7C15ull));
  }
};

// Numbers of messages, offsets and lengths stay below this, so that sums of two cannot wrap.
inline constexpr std::uint64_t kU63 = std::uint64_t{1} << 63;

}  // namespace genie
