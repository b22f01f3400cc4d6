// When a session has something to say, and what it puts into the next datagram.
#include <algorithm>
#include <cstring>

#include "genie/session.h"

namespace genie::datagram {

namespace {

constexpr Nanos kMaxProbeWait = 250 * kMilli;
constexpr unsigned kFarewells = 3;
constexpr Nanos kClosedWait = 10 * kMilli;
// Packet numbers that data leaves to answers, while the peer acknowledges nothing.
constexpr std::uint64_t kSpareNumbers = 1024;
constexpr std::size_t kPrefetch = 3072;
constexpr std::size_t kMinPrefetch = 1024;  // behind smaller payloads follows something else

}  // namespace

// -- time -----------------------------------------------------------------------------------

Nanos Session::probe_deadline() const {
  // A closed window must be asked about too: the datagram that opened it may have been lost.
  const bool closed = credit_ == 0 && (sender_.ready(false) || sender_.ready(true));
  if (flight_.idle() && !closed) return kNever;
  const Nanos wait = rtt_.timeout(100 * kMicro) << std::min(probe_count_, 10u);
  // Dozens of probes fit the stall timeout: a path that loses a third of all is slow, not dead.
  const Nanos most = std::min(kMaxProbeWait, options_.stall_timeout / 32);
  return flight_.last_eliciting() +
         std::min(std::max(wait, flight_.idle() ? kClosedWait : 0), most);
}

void Session::on_tick(Nanos now) {
  if (state_ != State::Open) return;
  if (now >= heard_at_ + options_.stall_timeout) {
    end(Code::PeerSilent);
    return;
  }
  if (now >= flight_.loss_deadline(rtt_)) {
    outcome_.clear();
    flight_.detect(now, rtt_, outcome_);
    settle(outcome_);
  }
  if (probes_owed_ == 0 && now >= probe_deadline()) {
    probes_owed_ = 1;
    ++probe_count_;
  }
  if (now >= sent_at_ + options_.stall_timeout / 4) ping_owed_ = true;
}

Nanos Session::next_deadline(Nanos now) const {
  if (state_ == State::Ended) return kNever;
  if (state_ == State::Closing) return farewell_at_;
  if (ping_owed_ || probes_owed_ != 0 || sender_.control_pending()) return now;
  Nanos at = std::min(heard_at_ + options_.stall_timeout, sent_at_ + options_.stall_timeout / 4);
  at = std::min({at, receiver_.ack_deadline(), flight_.loss_deadline(rtt_), probe_deadline()});
  if (data_ready()) at = std::min(at, pacer_.ready_at());
  return at;
}

// -- sending --------------------------------------------------------------------------------

std::int64_t Session::budget(bool bulk) const {
  // Bulk leaves a quarter of the credit, and the window's last datagrams, to the classes before.
  // The last datagram must not overshoot it, unless it is the only one.
  std::uint64_t credit = bulk ? credit_ - credit_ / 4 : credit_;
  if (credit > options_.max_datagram) credit -= options_.max_datagram - 1;
  const std::uint64_t window = rate_.window() + (bulk ? 0 : 8 * options_.max_datagram);
  return static_cast<std::int64_t>(std::min(credit, window)) -
         static_cast<std::int64_t>(flight_.bytes());
}

bool Session::data_ready() const {
  return flight_.room(Plan::kMaxPieces, kSpareNumbers) &&
         ((budget(false) > 0 && sender_.ready(false)) || (budget(true) > 0 && sender_.ready(true)));
}

void Session::add_probe() {
  ++counters_.probes;
  probe_refs_.clear();
  flight_.oldest(probe_refs_);
  bool something = false;
  for (const Ref& ref : probe_refs_) {
    if (ref.kind == Ref::Kind::Refusal) {
      receiver_.on_refusal_lost();
    } else if (sender_.repeat(ref)) {
      something = true;
    }
  }
  // The probe goes out whatever the windows say: it is what finds out whether they still hold.
  if (something) {
    sender_.add_control(plan_);
    const auto one = static_cast<std::int64_t>(plan_.body()) + 1;
    sender_.add_data(plan_, one, one);
  }
  if (!plan_.eliciting() && plan_.fits(RecordType::Ping)) plan_.add(ping(), Ref{});
}

Record Session::ping() const {
  Record record;
  record.type = RecordType::Ping;
  record.message = options_.window;
  return record;
}

void Session::build(Nanos now) {
  plan_.begin(options_.max_datagram);
  if (receiver_.ack_due(now)) receiver_.add_answer(plan_, now, options_.window);
  if (!flight_.room(Plan::kMaxPieces, 0)) {
    // The peer acknowledges nothing, but hears us perhaps: our answers must still go out.
    outcome_.clear();
    while (!flight_.room(Plan::kMaxPieces, 0)) flight_.give_up_oldest(outcome_);
    settle(outcome_);
  }
  if (probes_owed_ != 0) {
    --probes_owed_;
    add_probe();
  }
  if (ping_owed_) {
    ping_owed_ = false;
    if (plan_.fits(RecordType::Ping)) heard_ ? plan_.add(ping()) : plan_.add(ping(), Ref{});
  }
  sender_.add_control(plan_);
  if (now >= pacer_.ready_at()) {
    if (data_ready()) {
      sender_.add_data(plan_, budget(false), budget(true));
    } else if (flight_.bytes() + options_.max_datagram >= rate_.window()) {
      rate_.note_limited();
    }
  }
  if (!plan_.empty() && receiver_.ack_useful()) {
    receiver_.add_answer(plan_, now, options_.window);
  }
}

std::size_t Session::transmit(Nanos now, std::byte* out) {
  if (state_ == State::Ended) return 0;
  if (state_ == State::Closing) return farewell(now, out);
  if (flight_.next_number() >= kMaxNumber) {
    end(Code::KeyExhausted);
    return 0;
  }
  build(now);
  return plan_.empty() ? 0 : seal(now, out);
}

std::size_t Session::farewell(Nanos now, std::byte* out) {
  if (now < farewell_at_) return 0;
  plan_.begin(options_.max_datagram);
  // What was received whole is acknowledged first: the peer must not take it for lost.
  receiver_.add_answer(plan_, now, options_.window);
  Record record;
  record.type = RecordType::Bye;
  record.aux = static_cast<std::uint32_t>(why_);
  plan_.add(record);
  if (++farewells_ == kFarewells) state_ = State::Ended;
  farewell_at_ = now + rtt_.timeout(0);
  return seal(now, out);
}

std::size_t Session::seal(Nanos now, std::byte* out) {
  static constexpr std::byte kPad[16]{};
  const bool sealed = options_.protection == Protection::Aes128Gcm;
  Header header;
  header.flags =
      static_cast<std::uint8_t>((plan_.eliciting() ? kEliciting : 0) | (sealed ? kSealed : 0));
  header.body = static_cast<std::uint16_t>(plan_.body());
  header.connection = options_.peer_connection;
  header.epoch = options_.epoch;
  header.number = flight_.next_number();
  header.floor_gap = static_cast<std::uint32_t>(header.number - flight_.floor());
  encode_header(header, out);

  std::uint32_t sum = 0;
  bool ok = true;
  if (sealed) {
    ok = sealer_->begin(header.epoch, header.number, out, kSealedHeaderBytes);
  } else {
    sum = crc32c(0, out, kSealedHeaderBytes);
  }
  std::byte* at = out + kHeaderBytes;
  const std::span<const Plan::Piece> pieces = plan_.pieces();
  for (const Plan::Piece& piece : pieces) {
    const std::size_t pad = padded(piece.size) - piece.size;
    if (sealed) {
      ok = ok && sealer_->add(at, piece.head.data(), piece.head_bytes) &&
           sealer_->add(at + piece.head_bytes, piece.payload, piece.size) &&
           sealer_->add(at + piece.head_bytes + piece.size, kPad, pad);
    } else {
      sum = crc32c_copy(sum, at, piece.head.data(), piece.head_bytes);
      const Cold cold = piece.size >= kMinPrefetch ? Cold::Source : Cold::Neither;
      sum = crc32c_copy(sum, at + piece.head_bytes, piece.payload, piece.size, cold);
      sum = crc32c_copy(sum, at + piece.head_bytes + piece.size, kPad, pad);
    }
    at += piece.head_bytes + piece.size + pad;
  }
  // The next datagram most likely carries what follows in memory.
  if (!pieces.empty() && pieces.back().size >= kMinPrefetch) {
    const std::byte* next = pieces.back().payload + pieces.back().size;
    for (std::size_t i = 0; i < kPrefetch; i += 64) __builtin_prefetch(next + i);
  }
  std::byte* tag = out + kSealedHeaderBytes;
  if (sealed) {
    ok = ok && sealer_->seal(tag);
  } else {
    std::memset(tag, 0, kTagBytes);
    store<std::uint32_t>(tag, sum);
  }
  const std::size_t size = kHeaderBytes + plan_.body();
  flight_.note(now, size, plan_.eliciting(), plan_.refs());
  if (plan_.eliciting() && rtt_.known()) pacer_.sent(now, rate_.spacing(size, rtt_.smoothed()));
  sent_at_ = now;
  ++counters_.datagrams_sent;
  counters_.bytes_sent += size;
  counters_.peak_in_flight = std::max(counters_.peak_in_flight, flight_.bytes());
  if (!ok) {
    end(Code::NoMemory);  // the cipher's only way to fail
    return 0;
  }
  return size;
}

}  // namespace genie::datagram
