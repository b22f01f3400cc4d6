#include "genie/receiver.h"

#include <algorithm>
#include <cstring>

namespace genie::datagram {

Receiver::Receiver(std::size_t chunk) : chunk_(chunk), slots_(kSlots) {}

// -- memory ---------------------------------------------------------------------------------

bool Receiver::add(const Region& region) {
  if (region.offset >= kU63 || region.length >= kU63 || region.offset + region.length >= kU63 ||
      (region.base == nullptr && region.length != 0)) {
    return false;
  }
  Owned owned;
  owned.region = region;
  return regions_.try_emplace(region.key, std::move(owned)).second;
}

bool Receiver::withdraw(const Key& key) {
  const auto found = regions_.find(key);
  if (found == regions_.end()) return false;
  end_writers(found->second, Code::NoDestination, 0);
  std::erase(arrived_, key);
  regions_.erase(found);
  return true;
}

void Receiver::fence(std::uint64_t epoch) {
  epoch_ = std::max(epoch_, epoch);
  for (auto& [key, owner] : regions_) {
    if (owner.region.epoch < epoch_) end_writers(owner, Code::StaleEpoch, epoch_);
  }
}

void Receiver::end_writers(Owned& owner, Code code, std::uint64_t detail) {
  for (const std::uint16_t slot : owner.writers) {
    Incoming& in = slots_[slot];
    in.state = State::Done;
    in.owner = nullptr;
    in.got.release();
    turn_away(message_number(in.generation, slot), code, detail);
  }
  owner.writers.clear();
}

// -- data -----------------------------------------------------------------------------------

bool Receiver::fits(const Incoming& in, const Record& record) const {
  const std::uint64_t chunk = record.offset / chunk_;
  if (record.length != in.length || record.offset % chunk_ != 0) return false;
  return record.size == std::min<std::uint64_t>(chunk_, in.length - record.offset) &&
         (chunk == 0 || record.size != 0);
}

std::byte* Receiver::unverified_target(const Record& record) {
  Incoming& in = slots_[slot_of(record.message)];
  if (in.state != State::Active || in.generation != generation_of(record.message)) return nullptr;
  const std::uint64_t chunk = record.offset / chunk_;
  if (!fits(in, record) || !in.got.covers(chunk) || in.got.test(chunk)) return nullptr;
  return in.base + record.offset;
}

Receiver::Result Receiver::on_data(const Record& record, bool in_place) {
  Incoming& in = slots_[slot_of(record.message)];
  const std::uint64_t generation = generation_of(record.message);
  if (generation < in.generation) return Result::Accepted;  // left over from an ended message
  if (generation > in.generation) {
    // A slot is used again only when its last message has ended on both sides.
    if (in.state == State::Active) return Result::Violation;
    if (record.type != RecordType::Open) return Result::Dropped;
    const Result opened = open(record);
    if (opened != Result::Accepted) return opened;
  }
  if (in.state == State::Active) return write(in, record, in_place);
  // Ended from this side, and the refusal does not fit the next answer yet: an acknowledgement
  // without it would make the message look complete.
  return refusal_waits(record.message) ? Result::Dropped : Result::Accepted;
}

Receiver::Result Receiver::open(const Record& record) {
  const std::size_t slot = slot_of(record.message);
  Incoming& in = slots_[slot];
  const Destination& dst = record.destination;
  const auto found = regions_.find(dst.key);
  Code code = Code::Ok;
  std::uint64_t detail = 0;
  if (found == regions_.end() || found->second.region.arena != dst.arena) {
    code = Code::NoDestination;
  } else {
    const Region& region = found->second.region;
    const std::uint64_t end = region.offset + region.length;
    if (dst.epoch != region.epoch || region.epoch < epoch_) {
      code = Code::StaleEpoch;
      detail = std::max(epoch_, region.epoch);
    } else if (dst.offset < region.offset || dst.offset > end || dst.length > end - dst.offset) {
      code = Code::OutOfRange;
      detail = region.length;
    } else if (!region.writable) {
      code = Code::ReadOnly;
    } else {
      const std::uint64_t start = dst.offset - region.offset;
      for (const std::uint16_t writer : found->second.writers) {
        const Incoming& other = slots_[writer];
        if (start < other.start + other.length && other.start < start + dst.length) {
          code = Code::Busy;
        }
      }
    }
  }
  if (code != Code::Ok && refusals_.size() >= kMaxRefusals) return Result::Dropped;
  in.generation = generation_of(record.message);
  in.whole = false;
  if (code != Code::Ok) {
    turn_away(record.message, code, detail);
    return Result::Accepted;
  }
  Owned& owner = found->second;
  in.state = State::Active;
  in.owner = &owner;
  in.start = dst.offset - owner.region.offset;
  in.base = owner.region.base + in.start;
  in.length = dst.length;
  in.got.reset(std::max<std::uint64_t>(1, (dst.length + chunk_ - 1) / chunk_));
  owner.writers.push_back(static_cast<std::uint16_t>(slot));
  return Result::Accepted;
}

Receiver::Result Receiver::write(Incoming& in, const Record& record, bool in_place) {
  const std::uint64_t chunk = record.offset / chunk_;
  if (!fits(in, record)) return Result::Violation;
  if (chunk < in.got.base()) return Result::Accepted;
  if (!in.got.covers(chunk)) return Result::Violation;
  if (in.got.test(chunk)) return Result::Accepted;
  if (!in_place && record.size != 0) {
    std::memcpy(in.base + record.offset, record.payload, record.size);
  }
  in.got.set(chunk);
  landed_ += record.size;
  if (in.got.complete()) finish(in);
  return Result::Accepted;
}

bool Receiver::refusal_waits(std::uint64_t message) const {
  for (std::size_t i = kMaxRefusals; i < refusals_.size(); ++i) {
    if (refusals_[i].message == message) return true;
  }
  return false;
}

void Receiver::finish(Incoming& in) {
  Owned& owner = *in.owner;
  std::erase(owner.writers, static_cast<std::uint16_t>(&in - slots_.data()));
  if (in.length == owner.region.length) {
    // Joined until somebody takes it: a peer that is faster than its reader fills no memory.
    if (owner.arrivals++ == 0) arrived_.push_back(owner.region.key);
  }
  in.state = State::Done;
  in.whole = true;
  in.owner = nullptr;
  in.got.release();
  ack_soon_ = true;
}

bool Receiver::finished(std::uint64_t message) const {
  const Incoming& in = slots_[slot_of(message)];
  return in.generation == generation_of(message) && in.state == State::Done && in.whole;
}

Receiver::Result Receiver::on_cancel(const Record& record) {
  const std::size_t slot = slot_of(record.message);
  Incoming& in = slots_[slot];
  const std::uint64_t generation = generation_of(record.message);
  if (generation < in.generation) return Result::Accepted;
  if (generation > in.generation) {
    if (in.state == State::Active) return Result::Violation;
    in.generation = generation;  // what still comes of it is left over
    in.whole = false;
  } else if (in.state == State::Active) {
    std::erase(in.owner->writers, static_cast<std::uint16_t>(slot));
    in.state = State::Done;
    in.owner = nullptr;
    in.got.release();
  }
  ack_now_ = true;
  return Result::Accepted;
}

// -- answers --------------------------------------------------------------------------------

void Receiver::turn_away(std::uint64_t message, Code code, std::uint64_t detail) {
  refusals_.push_back({message, code, detail});
  ack_now_ = true;
}

void Receiver::accepted(const Header& header, Nanos now) {
  const std::uint64_t before = window_.largest();
  const bool first = !window_.any();
  const bool in_order = window_.mark(header.number);
  window_.raise_floor(header.number - header.floor_gap);
  if (first || header.number > before) newest_at_ = now;
  if ((header.flags & kEliciting) == 0) return;
  if (unanswered_++ == 0) ack_at_ = now + kAckDelay;
  if (ack_soon_) ack_at_ = std::min(ack_at_, now + kReplyDelay);
  if (!in_order || unanswered_ >= kAckEvery) ack_now_ = true;
}

bool Receiver::add_answer(Plan& plan, Nanos now, std::uint64_t credit) {
  // Withdrawing memory may end more messages than fit one answer; the others wait their turn.
  const std::size_t count = std::min(refusals_.size(), kMaxRefusals);
  if (!plan.fits_all(count * kRefuseBytes + kAckBytes, count + 1)) return false;
  for (std::size_t i = 0; i < count; ++i) {
    Record record;
    record.type = RecordType::Refuse;
    record.message = refusals_[i].message;
    record.aux = static_cast<std::uint32_t>(refusals_[i].code);
    record.detail = refusals_[i].detail;
    plan.add(record, Ref{Ref::Kind::Refusal, refusals_[i].message, 0});
  }
  ack_now_ = ack_soon_ = false;
  unanswered_ = 0;
  if (!window_.any()) return true;
  Record record;
  record.type = RecordType::Ack;
  record.aux = static_cast<std::uint32_t>(std::min<Nanos>(now - newest_at_, 0xffffffff));
  record.message = credit;
  record.cumulative = window_.cumulative();
  record.largest = window_.largest();
  record.bits = window_.recent();
  plan.add(record);
  return true;
}

void Receiver::on_refusal_acked(std::uint64_t message) {
  std::erase_if(refusals_, [&](const Refusal& refusal) { return refusal.message == message; });
  if (refusals_.size() >= kMaxRefusals) ack_now_ = true;
}

void Receiver::take_events(std::vector<Event>& out) {
  for (const Key& key : arrived_) {
    const auto found = regions_.find(key);
    if (found == regions_.end()) continue;
    Event event;
    event.type = EventType::Arrived;
    event.key = key;
    event.b = found->second.arrivals;
    found->second.arrivals = 0;
    out.push_back(event);
  }
  arrived_.clear();
}

}  // namespace genie::datagram
