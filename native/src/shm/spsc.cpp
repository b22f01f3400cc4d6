#include "genie/spsc.h"

#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <new>

#include "genie/copy.h"

namespace genie {
namespace {

constexpr std::uint64_t kMagic = 0x676E6972'65696E65ull;
constexpr std::uint64_t kVersion = 1;
constexpr std::uint64_t kMinEntries = 64;
constexpr std::uint64_t kMaxEntries = 1u << 16;
constexpr std::uint64_t kMinBytes = 64u << 10;
constexpr std::uint64_t kMaxBytes = std::uint64_t{1} << 31;

constexpr std::size_t segment_bytes(std::size_t entries, std::size_t bytes) {
  return kControlBytes + entries * sizeof(Descriptor) + bytes;
}

constexpr bool plausible(std::uint64_t entries, std::uint64_t bytes) {
  return std::has_single_bit(entries) && std::has_single_bit(bytes) && entries >= kMinEntries &&
         entries <= kMaxEntries && bytes >= kMinBytes && bytes <= kMaxBytes;
}

}  // namespace

// -- writer -----------------------------------------------------------------------------------

std::unique_ptr<RingWriter> RingWriter::create(std::size_t entries, std::size_t bytes,
                                               std::string& error) {
  entries = std::bit_ceil(std::clamp<std::size_t>(entries, kMinEntries, kMaxEntries));
  bytes = std::bit_ceil(std::clamp<std::size_t>(bytes, kMinBytes, kMaxBytes));
  auto arena = Arena::create(segment_bytes(entries, bytes), true, error);
  if (arena == nullptr) return nullptr;
  return std::unique_ptr<RingWriter>(new RingWriter(std::move(arena), entries, bytes));
}

RingWriter::RingWriter(std::unique_ptr<Arena> arena, std::size_t entries, std::size_t bytes)
    : arena_(std::move(arena)),
      control_(new (arena_->data()) SegmentControl),
      descriptors_(arena_->data() + kControlBytes),
      data_(descriptors_ + entries * sizeof(Descriptor)),
      entries_(entries),
      bytes_(bytes),
      ends_(entries) {
  control_->magic = kMagic;
  control_->version = kVersion;
  control_->entries = entries;
  control_->bytes = bytes;
}

bool RingWriter::reclaim(std::uint64_t consumed) {
  if (consumed < taken_ || consumed > next_) return false;
  if (consumed > taken_) {
    taken_ = consumed;
    tail_ = ends_[(consumed - 1) & (entries_ - 1)];
  }
  return true;
}

void RingWriter::append(const std::byte* from, std::size_t bytes) {
  const std::uint64_t at = head_ & (bytes_ - 1);
  const std::size_t first = std::min<std::uint64_t>(bytes, bytes_ - at);
  std::memcpy(data_ + at, from, first);
  if (first < bytes) std::memcpy(data_, from + first, bytes - first);
  head_ += bytes;
}

void RingWriter::publish(Descriptor descriptor) {
  const std::uint64_t slot = next_ & (entries_ - 1);
  ends_[slot] = head_;
  if (descriptor.arena == 0) descriptor.position = begin_;
  begin_ = head_;
  descriptor.ticket = ++next_;
  std::byte* at = descriptors_ + slot * sizeof(Descriptor);
  std::memcpy(at + 8, reinterpret_cast<const std::byte*>(&descriptor) + 8, sizeof descriptor - 8);
  std::atomic_ref(*reinterpret_cast<std::uint64_t*>(at)).store(descriptor.ticket);
}

// -- reader -----------------------------------------------------------------------------------

std::unique_ptr<RingReader> RingReader::open(int fd, std::string& error) {
  auto arena = Arena::open(fd, segment_bytes(kMaxEntries, kMaxBytes) + kHugePage, error);
  if (arena == nullptr) return nullptr;
  SegmentControl found;
  if (arena->size() < kControlBytes) {
    error = "the peer's memory is no ring";
    return nullptr;
  }
  // The first four values, once: what counts from now on is our copy.
  std::memcpy(static_cast<void*>(&found), arena->data(), 32);
  if (found.magic != kMagic || found.version != kVersion ||
      !plausible(found.entries, found.bytes) ||
      segment_bytes(found.entries, found.bytes) > arena->size()) {
    error = "the peer's memory is no ring";
    return nullptr;
  }
  return std::unique_ptr<RingReader>(new RingReader(std::move(arena), found.entries, found.bytes));
}

RingReader::RingReader(std::unique_ptr<Arena> arena, std::size_t entries, std::size_t bytes)
    : arena_(std::move(arena)),
      control_(reinterpret_cast<const SegmentControl*>(static_cast<const Arena&>(*arena_).data())),
      descriptors_(static_cast<const Arena&>(*arena_).data() + kControlBytes),
      data_(descriptors_ + entries * sizeof(Descriptor)),
      entries_(entries),
      bytes_(bytes) {}

bool RingReader::ready() const {
  const std::byte* at = descriptors_ + (taken_ & (entries_ - 1)) * sizeof(Descriptor);
  // atomic_ref wants a mutable object; a load does not write it.
  auto* ticket = const_cast<std::uint64_t*>(reinterpret_cast<const std::uint64_t*>(at));
  return std::atomic_ref(*ticket).load() == taken_ + 1;
}

bool RingReader::peek(Descriptor& descriptor) const {
  if (!ready()) return false;
  const std::byte* at = descriptors_ + (taken_ & (entries_ - 1)) * sizeof(Descriptor);
  std::memcpy(static_cast<void*>(&descriptor), at, sizeof descriptor);
  return true;
}

bool RingReader::within(const Descriptor& descriptor, std::uint64_t bytes) const {
  return descriptor.position == position_ && bytes <= bytes_;
}

void RingReader::copy(std::uint64_t at, std::byte* to, std::size_t bytes, bool streaming) const {
  const std::uint64_t begin = at & (bytes_ - 1);
  const std::size_t first = std::min<std::uint64_t>(bytes, bytes_ - begin);
  const auto move = streaming ? copy_streaming : genie::copy;
  move(to, data_ + begin, first);
  if (first < bytes) move(to + first, data_, bytes - first);
}

}  // namespace genie
