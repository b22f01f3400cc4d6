// One direction of a shared-memory connection: a ring of descriptors and a ring of bytes, in an
// arena that its sender alone can write. What the receiver has to say about it (how far it has
// read) stands in the receiver's own arena, so neither side can corrupt the other's state.
//
//     Control (one page) · descriptors (entries × 64) · bytes
//
// A descriptor is published by its ticket, which counts all descriptors from 1. The receiver
// copies a descriptor before it looks at it, and computes itself where in the ring the bytes must
// stand: of all that a peer writes only the message's own content is ever used unchecked.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "genie/arena.h"
#include "genie/link.h"

namespace genie {

struct Descriptor {
  std::uint64_t ticket = 0;
  std::uint8_t kind = 0;
  std::uint8_t reserved[3] = {};
  std::uint32_t payload = 0;
  std::uint64_t message = 0;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  std::uint64_t credit = 0;
  std::uint64_t arena = 0;     // 0: the ring; else a shared arena's number
  std::uint64_t position = 0;  // within it; for the ring, counted from the beginning of time
};
static_assert(sizeof(Descriptor) == 64);

struct SegmentControl {
  std::uint64_t magic = 0;
  std::uint64_t version = 0;
  std::uint64_t entries = 0;
  std::uint64_t bytes = 0;
  // Each on a line of its own; only the owner writes.
  alignas(64) std::atomic<std::uint64_t> consumed{0};  // descriptors of the peer's ring
  alignas(64) std::atomic<std::uint64_t> sleeping{0};  // odd while the owner sleeps
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);
inline constexpr std::size_t kControlBytes = 4096;

// The sender's end.
class RingWriter {
 public:
  static std::unique_ptr<RingWriter> create(std::size_t entries, std::size_t bytes,
                                            std::string& error);

  int fd() const { return arena_->fd(); }
  SegmentControl& control() { return *control_; }
  // Notes how many descriptors the receiver says it has taken. False when that cannot be.
  bool reclaim(std::uint64_t consumed);
  // Room for a descriptor with `bytes`; reclaim() may make some.
  bool fits(std::uint64_t bytes) const { return next_ - taken_ < entries_ && bytes <= room(); }
  std::uint64_t room() const { return bytes_ - (head_ - tail_); }
  bool idle() const { return next_ == taken_; }
  // fits() must hold for all that is appended before the publication.
  void append(const std::byte* from, std::size_t bytes);
  void publish(Descriptor descriptor);

 private:
  RingWriter(std::unique_ptr<Arena> arena, std::size_t entries, std::size_t bytes);

  std::unique_ptr<Arena> arena_;
  SegmentControl* control_;
  std::byte* descriptors_;
  std::byte* data_;
  std::uint64_t entries_;
  std::uint64_t bytes_;
  std::uint64_t next_ = 0;           // descriptors published
  std::uint64_t taken_ = 0;          // of these, taken
  std::uint64_t head_ = 0;           // bytes appended
  std::uint64_t tail_ = 0;           // bytes given back
  std::uint64_t begin_ = 0;          // where the descriptor being built begins
  std::vector<std::uint64_t> ends_;  // where the bytes of each descriptor end
};

// The receiver's end, over memory that a peer writes at any time.
class RingReader {
 public:
  // Takes `fd`. Null, and `error` says why, when it is not a ring.
  static std::unique_ptr<RingReader> open(int fd, std::string& error);

  const SegmentControl& control() const { return *control_; }
  bool ready() const;
  std::uint64_t taken() const { return taken_; }
  // Copies the next descriptor out; false when there is none.
  bool peek(Descriptor& descriptor) const;
  // True when the descriptor's `bytes` stand where they must.
  bool within(const Descriptor& descriptor, std::uint64_t bytes) const;
  // Copies `bytes` at ring position `at`, which must be part of a range that is within().
  void copy(std::uint64_t at, std::byte* to, std::size_t bytes, bool streaming) const;
  // Goes on behind the descriptor and its `bytes`.
  void advance(std::uint64_t bytes) {
    ++taken_;
    position_ += bytes;
  }

 private:
  RingReader(std::unique_ptr<Arena> arena, std::size_t entries, std::size_t bytes);

  std::unique_ptr<Arena> arena_;
  const SegmentControl* control_;
  const std::byte* descriptors_;
  const std::byte* data_;
  std::uint64_t entries_;
  std::uint64_t bytes_;
  std::uint64_t taken_ = 0;
  std::uint64_t position_ = 0;
};

}  // namespace genie
