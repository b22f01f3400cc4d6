#include "genie/session.h"

#include <algorithm>
#include <cstring>

namespace genie::datagram {

namespace {

// As many datagrams as one key may seal. 2^36 of 9,000 bytes are half a pebibyte; the chance of
// an unnoticed forgery stays below 2^-50 there.
constexpr std::uint64_t kMaxNumber = std::uint64_t{1} << 36;
constexpr std::uint64_t kMaxWindow = std::uint64_t{1} << 32;
constexpr Nanos kMaxProbeWait = 250 * kMilli;
constexpr unsigned kFarewells = 3;
constexpr Nanos kClosedWait = 10 * kMilli;
// Packet numbers that data leaves to answers, while the peer acknowledges nothing.
constexpr std::uint64_t kSpareNumbers = 1024;
constexpr std::size_t kPrefetch = 3072;
constexpr std::size_t kMinDirect = 1024;  // smaller payloads are cheaper through the scratch

bool valid(const SessionOptions& o) {
  return o.max_datagram >= kMinDatagram && o.max_datagram <= kMaxDatagram &&
         o.window >= o.max_datagram && o.window <= kMaxWindow &&
         o.peer_window >= o.max_datagram && o.peer_window <= kMaxWindow &&
         o.stall_timeout >= 10 * kMilli && o.queue >= 1 && o.queue <= (1u << 20);
}

}  // namespace

std::unique_ptr<Session> Session::create(const SessionOptions& options, Nanos now) {
  if (!valid(options)) return nullptr;
  std::unique_ptr<Session> session(new Session(options, now));
  if (options.protection == Protection::Aes128Gcm) {
    session->sealer_ = Gcm::create(options.send_key, true);
    session->opener_ = Gcm::create(options.receive_key, false);
    if (!session->sealer_ || !session->opener_) return nullptr;
  }
  return session;
}

Session::Session(const SessionOptions& options, Nanos now)
    : options_(options),
      sender_(chunk_bytes(options.max_datagram), options.queue),
      receiver_(chunk_bytes(options.max_datagram)),
      rate_(options.max_datagram, options.peer_window, options.shared_path),
      scratch_(options.max_datagram),
      heard_at_(now),
      sent_at_(now),
      credit_(options.peer_window) {}

// -- orders ---------------------------------------------------------------------------------

Code Session::post(const Order& order) {
  if (ended()) return why_;
  return sender_.post(order);
}

void Session::set_window(std::uint64_t bytes) {
  options_.window = bytes;
  ping_owed_ = true;  // what carries the news
}

void Session::end(Code code) {
  if (state_ == State::Ended) return;
  if (why_ == Code::Ok) why_ = code;
  state_ = State::Ended;
  sender_.fail_all(why_);
}

void Session::close(Nanos now) {
  if (state_ != State::Open) return;
  why_ = Code::Closed;
  state_ = State::Closing;
  sender_.fail_all(why_);
  farewell_at_ = now;
}

void Session::abort(Code code) { end(code); }

// -- receiving ------------------------------------------------------------------------------

bool Session::on_datagram(std::span<const std::byte> datagram, Nanos now) {
  if (state_ != State::Open) return false;
  Header header;
  const bool sealed = options_.protection == Protection::Aes128Gcm;
  if (datagram.size() > options_.max_datagram || !decode_header(datagram, header) ||
      header.connection != options_.local_connection || header.epoch != options_.epoch ||
      ((header.flags & kSealed) != 0) != sealed || header.number >= kMaxNumber) {
    ++counters_.rejected;
    return false;
  }
  if (receiver_.check(header.number) != PacketWindow::Verdict::Fresh) {
    ++counters_.duplicates;
    return false;
  }
  std::span<const std::byte> body;
  bool in_place = false;
  if (!open_datagram(datagram, header, body, in_place)) {
    ++counters_.rejected;
    return false;
  }
  heard_ = true;
  heard_at_ = now;
  ++counters_.datagrams_received;
  counters_.bytes_received += datagram.size();
  if (!process(body, header, in_place, now)) {
    ++counters_.dropped;
    return true;
  }
  if (state_ == State::Open) receiver_.accepted(header, now);
  return true;
}

bool Session::open_datagram(std::span<const std::byte> datagram, const Header& header,
                            std::span<const std::byte>& body, bool& in_place) {
  const std::byte* tag = datagram.data() + kSealedHeaderBytes;
  if (options_.protection == Protection::Aes128Gcm) {
    if (!opener_->begin(header.epoch, header.number, datagram.data(), kSealedHeaderBytes)) {
      return false;
    }
    if (!decrypt(datagram, in_place) || !opener_->verify(tag)) return false;
    body = {scratch_.data(), header.body};
    return true;
  }
  body = datagram.subspan(kHeaderBytes);
  std::uint32_t sum = crc32c(0, datagram.data(), kSealedHeaderBytes);
  sum = crc32c(sum, body.data(), body.size());
  std::array<std::byte, kTagBytes> expected{};
  store<std::uint32_t>(expected.data(), sum);
  return std::memcmp(expected.data(), tag, kTagBytes) == 0;
}

// Decrypts the body to where it can stay. A large record of an open message goes straight to its
// destination: bytes there mean nothing before the message has completed, so a forged datagram
// does no harm that its retransmission does not undo. All else goes to the scratch.
bool Session::decrypt(std::span<const std::byte> datagram, bool& in_place) {
  const std::byte* in = datagram.data() + kHeaderBytes;
  std::size_t size = datagram.size() - kHeaderBytes;
  std::byte* out = scratch_.data();
  in_place = false;
  if (size >= kDataBytes + kMinDirect) {
    if (!opener_->add(out, in, kDataBytes)) return false;
    std::size_t head = kDataBytes;
    if (load<std::uint8_t>(out) == static_cast<std::uint8_t>(RecordType::Open)) {
      if (!opener_->add(out + head, in + head, kOpenBytes - head)) return false;
      head = kOpenBytes;
    }
    Record record;
    if (decode_record_head({out, head}, record) && record.size >= kMinDirect &&
        (record.type == RecordType::Data || record.type == RecordType::Open) &&
        head + padded(record.size) == size) {
      if (std::byte* target = receiver_.unverified_target(record)) {
        in_place = true;
        if (!opener_->add(target, in + head, record.size)) return false;
        in += head + record.size;
        out += head + record.size;
        size -= head + record.size;
        return opener_->add(out, in, size);
      }
    }
    in += head;
    out += head;
    size -= head;
  }
  return opener_->add(out, in, size);
}

// False when something of it must come again.
bool Session::process(std::span<const std::byte> body, const Header& header, bool in_place,
                      Nanos now) {
  Record record;
  bool whole = true;
  for (;;) {
    const Parsed parsed = next_record(body, record);
    if (parsed == Parsed::End) return whole;
    bool correct = parsed == Parsed::Record;
    if (correct) {
      switch (record.type) {
        case RecordType::Data:
        case RecordType::Open: {
          const Receiver::Result result = receiver_.on_data(record, in_place);
          if (result == Receiver::Result::Dropped) whole = false;
          correct = result != Receiver::Result::Violation;
          break;
        }
        case RecordType::Ack:
          correct = on_ack(record, header.number, now);
          break;
        case RecordType::Refuse:
          correct = sender_.on_refuse(record.message, static_cast<std::uint16_t>(record.aux),
                                      record.detail);
          break;
        case RecordType::Cancel:
          correct = receiver_.on_cancel(record) != Receiver::Result::Violation;
          break;
        case RecordType::Ping:
          on_credit(record.message, header.number);
          break;
        case RecordType::Bye:
          end(Code::PeerClosed);
          return true;
      }
    }
    if (!correct) {
      end(Code::Violation);
      return true;
    }
  }
}

// Datagrams may overtake each other: the newest one's word counts.
void Session::on_credit(std::uint64_t credit, std::uint64_t number) {
  if (number + 1 <= credit_from_) return;
  credit_from_ = number + 1;
  credit_ = std::min(credit, kMaxWindow);
}

bool Session::on_ack(const Record& record, std::uint64_t number, Nanos now) {
  outcome_.clear();
  flight_.on_ack(record, now, rtt_, outcome_);
  if (!outcome_.valid) return false;
  on_credit(record.message, number);
  if (outcome_.rtt != 0) {
    rtt_.sample(outcome_.rtt - outcome_.delay);
    rate_.on_rtt(now, outcome_.rtt);
  }
  if (outcome_.acked_bytes != 0) {
    probe_count_ = 0;
    probes_owed_ = 0;
  }
  settle(outcome_);
  if (outcome_.round_ended) rate_.end_round(now);
  return true;
}

void Session::settle(const AckOutcome& outcome) {
  rate_.on_acked(outcome.acked_bytes);
  rate_.on_lost(outcome.lost_bytes);
  counters_.bytes_lost += outcome.lost_bytes;
  for (const Ref& ref : outcome.acked) {
    if (ref.kind == Ref::Kind::Refusal) {
      receiver_.on_refusal_acked(ref.message);
    } else {
      sender_.on_acked(ref);
    }
  }
  for (const Ref& ref : outcome.lost) {
    if (ref.kind == Ref::Kind::Refusal) {
      receiver_.on_refusal_lost();
    } else {
      sender_.on_lost(ref);
    }
  }
}

// -- time -----------------------------------------------------------------------------------

Nanos Session::probe_deadline() const {
  // A closed window must be asked about too: the datagram that opened it may have been lost.
  const bool closed = credit_ == 0 && (sender_.ready(false) || sender_.ready(true));
  if (flight_.idle() && !closed) return kNever;
  const Nanos wait = rtt_.timeout(100 * kMicro) << std::min(probe_count_, 10u);
  // Dozens of probes fit the stall timeout: a path that loses a third of all is slow, not dead.
  const Nanos most = std::min(kMaxProbeWait, options_.stall_timeout / 32);
  return flight_.last_eliciting() + std::min(std::max(wait, flight_.idle() ? kClosedWait : 0), most);
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
  const std::uint64_t credit = bulk ? credit_ - credit_ / 4 : credit_;
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
    if (plan_.fits(RecordType::Ping)) plan_.add(ping());
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
  header.flags = static_cast<std::uint8_t>((plan_.eliciting() ? kEliciting : 0) |
                                           (sealed ? kSealed : 0));
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
      sum = crc32c_copy(sum, at + piece.head_bytes, piece.payload, piece.size);
      sum = crc32c_copy(sum, at + piece.head_bytes + piece.size, kPad, pad);
    }
    at += piece.head_bytes + piece.size + pad;
  }
  // The next datagram most likely carries what follows in memory.
  if (!pieces.empty() && pieces.back().size >= kMinDirect) {
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

// -- state ----------------------------------------------------------------------------------

void Session::take_events(std::vector<Event>& out) {
  receiver_.take_events(out);
  sender_.take_events(out);
  if (ended() && !lost_reported_) {
    lost_reported_ = true;
    out.push_back({EventType::Lost, static_cast<std::uint16_t>(why_), 0, 0, {}});
  }
}

bool Session::has_events() const {
  return receiver_.has_events() || sender_.has_events() || (ended() && !lost_reported_);
}

SessionCounters Session::counters() const {
  SessionCounters out = counters_;
  out.bytes_landed = receiver_.landed_bytes();
  out.in_flight = flight_.bytes();
  out.window = rate_.window();
  out.rtt = rtt_.known() ? rtt_.smoothed() : 0;
  out.base_rtt = rate_.base_rtt() == kNever ? 0 : rate_.base_rtt();
  return out;
}

}  // namespace genie::datagram
