// Datagrams on their way: what each carried, until it is acknowledged or given up.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "genie/frame.h"
#include "genie/rate.h"
#include "genie/window.h"

namespace genie::datagram {

// Something that a datagram carried and that matters when it arrives or is lost.
struct Ref {
  enum class Kind : std::uint8_t { Chunk, Cancel, Refusal, Ping };
  Kind kind = Kind::Ping;
  std::uint64_t message = 0;
  std::uint64_t chunk = 0;
};

struct AckOutcome {
  bool valid = false;
  std::vector<Ref> acked;
  std::vector<Ref> lost;
  std::uint64_t acked_bytes = 0;
  std::uint64_t lost_bytes = 0;
  Nanos rtt = 0;    // 0: no sample
  Nanos delay = 0;  // of it, how long the peer says it held the answer back
  bool round_ended = false;

  void clear() {
    valid = round_ended = false;
    acked.clear();
    lost.clear();
    acked_bytes = lost_bytes = 0;
    rtt = delay = 0;
  }
};

class Flight {
 public:
  Flight();

  std::uint64_t next_number() const { return next_; }
  // The lowest number whose fate is open; next_number() when there is none.
  std::uint64_t floor() const { return floor_; }
  std::uint64_t bytes() const { return bytes_; }
  bool idle() const { return eliciting_ == 0; }
  // Whether another datagram with so many refs can be noted, and `spare` more without any.
  bool room(std::size_t refs, std::uint64_t spare) const {
    return next_ - floor_ + spare < kPacketSpan && refs_end_ - refs_begin_ + refs <= kRefs;
  }
  Nanos last_eliciting() const { return last_eliciting_; }

  // A datagram with next_number() has been sealed. room() must hold.
  void note(Nanos now, std::size_t bytes, bool eliciting, std::span<const Ref> refs);

  // Acts on an acknowledgement. `outcome.valid` is false when it speaks of what was never sent.
  void on_ack(const Record& ack, Nanos now, const RttEstimator& rtt, AckOutcome& outcome);
  // Gives up what later datagrams have overtaken for too long.
  void detect(Nanos now, const RttEstimator& rtt, AckOutcome& outcome);
  // When detect() has something to do, or kNever.
  Nanos loss_deadline(const RttEstimator& rtt) const;
  // Gives up the oldest open datagram, when there is no room and no acknowledgement.
  void give_up_oldest(AckOutcome& outcome);
  // What the oldest open datagrams carried, to be sent once more as a probe.
  void oldest(std::vector<Ref>& refs) const;

 private:
  static constexpr std::size_t kRefs = 32768;
  enum class State : std::uint8_t { None, Open, Acked, Lost };
  struct Sent {
    std::uint64_t number = 0;
    Nanos time = 0;
    std::uint64_t first_ref = 0;
    std::uint32_t bytes = 0;
    std::uint16_t refs = 0;
    State state = State::None;
  };

  Sent& at(std::uint64_t number) { return sent_[number % kPacketSpan]; }
  const Sent& at(std::uint64_t number) const { return sent_[number % kPacketSpan]; }
  const Ref& ref(std::uint64_t index) const { return refs_[index % kRefs]; }
  void acknowledge(std::uint64_t number, AckOutcome& outcome);
  void lose(Sent& sent, AckOutcome& outcome);
  void raise_floor();
  Nanos patience(const RttEstimator& rtt) const;

  std::vector<Sent> sent_;
  std::vector<Ref> refs_;
  std::uint64_t refs_begin_ = 0;
  std::uint64_t refs_end_ = 0;
  std::uint64_t next_ = 0;
  std::uint64_t floor_ = 0;
  std::uint64_t bytes_ = 0;
  std::uint64_t eliciting_ = 0;  // open datagrams
  Nanos last_eliciting_ = 0;
  std::uint64_t round_end_ = 0;
  // acknowledgements
  bool any_acked_ = false;
  std::uint64_t largest_ = 0;
  std::array<std::uint64_t, kAckWords> seen_{};  // the bits that came with largest_
  // How far a datagram may be overtaken before it counts as lost: grows when that was wrong.
  std::uint64_t reorder_packets_ = 3;
  unsigned reorder_eighths_ = 1;
};

}  // namespace genie::datagram
