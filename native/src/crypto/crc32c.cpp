// CRC32C. The instruction has a latency of three cycles and one can start each cycle: three
// independent sums run side by side, and are joined by moving the first two over the bytes behind
// them (a product in GF(2), done with tables made once).
#include <algorithm>
#include <array>
#include <cstring>

#include "genie/crypto.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace genie::datagram {

namespace {

constexpr std::uint32_t kPolynomial = 0x82f63b78;  // reflected
constexpr std::size_t kLane = 1024;                // three of these fit the first-level cache
constexpr std::size_t kAhead = 8 << 10;            // of prefetching

using ByteTable = std::array<std::uint32_t, 256>;

constexpr ByteTable make_byte_table() {
  ByteTable table{};
  for (std::uint32_t n = 0; n < 256; ++n) {
    std::uint32_t crc = n;
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 1) ? (crc >> 1) ^ kPolynomial : crc >> 1;
    table[n] = crc;
  }
  return table;
}

constexpr ByteTable kBytes = make_byte_table();

constexpr std::uint32_t zero_byte(std::uint32_t crc) { return kBytes[crc & 0xff] ^ (crc >> 8); }

// Where a register goes when `bytes` zero bytes follow, for each of its four bytes alone. Moving
// is linear: the image of each single bit is moved step by step, the rest are sums of those.
struct Shift {
  std::array<ByteTable, 4> part{};

  constexpr explicit Shift(std::size_t bytes) {
    std::array<std::uint32_t, 32> image{};
    for (std::size_t bit = 0; bit < 32; ++bit) {
      std::uint32_t crc = std::uint32_t{1} << bit;
      for (std::size_t i = 0; i < bytes; ++i) crc = zero_byte(crc);
      image[bit] = crc;
    }
    for (std::size_t byte = 0; byte < 4; ++byte) {
      for (std::size_t value = 0; value < 256; ++value) {
        std::uint32_t sum = 0;
        for (std::size_t bit = 0; bit < 8; ++bit) {
          if (value >> bit & 1) sum ^= image[8 * byte + bit];
        }
        part[byte][value] = sum;
      }
    }
  }

  std::uint32_t operator()(std::uint32_t crc) const {
    return part[0][crc & 0xff] ^ part[1][crc >> 8 & 0xff] ^ part[2][crc >> 16 & 0xff] ^
           part[3][crc >> 24];
  }
};

std::uint32_t raw_portable(std::uint32_t crc, const std::byte* bytes, std::size_t size) {
  for (std::size_t i = 0; i < size; ++i) {
    crc = kBytes[(crc ^ std::to_integer<std::uint32_t>(bytes[i])) & 0xff] ^ (crc >> 8);
  }
  return crc;
}

#if defined(__x86_64__)

std::uint64_t word(const std::byte* at) {
  std::uint64_t value;
  std::memcpy(&value, at, 8);
  return value;
}

__attribute__((target("sse4.2"))) std::uint32_t raw_sse42(std::uint32_t crc, const std::byte* bytes,
                                                          std::size_t size) {
  static const Shift one{kLane};
  while (size >= 3 * kLane) {
    std::uint64_t a = crc, b = 0, c = 0;
    for (std::size_t i = 0; i < kLane; i += 8) {
      a = _mm_crc32_u64(a, word(bytes + i));
      b = _mm_crc32_u64(b, word(bytes + kLane + i));
      c = _mm_crc32_u64(c, word(bytes + 2 * kLane + i));
    }
    crc = one(one(static_cast<std::uint32_t>(a)) ^ static_cast<std::uint32_t>(b)) ^
          static_cast<std::uint32_t>(c);
    bytes += 3 * kLane;
    size -= 3 * kLane;
  }
  static constexpr std::size_t kShort = 128;
  static const Shift few{kShort};
  while (size >= 3 * kShort) {
    std::uint64_t a = crc, b = 0, c = 0;
    for (std::size_t i = 0; i < kShort; i += 8) {
      a = _mm_crc32_u64(a, word(bytes + i));
      b = _mm_crc32_u64(b, word(bytes + kShort + i));
      c = _mm_crc32_u64(c, word(bytes + 2 * kShort + i));
    }
    crc = few(few(static_cast<std::uint32_t>(a)) ^ static_cast<std::uint32_t>(b)) ^
          static_cast<std::uint32_t>(c);
    bytes += 3 * kShort;
    size -= 3 * kShort;
  }
  std::uint64_t sum = crc;
  for (; size >= 8; bytes += 8, size -= 8) sum = _mm_crc32_u64(sum, word(bytes));
  crc = static_cast<std::uint32_t>(sum);
  for (; size > 0; ++bytes, --size) crc = _mm_crc32_u8(crc, std::to_integer<std::uint8_t>(*bytes));
  return crc;
}

// As raw_sse42 over three lanes, and copies them. One side is often cold, and large messages are
// taken piece by piece: asking for what lies a piece or two ahead on that side, whether it is still
// of this piece or not (asking never faults), hides the memory's latency, and triples the rate.
template <std::size_t kBytes, Cold kCold>
__attribute__((target("sse4.2,prfchw"))) std::uint32_t copy_sse42(std::uint32_t crc, std::byte* out,
                                                                  const std::byte* in) {
  static const Shift one{kBytes};
  std::uint64_t a = crc, b = 0, c = 0;
  for (std::size_t i = 0; i < kBytes; i += 64) {
    for (std::size_t line = 3 * i; line < 3 * i + 192; line += 64) {
      if constexpr (kCold == Cold::Source) __builtin_prefetch(in + kAhead + line);
      if constexpr (kCold == Cold::Destination) __builtin_prefetch(out + kAhead + line, 1);
    }
    for (std::size_t j = i; j < i + 64; j += 8) {
      const std::uint64_t x = word(in + j), y = word(in + kBytes + j),
                          z = word(in + 2 * kBytes + j);
      std::memcpy(out + j, &x, 8);
      std::memcpy(out + kBytes + j, &y, 8);
      std::memcpy(out + 2 * kBytes + j, &z, 8);
      a = _mm_crc32_u64(a, x);
      b = _mm_crc32_u64(b, y);
      c = _mm_crc32_u64(c, z);
    }
  }
  return one(one(static_cast<std::uint32_t>(a)) ^ static_cast<std::uint32_t>(b)) ^
         static_cast<std::uint32_t>(c);
}

// Copies and sums what whole lanes hold, and moves the three past it.
template <Cold kCold>
void copy_lanes(std::uint32_t& crc, std::byte*& out, const std::byte*& in, std::size_t& size) {
  const auto lanes = [&]<std::size_t kBytes>() {
    for (; size >= 3 * kBytes; size -= 3 * kBytes, in += 3 * kBytes, out += 3 * kBytes) {
      crc = copy_sse42<kBytes, kCold>(crc, out, in);
    }
  };
  lanes.template operator()<kLane>();
  lanes.template operator()<kLane / 4>();
}

const bool has_sse42 = __builtin_cpu_supports("sse4.2") != 0;

std::uint32_t raw(std::uint32_t crc, const std::byte* bytes, std::size_t size) {
  return has_sse42 ? raw_sse42(crc, bytes, size) : raw_portable(crc, bytes, size);
}

#else

std::uint32_t raw(std::uint32_t crc, const std::byte* bytes, std::size_t size) {
  return raw_portable(crc, bytes, size);
}

#endif

}  // namespace

std::uint32_t crc32c(std::uint32_t crc, const std::byte* bytes, std::size_t size) {
  return ~raw(~crc, bytes, size);
}

std::uint32_t crc32c_portable(std::uint32_t crc, const std::byte* bytes, std::size_t size) {
  return ~raw_portable(~crc, bytes, size);
}

std::uint32_t crc32c_copy(std::uint32_t crc, std::byte* out, const std::byte* in, std::size_t size,
                          Cold cold) {
  crc = ~crc;
#if defined(__x86_64__)
  if (has_sse42) {
    switch (cold) {
      case Cold::Neither:
        copy_lanes<Cold::Neither>(crc, out, in, size);
        break;
      case Cold::Source:
        copy_lanes<Cold::Source>(crc, out, in, size);
        break;
      case Cold::Destination:
        copy_lanes<Cold::Destination>(crc, out, in, size);
        break;
    }
  }
#else
  static_cast<void>(cold);
#endif
  while (size > 0) {
    const std::size_t piece = std::min(size, 3 * kLane);
    std::memcpy(out, in, piece);
    crc = raw(crc, out, piece);
    in += piece;
    out += piece;
    size -= piece;
  }
  return ~crc;
}

}  // namespace genie::datagram
