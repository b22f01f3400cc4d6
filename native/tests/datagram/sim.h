// Two sessions, a network between them, and a clock that only the simulation moves.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <queue>
#include <vector>

#include "genie/fault.h"
#include "genie/session.h"

namespace genie::datagram::sim {

struct LinkOptions {
  Nanos latency = 20 * kMicro;  // one way
  std::uint64_t bytes_per_second = 2'000'000'000;
  std::uint64_t queue_bytes = 16 << 20;  // more is dropped at its tail
  FaultRates faults{};
};

// What each side was told, by operation.
struct Outcome {
  bool ended = false;
  Code code = Code::Ok;
  std::uint64_t progress = 0;
  Nanos at = 0;
};

struct Side {
  std::unique_ptr<Session> session;
  std::vector<Outcome> outcomes;  // by operation
  std::vector<Key> arrivals;
  Code lost = Code::Ok;
  bool is_lost = false;
  bool dead = false;      // neither hears nor speaks any more
  Nanos polls_every = 0;  // a slow one looks at what came only so often
  // network towards the other side
  Nanos line_free = 0;
  std::uint64_t sent = 0;
  std::uint64_t delivered_bytes = 0;
};

class Sim {
 public:
  Sim(const SessionOptions& a, const SessionOptions& b, const LinkOptions& link,
      std::uint64_t seed);

  Nanos now() const { return now_; }
  Side& side(int index) { return sides_[index]; }
  Session& session(int index) { return *sides_[index].session; }
  LinkOptions& link() { return link_; }
  void set_faults(const FaultRates& rates, std::uint64_t seed);
  // Both directions drop everything until then.
  void black_out(Nanos until) { dark_until_ = until; }

  // Posts and returns the operation's number on that side.
  std::uint64_t post(int index, const std::byte* source, const Destination& dst, int priority);
  void at(Nanos time, std::function<void()> action);
  // Called for each datagram that is about to be delivered; may hand in others.
  std::function<void(int to, std::span<std::byte> datagram)> tap;
  // Runs until `done` says so or the clock reaches `limit`. False: the limit, or no end of work
  // without time passing.
  bool run(Nanos limit, const std::function<bool()>& done);
  // Nothing is outstanding on either side.
  bool quiet() const;
  std::uint64_t steps() const { return steps_; }

 private:
  struct Arrival {
    Nanos time = 0;
    std::uint64_t order = 0;
    int to = 0;
    std::vector<std::byte> bytes;
    std::function<void()> action;
    bool operator>(const Arrival& other) const {
      return time != other.time ? time > other.time : order > other.order;
    }
  };

  void pump(int index);
  void carry(int from, std::size_t size);
  void collect(int index);

  LinkOptions link_;
  std::vector<Faults> faults_;
  Side sides_[2];
  std::priority_queue<Arrival, std::vector<Arrival>, std::greater<>> queue_;
  std::vector<std::byte> frame_;
  std::vector<Event> events_;
  Nanos now_ = kSecond;
  Nanos dark_until_ = 0;
  std::uint64_t order_ = 0;
  std::uint64_t steps_ = 0;
};

// Options of two sides that fit each other.
std::pair<SessionOptions, SessionOptions> matching(Protection protection, std::size_t datagram,
                                                   std::uint64_t seed);

}  // namespace genie::datagram::sim
