// What a session does with a datagram: whether it is authentic, new and possible, and what its
// records change.
#include <algorithm>
#include <cstring>

#include "genie/session.h"

namespace genie::datagram {

namespace {

constexpr std::uint64_t kMaxWindow = std::uint64_t{1} << 32;
// Messages from this size on do not stay in the caches until they are whole.
constexpr std::uint64_t kCold = 256 << 10;
constexpr std::size_t kMinDirect = 1024;  // smaller payloads are cheaper through the scratch

}  // namespace

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
  sum = sum_body(body, sum, in_place);
  std::array<std::byte, kTagBytes> expected{};
  store<std::uint32_t>(expected.data(), sum);
  return std::memcmp(expected.data(), tag, kTagBytes) == 0;
}

// The sum of a body; what decrypt() does with an encrypted one goes for this one too.
std::uint32_t Session::sum_body(std::span<const std::byte> body, std::uint32_t sum,
                                bool& in_place) {
  in_place = false;
  Record record;
  if (body.size() >= kDataBytes + kMinDirect && decode_record_head(body, record) &&
      record.size >= kMinDirect &&
      (record.type == RecordType::Data || record.type == RecordType::Open)) {
    const std::size_t head = record_head_bytes(record.type);
    std::byte* target =
        head + padded(record.size) == body.size() ? receiver_.unverified_target(record) : nullptr;
    if (target != nullptr) {
      in_place = true;
      const std::byte* payload = body.data() + head;
      const Cold cold = record.length >= kCold ? Cold::Destination : Cold::Neither;
      sum = crc32c_copy(crc32c(sum, body.data(), head), target, payload, record.size, cold);
      return crc32c(sum, payload + record.size, body.size() - head - record.size);
    }
  }
  return crc32c(sum, body.data(), body.size());
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

}  // namespace genie::datagram
