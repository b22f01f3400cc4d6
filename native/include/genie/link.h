// The protocol of one connection: a state machine without I/O, clock or threads.
//
// A wire asks `next` what to send, and gives what it receives to `accept` and `landed`. What
// happened goes to the event queue. The caller serialises all calls.
//
// Transfers are sent without waiting to be admitted: a peer that refuses one drops its data.
// Bulk classes leave a quarter of the window free, so that a decode transfer never waits for
// credit that weights have used up.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <unordered_map>
#include <utility>

#include "genie/events.h"
#include "genie/flat_map.h"
#include "genie/inbound.h"
#include "genie/link_types.h"
#include "genie/send_queue.h"

namespace genie {

// What to send next. `data` points into the source of operation `op`.
struct Frame {
  Header header{};
  Destination dst{};
  const std::byte* data = nullptr;
  std::uint64_t op = 0;
};

enum class Wanted {
  All,
  Control,  // nothing of a transfer: the end is near
  Chunks,   // only data of transfers that are open: for the streams beside the first
};

class Link {
 public:
  Link(EventQueue& events, Counters& counters, const Terms& own);

  // The peer is there, with these bounds (checked by the caller). Posts may come before.
  void connect(const Terms& peer);
  bool connected() const { return connected_; }
  const Terms& peer() const { return peer_; }
  const Terms& own() const { return own_; }
  bool peer_closed() const { return peer_closed_; }
  Counters& counters() { return counters_; }

  // -- orders from this side ----------------------------------------------------------------
  void post(const Order& order);
  // Sends no more of it; false when it is not known (any more).
  bool cancel(std::uint64_t op);
  // Keeps an order that trigger() posts: any number of times, one at a time. Its only event is that
  // it failed, or that it was concluded and completed; cancel() ends it.
  void stand(const Order& order);
  // False: the order does not stand (any more).
  bool trigger(std::uint64_t op, std::uint64_t times);
  bool stands(std::uint64_t op) const { return standing_.contains(op); }
  // It is triggered no more: it completes after what it owes.
  void conclude(std::uint64_t op);
  // What became of a standing order so far; nothing when it does not stand. One that has completed
  // is forgotten with it.
  Carried carried(std::uint64_t op);
  // What the clock says, for `carried`.
  void at(std::int64_t now) { now_ = now; }
  void add(const Region& region) { inbound_.add(region); }
  bool hang(const Key& key, std::shared_ptr<Bell> bell) {
    return inbound_.hang(key, std::move(bell));
  }
  std::uint64_t rings(const Key& key) const { return inbound_.rings(key); }
  // When it returns no further byte of the region will be placed. False: it is not known.
  bool withdraw(const Key& key);
  void fence(std::uint64_t epoch);
  void keepalive();
  void bye();
  // Forgets all regions and transfers.
  void clear();

  // -- sending ------------------------------------------------------------------------------
  // The next frame, of at most `room` bytes of payload; false when there is none now.
  bool next(Frame& frame, std::uint64_t room, Wanted wanted = Wanted::All);
  bool has_outgoing() { return queue_.head() != nullptr; }

  // -- receiving ----------------------------------------------------------------------------
  // Acts on a header. For Data and Put, `place` is where the payload goes (null: nowhere), valid
  // as long as generation() is unchanged; landed() must follow when it is there.
  Verdict accept(const Header& header, const Destination& dst, std::byte*& place);
  Verdict landed(const Header& header, bool intact);
  // Where the rest of a payload goes after generation() has changed.
  std::byte* place(const Header& header);
  std::uint64_t generation() const { return inbound_.generation(); }
  // True for data of a transfer whose Open is still on its way, on another stream.
  bool early(const Header& header) const {
    return header.kind == Kind::Data && header.message >= next_incoming_;
  }

 private:
  struct Ack {
    std::uint64_t message;
    std::uint64_t verified;
  };
  struct Standing {
    Order order;
    std::uint64_t owed = 0;  // triggers that wait for the post before them
    Carried carried{};
    std::int64_t begun = 0;
    bool under_way = false;
    bool concluded = false;
    bool idle() const { return !under_way && owed == 0; }
  };
  struct Control {
    Kind kind;
    std::uint64_t message;
    std::uint64_t offset;
    std::uint64_t length;
  };

  bool next_data(Frame& frame, std::uint64_t room, Wanted wanted);
  Verdict credit(const Header& header);
  Verdict opened(const Header& header, const Destination& dst, std::byte*& place);
  Verdict data(const Header& header, std::byte*& place);
  Verdict acked(const Header& header);
  Verdict refused(const Header& header);
  void turn_away(std::uint64_t message, Refusal refusal);
  void finish(Outgoing* outgoing);
  void complete(Outgoing* outgoing);
  void begin(Standing& standing);
  void note_in_flight();
  std::uint64_t length_of(const Outgoing* outgoing) const { return outgoing->order.dst.length; }

  EventQueue& events_;
  Counters& counters_;
  Terms own_;
  Terms peer_{};
  std::int64_t now_ = 0;
  bool connected_ = false;
  bool peer_closed_ = false;
  std::uint32_t chunk_;

  // sending
  SendQueue queue_;
  FlatMap<Outgoing*> known_;   // by operation: queued or not yet acknowledged
  FlatMap<Outgoing*> opened_;  // by message
  std::unordered_map<std::uint64_t, Standing> standing_;
  std::deque<Control> control_;
  std::uint64_t next_message_ = 0;
  std::uint64_t sent_ = 0;
  std::uint64_t allowed_ = 0;

  // receiving
  Inbound inbound_;
  std::deque<Ack> acks_;
  std::uint64_t acks_sent_ = 0;
  std::uint64_t next_incoming_ = 0;
  std::uint64_t taken_ = 0;     // payload that is dealt with
  std::uint64_t arriving_ = 0;  // payload of accepted frames that is not there yet
  std::uint64_t granted_;
};

}  // namespace genie
