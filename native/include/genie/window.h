// Sliding sets of bits: which datagrams of a peer were received, and which chunks of a message.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <vector>

#include "genie/frame.h"

namespace genie::datagram {

// A sender keeps its open packet numbers within this span, so that none of its live datagrams is
// ever too old for the receiver's window.
inline constexpr std::uint64_t kPacketSpan = 8192;
// How far ahead of the first missing chunk of a message a sender may go.
inline constexpr std::uint64_t kChunkSpan = 8192;

// Received packet numbers: refuses replays, and says what to acknowledge.
class PacketWindow {
 public:
  enum class Verdict { Fresh, Duplicate, TooOld };

  Verdict check(std::uint64_t number) const {
    if (!any_ || number > largest_) return Verdict::Fresh;
    if (largest_ - number >= kPacketSpan) return Verdict::TooOld;
    return test(number) ? Verdict::Duplicate : Verdict::Fresh;
  }

  // `number` must have been Fresh. True when it is the one expected next: nothing is missing.
  bool mark(std::uint64_t number) {
    const bool in_order = any_ ? number == largest_ + 1 : number == 0;
    if (!any_ || number > largest_) {
      advance(number);
      largest_ = number;
      any_ = true;
    }
    bits_[word(number)] |= bit(number);
    absorb();
    return in_order;
  }

  // The peer does not wait for anything below `floor` any more.
  void raise_floor(std::uint64_t floor) {
    if (floor <= cumulative_) return;
    cumulative_ = floor;
    absorb();
  }

  bool any() const { return any_; }
  std::uint64_t largest() const { return largest_; }
  std::uint64_t cumulative() const { return cumulative_; }

  // Bit i: largest() - 255 + i was received. Numbers below 0 wrap to places not yet in use.
  std::array<std::uint64_t, kAckWords> recent() const {
    std::array<std::uint64_t, kAckWords> out{};
    for (std::size_t i = 0; i < kAckWords; ++i) {
      const std::uint64_t first = largest_ - (kAckBits - 1) + 64 * i;
      out[i] = bits_[word(first)] >> (first % 64);
      if (first % 64 != 0) out[i] |= bits_[word(first + 63)] << (64 - first % 64);
    }
    return out;
  }

 private:
  static std::size_t word(std::uint64_t number) { return number / 64 % (kPacketSpan / 64); }
  static std::uint64_t bit(std::uint64_t number) { return std::uint64_t{1} << (number % 64); }
  bool test(std::uint64_t number) const { return (bits_[word(number)] & bit(number)) != 0; }

  void advance(std::uint64_t number) {
    const std::uint64_t gap = any_ ? number - largest_ : kPacketSpan;
    if (gap >= kPacketSpan) {
      bits_.fill(0);
      return;
    }
    for (std::uint64_t n = largest_ + 1; n <= number; ++n) bits_[word(n)] &= ~bit(n);
  }

  // Moves the cumulative point over what is there; what has left the window cannot be asked about.
  void absorb() {
    if (!any_) return;
    if (largest_ >= kPacketSpan) cumulative_ = std::max(cumulative_, largest_ - kPacketSpan + 1);
    while (cumulative_ <= largest_ && test(cumulative_)) ++cumulative_;
  }

  std::array<std::uint64_t, kPacketSpan / 64> bits_{};
  std::uint64_t largest_ = 0;
  std::uint64_t cumulative_ = 0;  // all below: received, or given up by the peer
  bool any_ = false;
};

// The chunks of one message that are there. Small messages need no memory of their own.
class ChunkWindow {
 public:
  void reset(std::uint64_t chunks) {
    base_ = 0;
    count_ = chunks;
    const std::uint64_t bits = std::bit_ceil(std::clamp<std::uint64_t>(chunks, 64, kChunkSpan));
    mask_ = bits - 1;
    first_ = 0;
    if (bits > 64) {
      more_.assign(bits / 64, 0);
    } else {
      more_.clear();
    }
  }
  // Gives back what a large message needed.
  void release() {
    if (more_.capacity() > 16) std::vector<std::uint64_t>().swap(more_);
    count_ = base_ = 0;
  }

  std::uint64_t base() const { return base_; }
  bool complete() const { return base_ == count_; }
  // Whether the window reaches to `chunk`.
  bool covers(std::uint64_t chunk) const { return chunk < count_ && chunk <= base_ + mask_; }
  bool test(std::uint64_t chunk) const {
    return chunk < base_ || (at(chunk) >> (chunk % 64) & 1) != 0;
  }
  // `chunk` must be covered and not be set.
  void set(std::uint64_t chunk) {
    at(chunk) |= std::uint64_t{1} << (chunk % 64);
    while (base_ < count_ && (at(base_) >> (base_ % 64) & 1) != 0) {
      at(base_) &= ~(std::uint64_t{1} << (base_ % 64));
      ++base_;
    }
  }

 private:
  std::uint64_t& at(std::uint64_t chunk) {
    return more_.empty() ? first_ : more_[(chunk & mask_) / 64];
  }
  const std::uint64_t& at(std::uint64_t chunk) const {
    return more_.empty() ? first_ : more_[(chunk & mask_) / 64];
  }

  std::uint64_t base_ = 0;
  std::uint64_t count_ = 0;
  std::uint64_t mask_ = 63;
  std::uint64_t first_ = 0;
  std::vector<std::uint64_t> more_;
};

}  // namespace genie::datagram
