// How fast to send: round-trip times, and a window that follows delay.
#pragma once

#include <algorithm>
#include <cstdint>

namespace genie::datagram {

using Nanos = std::uint64_t;
inline constexpr Nanos kMicro = 1000;
inline constexpr Nanos kMilli = 1000 * kMicro;
inline constexpr Nanos kSecond = 1000 * kMilli;
inline constexpr Nanos kNever = ~Nanos{0};

// Smoothed as RFC 6298 does; the floors are this protocol's.
class RttEstimator {
 public:
  void sample(Nanos rtt) {
    latest_ = rtt;
    if (smoothed_ == 0) {
      smoothed_ = std::max<Nanos>(rtt, 1);
      variation_ = rtt / 2;
      return;
    }
    const Nanos gap = rtt > smoothed_ ? rtt - smoothed_ : smoothed_ - rtt;
    variation_ = (3 * variation_ + gap) / 4;
    smoothed_ = std::max<Nanos>((7 * smoothed_ + rtt) / 8, 1);
  }
  bool known() const { return smoothed_ != 0; }
  Nanos smoothed() const { return known() ? smoothed_ : 5 * kMilli; }
  Nanos latest() const { return latest_; }
  // Until an acknowledgement is overdue. Never below a millisecond: on shared cores a peer that
  // is not scheduled for some milliseconds is the normal case, not a loss.
  Nanos timeout(Nanos ack_delay) const {
    if (!known()) return 20 * kMilli;
    return smoothed_ + std::max(4 * variation_, kMilli) + ack_delay;
  }

 private:
  Nanos smoothed_ = 0;
  Nanos variation_ = 0;
  Nanos latest_ = 0;
};

// Bytes that may be in flight. It grows while round trips are short and shrinks when even the
// *smallest* of the last 10 milliseconds was long: a queue that stands raises even that, a peer
// that was not scheduled for some milliseconds does not. Loss alone says little on a fabric that
// is not congested; only a round that loses a tenth counts.
class RateControl {
 public:
  // `shared`: queues that others use too lie on the path. On a path within one machine the only
  // queue is the peer's own, which its credit bounds: delay says nothing there but how the
  // scheduler is doing.
  RateControl(std::uint64_t datagram, std::uint64_t most, bool shared)
      : datagram_(datagram), most_(std::max(most, 4 * datagram)), shared_(shared) {
    window_ = shared ? std::min(most_, std::max(32 * datagram, kLeast)) : most_;
  }

  std::uint64_t window() const { return window_; }
  Nanos base_rtt() const { return std::min(base_[0], base_[1]); }

  void on_rtt(Nanos now, Nanos rtt) {
    if (now - base_since_ > 5 * kSecond) {
      // Two halves: a minimum is forgotten after five to ten seconds, when the path has changed.
      base_[1] = base_[0];
      base_[0] = kNever;
      base_since_ = now;
    }
    base_[0] = std::min(base_[0], rtt);
    round_rtt_ = std::min(round_rtt_, rtt);
    least_rtt_ = std::min(least_rtt_, rtt);
  }
  void on_acked(std::uint64_t bytes) { acked_ += bytes; }
  void on_lost(std::uint64_t bytes) { lost_ += bytes; }
  // `limited`: the window, and nothing else, kept the sender from sending more.
  void note_limited() { limited_ = true; }

  // A round ends when something sent after its beginning is acknowledged.
  void end_round(Nanos now) {
    const Nanos base = base_rtt();
    const Nanos target = base == kNever ? kQueueTarget : std::max<Nanos>(base / 2, kQueueTarget);
    const Nanos queue = round_rtt_ - std::min(base, round_rtt_);
    if (queue > target / 2) doubling_ = false;
    if (lost_ * 10 > lost_ + acked_ && lost_ >= 4 * datagram_) {
      doubling_ = false;
      const std::uint64_t percent = std::min<std::uint64_t>(lost_ * 50 / (lost_ + acked_), 50);
      shrink_to(window_ - window_ * percent / 100);
    } else if (limited_ && (queue < target || !shared_)) {
      window_ += doubling_ ? window_ : std::max(window_ / 16, 2 * datagram_);
      window_ = std::min(window_, most_);
    }
    if (now - decided_at_ >= kDecision) {
      const Nanos standing = least_rtt_ - std::min(base, least_rtt_);
      if (shared_ && least_rtt_ != kNever && standing > target) {
        // Towards the window that would leave `target` of queue, by at most a half.
        const double goal = static_cast<double>(window_) * static_cast<double>(base + target) /
                            static_cast<double>(base + standing);
        shrink_to(std::max(static_cast<std::uint64_t>(goal), window_ / 2));
      }
      decided_at_ = now;
      least_rtt_ = kNever;
    }
    round_rtt_ = kNever;
    acked_ = lost_ = 0;
    limited_ = false;
  }

  // Nanoseconds that `bytes` take when a window is spread over 4/5 of a round trip.
  Nanos spacing(std::uint64_t bytes, Nanos rtt) const {
    if (!shared_) return 0;
    return static_cast<Nanos>(0.8 * static_cast<double>(rtt) * static_cast<double>(bytes) /
                              static_cast<double>(window_));
  }

 private:
  static constexpr Nanos kQueueTarget = 500 * kMicro;
  static constexpr Nanos kDecision = 10 * kMilli;

  void shrink_to(std::uint64_t bytes) {
    window_ = std::min(std::max({bytes, 16 * datagram_, kLeast}), most_);
  }

  static constexpr std::uint64_t kLeast = 64 << 10;

  std::uint64_t datagram_;
  std::uint64_t most_;
  bool shared_;
  std::uint64_t window_;
  std::uint64_t acked_ = 0;
  std::uint64_t lost_ = 0;
  Nanos base_[2] = {kNever, kNever};
  Nanos base_since_ = 0;
  Nanos round_rtt_ = kNever;
  Nanos least_rtt_ = kNever;  // since the last decision
  Nanos decided_at_ = 0;
  bool limited_ = false;
  bool doubling_ = true;
};

// Spreads datagrams over time, but lets short bursts through: a burst is cheaper than a timer.
class Pacer {
 public:
  // The moment from which the next datagram may go.
  Nanos ready_at() const { return next_ > kBurst ? next_ - kBurst : 0; }
  void sent(Nanos now, Nanos spacing) { next_ = std::max(next_, now) + spacing; }

 private:
  static constexpr Nanos kBurst = 100 * kMicro;
  Nanos next_ = 0;
};

}  // namespace genie::datagram
