// Copies of large blocks.
#pragma once

#include <cstddef>

namespace genie {

// As memcpy, but the destination goes past the caches: for blocks that nobody on this core reads
// soon. It saves reading the destination's lines before they are overwritten.
void copy_streaming(std::byte* to, const std::byte* from, std::size_t bytes);

}  // namespace genie
