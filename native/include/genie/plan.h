// One datagram before it is sealed: the records that go into it, and what they were about.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "genie/flight.h"
#include "genie/frame.h"

namespace genie::datagram {

class Plan {
 public:
  // More small messages than this do not share a datagram.
  static constexpr std::size_t kMaxPieces = 96;

  struct Piece {
    std::array<std::byte, kOpenBytes> head;
    std::uint16_t head_bytes;
    std::uint16_t size;
    const std::byte* payload;
  };

  void begin(std::size_t datagram_bytes) {
    room_ = (datagram_bytes - kHeaderBytes) & ~std::size_t{15};
    body_ = count_ = ref_count_ = 0;
    eliciting_ = false;
  }

  bool fits(RecordType type, std::size_t payload = 0) const {
    return count_ < kMaxPieces && record_head_bytes(type) + padded(payload) <= room_ - body_;
  }

  bool fits_all(std::size_t bytes, std::size_t records) const {
    return count_ + records <= kMaxPieces && bytes <= room_ - body_;
  }

  // fits() must hold.
  void add(const Record& record) {
    Piece& piece = pieces_[count_++];
    piece.head_bytes = static_cast<std::uint16_t>(encode_record(record, piece.head.data()));
    piece.size = record.size;
    piece.payload = record.payload;
    body_ += piece.head_bytes + padded(record.size);
  }
  // A record whose arrival or loss matters.
  void add(const Record& record, const Ref& ref) {
    add(record);
    refs_[ref_count_++] = ref;
    eliciting_ = true;
  }

  bool empty() const { return count_ == 0; }
  bool eliciting() const { return eliciting_; }
  std::size_t body() const { return body_; }
  std::span<const Piece> pieces() const { return {pieces_.data(), count_}; }
  std::span<const Ref> refs() const { return {refs_.data(), ref_count_}; }

 private:
  std::array<Piece, kMaxPieces> pieces_;
  std::array<Ref, kMaxPieces> refs_;
  std::size_t room_ = 0;
  std::size_t body_ = 0;
  std::size_t count_ = 0;
  std::size_t ref_count_ = 0;
  bool eliciting_ = false;
};

}  // namespace genie::datagram
