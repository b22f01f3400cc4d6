// Copies of large blocks.
#pragma once

#include <cstddef>
#include <cstring>

namespace genie {

inline void copy(std::byte* to, const std::byte* from, std::size_t bytes) {
  std::memcpy(to, from, bytes);
}

// As copy, but the destination goes past the caches: for blocks that nobody on this core reads
// soon. It saves reading the destination's lines before they are overwritten.
void copy_streaming(std::byte* to, const std::byte* from, std::size_t bytes);

}  // namespace genie
