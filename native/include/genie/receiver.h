// The receiving side of a session: which memory the peer may write, what has come, and what to
// answer. Nothing is written before handle, epoch and range have been checked.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "genie/codes.h"
#include "genie/events.h"
#include "genie/link_types.h"
#include "genie/plan.h"
#include "genie/rate.h"
#include "genie/window.h"

namespace genie::datagram {

class Receiver {
 public:
  enum class Result {
    Accepted,  // applied, or known already: may be acknowledged
    Dropped,   // no room for the answer, or its beginning is missing: must come again
    Violation,
  };

  explicit Receiver(std::size_t chunk);

  // -- memory
  bool add(const Region& region);
  // When this returns no byte of the region is written any more.
  bool withdraw(const Key& key);
  // Handles of epochs before `epoch` are refused from now on.
  void fence(std::uint64_t epoch);

  // -- datagrams
  PacketWindow::Verdict check(std::uint64_t number) const { return window_.check(number); }
  // Where the payload of a record may be decrypted to before its tag has been checked: only a
  // chunk that is still missing of a message that an authentic datagram has opened. Else null.
  std::byte* unverified_target(const Record& record);
  // `record` is authentic. `in_place`: its payload stands where unverified_target() said.
  Result on_data(const Record& record, bool in_place);
  Result on_cancel(const Record& record);
  // All records of an authentic datagram have been accepted.
  void accepted(const Header& header, Nanos now);

  // -- answers
  // A gap, a refusal and every few datagrams are answered at once, a finished message soon.
  bool ack_due(Nanos now) const { return ack_now_ || (unanswered_ > 0 && now >= ack_at_); }
  bool ack_useful() const { return unanswered_ > 0 || ack_now_; }
  Nanos ack_deadline() const { return ack_now_ ? 0 : unanswered_ > 0 ? ack_at_ : kNever; }
  // Adds the acknowledgement, behind all open refusals: an acknowledgement must never reach the
  // peer ahead of the refusal of something it covers. False, and nothing added, without room.
  bool add_answer(Plan& plan, Nanos now, std::uint64_t credit);
  void on_refusal_acked(std::uint64_t message);
  void on_refusal_lost() { ack_now_ = true; }

  void take_events(std::vector<Event>& out);
  bool has_events() const { return !arrived_.empty(); }
  std::uint64_t landed_bytes() const { return landed_; }
  // Whether all of the message was received and verified. Known until its slot is used again,
  // which its sender does only when it has heard of the end.
  bool finished(std::uint64_t message) const;

 private:
  static constexpr std::size_t kMaxRefusals = 12;  // with the acknowledgement they fit 512 bytes
  static constexpr unsigned kAckEvery = 16;
  static constexpr Nanos kAckDelay = 100 * kMicro;
  // After a message has ended: long enough for a reply that takes the answer along.
  static constexpr Nanos kReplyDelay = 2 * kMicro;

  struct Owned {
    Region region{};
    std::vector<std::uint16_t> writers;  // slots of unfinished messages
    std::uint64_t arrivals = 0;          // not yet reported
  };

  enum class State : std::uint8_t { Done, Active };

  struct Incoming {
    std::uint64_t generation = 0;
    State state = State::Done;
    bool whole = false;  // Done because all has come
    Owned* owner = nullptr;
    std::byte* base = nullptr;
    std::uint64_t start = 0;  // within the region
    std::uint64_t length = 0;
    ChunkWindow got;
  };

  struct Refusal {
    std::uint64_t message = 0;
    Code code = Code::Ok;
    std::uint64_t detail = 0;
  };

  Result open(const Record& record);
  Result write(Incoming& in, const Record& record, bool in_place);
  bool fits(const Incoming& in, const Record& record) const;
  bool refusal_waits(std::uint64_t message) const;
  void finish(Incoming& in);
  void turn_away(std::uint64_t message, Code code, std::uint64_t detail);
  void end_writers(Owned& owner, Code code, std::uint64_t detail);

  std::size_t chunk_;
  std::vector<Incoming> slots_;
  std::unordered_map<Key, Owned, KeyHash> regions_;
  std::uint64_t epoch_ = 0;
  std::vector<Refusal> refusals_;
  std::vector<Key> arrived_;
  std::uint64_t landed_ = 0;

  PacketWindow window_;
  unsigned unanswered_ = 0;  // eliciting datagrams since the last acknowledgement
  bool ack_now_ = false;
  bool ack_soon_ = false;
  Nanos ack_at_ = 0;
  Nanos newest_at_ = 0;  // when the largest number came
};

}  // namespace genie::datagram
