#include "genie/flight.h"

#include <algorithm>
#include <bit>

namespace genie::datagram {

namespace {

constexpr std::uint64_t kMaxReorder = 256;
constexpr unsigned kMaxEighths = 32;
constexpr std::size_t kProbeRefs = 2;

std::array<std::uint64_t, kAckWords> shifted_down(const std::array<std::uint64_t, kAckWords>& bits,
                                                  std::uint64_t by) {
  std::array<std::uint64_t, kAckWords> out{};
  const std::size_t words = by / 64, rest = by % 64;
  for (std::size_t i = 0; i + words < kAckWords; ++i) {
    out[i] = bits[i + words] >> rest;
    if (rest != 0 && i + words + 1 < kAckWords) out[i] |= bits[i + words + 1] << (64 - rest);
  }
  return out;
}

}  // namespace

Flight::Flight() : sent_(kPacketSpan), refs_(kRefs) {}

void Flight::note(Nanos now, std::size_t bytes, bool eliciting, std::span<const Ref> refs) {
  Sent& sent = at(next_);
  sent = Sent{next_,
              now,
              refs_end_,
              static_cast<std::uint32_t>(bytes),
              static_cast<std::uint16_t>(refs.size()),
              eliciting ? State::Open : State::None};
  for (const Ref& r : refs) refs_[refs_end_++ % kRefs] = r;
  ++next_;
  if (eliciting) {
    bytes_ += bytes;
    ++eliciting_;
    last_eliciting_ = now;
  } else {
    raise_floor();
  }
}

void Flight::acknowledge(std::uint64_t number, AckOutcome& outcome) {
  Sent& sent = at(number);
  if (sent.number != number) return;
  if (sent.state == State::Lost) {
    // It was late, not lost: what it carried has gone out again. Be more patient from now on.
    sent.state = State::Acked;
    reorder_packets_ = std::min(kMaxReorder, 2 * reorder_packets_);
    reorder_eighths_ = std::min(kMaxEighths, 2 * reorder_eighths_);
    return;
  }
  if (sent.state != State::Open) return;
  sent.state = State::Acked;
  bytes_ -= sent.bytes;
  --eliciting_;
  outcome.acked_bytes += sent.bytes;
  for (std::uint64_t i = 0; i < sent.refs; ++i) outcome.acked.push_back(ref(sent.first_ref + i));
}

void Flight::lose(Sent& sent, AckOutcome& outcome) {
  sent.state = State::Lost;
  bytes_ -= sent.bytes;
  --eliciting_;
  outcome.lost_bytes += sent.bytes;
  for (std::uint64_t i = 0; i < sent.refs; ++i) outcome.lost.push_back(ref(sent.first_ref + i));
}

void Flight::raise_floor() {
  while (floor_ < next_ && at(floor_).state != State::Open) {
    refs_begin_ = at(floor_).first_ref + at(floor_).refs;
    ++floor_;
  }
}

Nanos Flight::patience(const RttEstimator& rtt) const {
  const Nanos longest = std::max(rtt.smoothed(), rtt.latest());
  return std::max(longest + longest * reorder_eighths_ / 8, 20 * kMicro);
}

void Flight::on_ack(const Record& ack, Nanos now, const RttEstimator& rtt, AckOutcome& outcome) {
  if (ack.largest >= next_ || ack.cumulative > next_) return;
  outcome.valid = true;
  const bool news = !any_acked_ || ack.largest > largest_;
  if (news) {
    const Sent& newest = at(ack.largest);
    if (newest.number == ack.largest && newest.state == State::Open && now > newest.time) {
      outcome.rtt = now - newest.time;
      // A peer that claims to have held it longer than it was away gets no say.
      outcome.delay = ack.aux < outcome.rtt ? ack.aux : 0;
    }
  }
  for (std::uint64_t n = floor_; n < ack.cumulative; ++n) acknowledge(n, outcome);

  std::array<std::uint64_t, kAckWords> bits = ack.bits;
  if (any_acked_ && ack.largest >= largest_ && ack.largest - largest_ < kAckBits) {
    const auto known = shifted_down(seen_, ack.largest - largest_);
    for (std::size_t i = 0; i < kAckWords; ++i) bits[i] &= ~known[i];
  }
  for (std::size_t i = 0; i < kAckWords; ++i) {
    for (std::uint64_t w = bits[i]; w != 0; w &= w - 1) {
      const std::uint64_t back = kAckBits - 1 - 64 * i - std::countr_zero(w);
      if (back <= ack.largest) acknowledge(ack.largest - back, outcome);
    }
  }
  if (news) {
    largest_ = ack.largest;
    seen_ = ack.bits;
    any_acked_ = true;
  } else if (ack.largest == largest_) {
    for (std::size_t i = 0; i < kAckWords; ++i) seen_[i] |= ack.bits[i];
  }
  raise_floor();
  detect(now, rtt, outcome);
  if (largest_ >= round_end_) {
    outcome.round_ended = true;
    round_end_ = next_;
  }
}

void Flight::detect(Nanos now, const RttEstimator& rtt, AckOutcome& outcome) {
  if (!any_acked_) return;
  const Nanos wait = patience(rtt);
  for (std::uint64_t n = floor_; n < largest_; ++n) {
    Sent& sent = at(n);
    if (sent.state != State::Open) continue;
    const bool overtaken = largest_ - n >= reorder_packets_;
    if (!overtaken && now - std::min(now, sent.time) < wait) break;
    lose(sent, outcome);
  }
  raise_floor();
}

Nanos Flight::loss_deadline(const RttEstimator& rtt) const {
  if (!any_acked_ || floor_ >= largest_ || floor_ >= next_) return kNever;
  return at(floor_).time + patience(rtt);
}

void Flight::give_up_oldest(AckOutcome& outcome) {
  if (floor_ < next_ && at(floor_).state == State::Open) lose(at(floor_), outcome);
  raise_floor();
}

void Flight::oldest(std::vector<Ref>& refs) const {
  for (std::uint64_t n = floor_; n < next_ && refs.size() < kProbeRefs; ++n) {
    const Sent& sent = at(n);
    if (sent.state != State::Open) continue;
    for (std::uint64_t i = 0; i < sent.refs && refs.size() < kProbeRefs; ++i) {
      refs.push_back(ref(sent.first_ref + i));
    }
  }
}

}  // namespace genie::datagram
