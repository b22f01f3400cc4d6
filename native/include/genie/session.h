// One session with one peer over datagrams that may be lost, repeated, reordered, delayed or
// damaged: a state machine without I/O, clock or threads.
//
// The caller hands in datagrams and the time, asks for datagrams until there are none, and comes
// back at next_deadline(). An operation completes when the receiver has verified all its bytes;
// until then, and after a failure, what stands in its destination means nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "genie/codes.h"
#include "genie/crypto.h"
#include "genie/receiver.h"
#include "genie/sender.h"

namespace genie::datagram {

// What both sides agreed over the control channel.
struct SessionOptions {
  Protection protection = Protection::Aes128Gcm;
  AesKey send_key{};
  AesKey receive_key{};
  std::uint32_t local_connection = 0;  // what the peer writes into its headers
  std::uint32_t peer_connection = 0;
  std::uint32_t epoch = 0;  // of the session: datagrams of another one are not its own
  std::size_t max_datagram = 1472;
  std::uint64_t window = 8 << 20;       // bytes the peer may have in flight towards this side
  std::uint64_t peer_window = 8 << 20;  // and this side towards the peer, to begin with
  // Whether others' traffic shares the path: then it is paced, and its window follows delay.
  bool shared_path = true;
  Nanos stall_timeout = 30 * kSecond;
  std::size_t queue = 16384;  // operations that may be outstanding
};

struct SessionCounters {
  std::uint64_t datagrams_sent = 0;
  std::uint64_t datagrams_received = 0;
  std::uint64_t bytes_sent = 0;  // datagrams whole, without UDP and below
  std::uint64_t bytes_received = 0;
  std::uint64_t bytes_landed = 0;  // verified in their destination, each once
  std::uint64_t bytes_lost = 0;    // sent and given up
  std::uint64_t probes = 0;
  std::uint64_t rejected = 0;    // not authentic, not this session's, or of impossible size
  std::uint64_t duplicates = 0;  // or too old to tell
  std::uint64_t dropped = 0;     // authentic, but not acceptable yet
  std::uint64_t in_flight = 0;
  std::uint64_t peak_in_flight = 0;
  std::uint64_t window = 0;
  Nanos rtt = 0;
  Nanos base_rtt = 0;
};

class Session {
 public:
  // Null for options out of range, or when the cipher cannot be set up.
  static std::unique_ptr<Session> create(const SessionOptions& options, Nanos now);

  const SessionOptions& options() const { return options_; }

  // -- orders
  Code post(const Order& order);
  bool cancel(std::uint64_t op) { return sender_.cancel(op); }
  bool add(const Region& region) { return !ended() && receiver_.add(region); }
  bool withdraw(const Key& key) { return receiver_.withdraw(key); }
  void fence(std::uint64_t epoch) { receiver_.fence(epoch); }
  // The bytes that the peer may have in flight from now on; 0 stops it.
  void set_window(std::uint64_t bytes);
  // Everything outstanding fails; the peer is told. Lost is the last event.
  void close(Nanos now);
  // The path is gone: as close(), without anything sent.
  void abort(Code code);

  // -- datagrams
  // True when the datagram was authentic and new.
  bool on_datagram(std::span<const std::byte> datagram, Nanos now);
  void on_tick(Nanos now);
  // When on_tick() or transmit() has something to do; never later than that. kNever: nothing.
  Nanos next_deadline(Nanos now) const;
  // Seals the next datagram into `out` (at least max_datagram bytes) and returns its size, 0 when
  // there is none now. The payload is copied, or encrypted, from its source straight into it.
  std::size_t transmit(Nanos now, std::byte* out);

  // -- state
  void take_events(std::vector<Event>& out);
  bool has_events() const;
  // Lost has been or will be among the events.
  bool ended() const { return state_ != State::Open; }
  // Nothing more will be sent.
  bool silent() const { return state_ == State::Ended; }
  bool heard() const { return heard_; }
  std::size_t outstanding() const { return sender_.outstanding(); }
  Code why() const { return why_; }
  // Operations without an end, and the message number of each (0: nothing of it was sent). When
  // the session has ended: those that its end has failed, so that another path can go on.
  std::vector<std::pair<std::uint64_t, std::uint64_t>> unfinished() const {
    return ended() ? unfinished_ : sender_.unfinished();
  }
  // Whether a message of the peer's was received whole and verified.
  bool finished(std::uint64_t message) const { return receiver_.finished(message); }
  SessionCounters counters() const;

 private:
  enum class State : std::uint8_t { Open, Closing, Ended };

  // As many datagrams as one key may seal. 2^36 of 9,000 bytes are half a pebibyte; the chance of
  // an unnoticed forgery stays below 2^-50 there.
  static constexpr std::uint64_t kMaxNumber = std::uint64_t{1} << 36;

  Session(const SessionOptions& options, Nanos now);
  bool open_datagram(std::span<const std::byte> datagram, const Header& header,
                     std::span<const std::byte>& body, bool& in_place);
  bool decrypt(std::span<const std::byte> datagram, bool& in_place);
  std::uint32_t sum_body(std::span<const std::byte> body, std::uint32_t sum, bool& in_place);
  bool process(std::span<const std::byte> body, const Header& header, bool in_place, Nanos now);
  bool on_ack(const Record& record, std::uint64_t number, Nanos now);
  void on_credit(std::uint64_t credit, std::uint64_t number);
  void settle(const AckOutcome& outcome);
  void end(Code code);
  void build(Nanos now);
  Record ping() const;
  void add_probe();
  std::size_t seal(Nanos now, std::byte* out);
  std::int64_t budget(bool bulk) const;
  bool data_ready() const;
  Nanos probe_deadline() const;
  std::size_t farewell(Nanos now, std::byte* out);

  SessionOptions options_;
  std::unique_ptr<Gcm> sealer_;
  std::unique_ptr<Gcm> opener_;
  Sender sender_;
  Receiver receiver_;
  Flight flight_;
  RttEstimator rtt_;
  RateControl rate_;
  Pacer pacer_;
  Plan plan_;
  AckOutcome outcome_;
  std::vector<Ref> probe_refs_;
  std::vector<std::byte> scratch_;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> unfinished_;

  State state_ = State::Open;
  Code why_ = Code::Ok;
  bool lost_reported_ = false;
  bool heard_ = false;
  Nanos heard_at_;
  Nanos sent_at_;
  std::uint64_t credit_;           // what the peer allows in flight
  std::uint64_t credit_from_ = 0;  // the number of the datagram that said so, plus one
  unsigned probe_count_ = 0;       // since something was acknowledged
  unsigned probes_owed_ = 0;
  unsigned farewells_ = 0;
  Nanos farewell_at_ = 0;
  // From the beginning: two who have nothing to send learn of each other at once. What goes out
  // before anything was heard wants an answer, and is repeated until there is one.
  bool ping_owed_ = true;
  SessionCounters counters_;
};

}  // namespace genie::datagram
