// The order in which chunks are sent: strict between priorities, turns within one.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "genie/link_types.h"

namespace genie {

inline constexpr std::uint64_t kUnopened = ~std::uint64_t{0};

// A posted transfer on its way: `message` is its number on the wire once it is opened.
struct Outgoing {
  Order order{};
  std::uint64_t message = kUnopened;
  std::uint64_t sent = 0;
  std::uint64_t verified = 0;
  EventSlot progress{};
  bool queued = false;
  bool dropped = false;

  bool exhausted() const { return message != kUnopened && sent == order.dst.length; }
};

// Owns the transfers. Dropped ones leave the queue when their turn comes, or in the next sweep.
class SendQueue {
 public:
  Outgoing* add(const Order& order);
  // Whose turn it is, without taking it; null when there is nothing to send.
  Outgoing* head();
  // The head has had its turn: to the back of its class, or out when it is exhausted.
  void advance(Outgoing* outgoing);
  // The transfer has ended: send no more of it, and reuse it once nothing points to it.
  void release(Outgoing* outgoing);
  void clear();

 private:
  // Transfers of one class that take turns; the others wait.
  static constexpr std::size_t kActive = 64;
  static constexpr std::size_t kSweep = 256;

  using Line = std::deque<Outgoing*>;
  void admit(std::size_t priority);
  void sweep();
  void recycle(Outgoing* outgoing);

  std::array<Line, kPriorities> active_;
  std::array<Line, kPriorities> waiting_;
  std::size_t dropped_ = 0;
  std::size_t queued_ = 0;
  std::deque<Outgoing> pool_;  // a deque: growing it moves nothing
  std::vector<Outgoing*> free_;
};

}  // namespace genie
