// The posting side of a session: which piece of which message goes next.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <utility>
#include <vector>

#include "genie/codes.h"
#include "genie/events.h"
#include "genie/flat_map.h"
#include "genie/link_types.h"
#include "genie/plan.h"
#include "genie/window.h"

namespace genie::datagram {

class Sender {
 public:
  // `chunk`: payload bytes of a full record. `queue`: operations that may be outstanding.
  Sender(std::size_t chunk, std::size_t queue);

  // The source must stay as it is until the operation's last event or the return of cancel().
  Code post(const Order& order);
  // True when the operation was outstanding; no event of it follows.
  bool cancel(std::uint64_t op);
  // Operations and the message number of each, 0 for those of which nothing was sent.
  std::vector<std::pair<std::uint64_t, std::uint64_t>> unfinished() const;
  // Everything outstanding fails with `code`.
  void fail_all(Code code);

  // add_data() would find something in the classes before kWeights, or (`bulk`) in the others.
  bool ready(bool bulk) const;
  bool control_pending() const { return !cancels_.empty(); }
  std::size_t outstanding() const { return known_.size(); }

  // Adds records. `budget` are the bytes of all, `bulk_budget` of classes from kWeights on.
  void add_control(Plan& plan);
  void add_data(Plan& plan, std::int64_t budget, std::int64_t bulk_budget);
  // Sends what `ref` named once more although it may still arrive.
  bool repeat(const Ref& ref);

  void on_acked(const Ref& ref);
  void on_lost(const Ref& ref);
  // False when no correct peer says so.
  bool on_refuse(std::uint64_t message, std::uint16_t code, std::uint64_t detail);

  void take_events(std::vector<Event>& out);
  bool has_events() const { return !events_.empty() || !progressed_.empty(); }

 private:
  static constexpr std::uint16_t kNone = 0xffff;
  static constexpr std::size_t kActive = 64;           // of a class take turns; the others wait
  static constexpr std::size_t kReserve = kSlots / 4;  // slots that bulk classes leave free
  static constexpr std::size_t kSweep = 256;
  static constexpr std::uint32_t kWaiting = 0xffffffff;

  enum class State : std::uint8_t { Free, Sending, Cancelling };

  struct Outgoing {
    Order order{};
    std::uint64_t generation = 1;
    std::uint64_t chunks = 0;
    std::uint64_t next = 0;  // the first chunk never sent
    std::uint64_t verified = 0;
    ChunkWindow acked;
    std::vector<std::uint64_t> resend;
    std::size_t resend_at = 0;
    std::uint16_t after = kNone;  // in its class's line
    State state = State::Free;
    bool queued = false;
    bool opened = false;  // the peer has answered: no need to repeat the destination
    bool progress = false;
  };

  struct Line {
    std::uint16_t head = kNone;
    std::uint16_t tail = kNone;
    std::size_t active = 0;  // slots of this class with something never sent
    std::deque<Order> waiting;
  };

  Outgoing* find(std::uint64_t message);
  std::uint64_t number_of(const Outgoing& out) const;
  std::uint16_t index_of(const Outgoing& out) const;
  std::size_t size_of(const Outgoing& out, std::uint64_t chunk) const;
  bool sendable(const Outgoing& out) const;
  void enqueue(Outgoing& out, bool front);
  void dequeue_head(Line& line);
  void unlink(Outgoing& out);
  bool admissible(std::size_t priority) const;
  void admit(std::size_t priority);
  bool held_by_cancel(const Order& order) const;
  void release(Outgoing& out);
  void resend(Outgoing& out, std::uint64_t chunk);
  bool add_next(Plan& plan, Outgoing& out);

  std::size_t chunk_;
  std::size_t limit_;
  std::vector<Outgoing> slots_;
  std::deque<std::uint16_t> free_;
  std::array<Line, kPriorities> lines_;
  FlatMap<std::uint32_t> known_;  // operation to slot, or kWaiting
  std::size_t dropped_ = 0;       // cancelled orders still in a waiting line
  std::size_t cancelling_ = 0;
  std::vector<std::uint64_t> cancels_;  // messages whose Cancel is to be sent
  std::vector<Event> events_;
  std::vector<std::uint16_t> progressed_;
};

}  // namespace genie::datagram
