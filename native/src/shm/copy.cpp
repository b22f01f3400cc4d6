#include "genie/copy.h"

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace genie {

#if defined(__x86_64__)
namespace {

__attribute__((target("avx"))) void stream_avx(std::byte* to, const std::byte* from,
                                               std::size_t bytes) {
  for (; bytes >= 128; bytes -= 128, to += 128, from += 128) {
    const auto* source = reinterpret_cast<const __m256i*>(from);
    auto* target = reinterpret_cast<__m256i*>(to);
    const __m256i a = _mm256_loadu_si256(source);
    const __m256i b = _mm256_loadu_si256(source + 1);
    const __m256i c = _mm256_loadu_si256(source + 2);
    const __m256i d = _mm256_loadu_si256(source + 3);
    _mm256_stream_si256(target, a);
    _mm256_stream_si256(target + 1, b);
    _mm256_stream_si256(target + 2, c);
    _mm256_stream_si256(target + 3, d);
  }
  // Streaming stores are not ordered with what announces them.
  _mm_sfence();
  std::memcpy(to, from, bytes);
}

}  // namespace

void copy_streaming(std::byte* to, const std::byte* from, std::size_t bytes) {
  static const bool avx = __builtin_cpu_supports("avx") != 0;
  const std::size_t head = (64 - (reinterpret_cast<std::uintptr_t>(to) & 63)) & 63;
  if (!avx || bytes < head + 4096) {
    std::memcpy(to, from, bytes);
    return;
  }
  std::memcpy(to, from, head);
  stream_avx(to + head, from + head, bytes - head);
}
#else
void copy_streaming(std::byte* to, const std::byte* from, std::size_t bytes) {
  std::memcpy(to, from, bytes);
}
#endif

}  // namespace genie
