#include "genie/link.h"

#include <algorithm>

namespace genie {

Link::Link(EventQueue& events, Counters& counters, const Terms& own)
    : events_(events), counters_(counters), own_(own), chunk_(own.chunk), granted_(own.window) {}

void Link::connect(const Terms& peer) {
  peer_ = peer;
  chunk_ = std::min(own_.chunk, peer.chunk);
  allowed_ = peer.window;
  connected_ = true;
  events_.connected();
}

// -- orders from this side --------------------------------------------------------------------

void Link::post(const Order& order) { known_.insert(order.op, queue_.add(order)); }

bool Link::cancel(std::uint64_t op) {
  const bool stood = standing_.erase(op) != 0;
  Outgoing** found = known_.find(op);
  if (found == nullptr) return stood;
  Outgoing* outgoing = *found;
  if (outgoing->message != kUnopened) {
    control_.push_back({Kind::Cancel, outgoing->message, 0, 0});
  }
  finish(outgoing);
  return true;
}

void Link::stand(const Order& order) { standing_.insert_or_assign(order.op, Standing{order}); }

bool Link::trigger(std::uint64_t op, std::uint64_t times) {
  const auto found = standing_.find(op);
  if (found == standing_.end()) return false;
  Standing& standing = found->second;
  standing.owed += times;
  if (!standing.under_way && standing.owed > 0) begin(standing);
  return true;
}

void Link::conclude(std::uint64_t op) {
  const auto found = standing_.find(op);
  if (found == standing_.end() || found->second.concluded) return;
  found->second.concluded = true;
  if (found->second.idle()) events_.completed(op);
}

void Link::begin(Standing& standing) {
  --standing.owed;
  standing.under_way = true;
  standing.begun = now_;
  post(standing.order);
}

Carried Link::carried(std::uint64_t op) {
  const auto found = standing_.find(op);
  if (found == standing_.end()) return {};
  const Carried carried = found->second.carried;
  if (found->second.concluded && found->second.idle()) standing_.erase(found);
  return carried;
}

bool Link::withdraw(const Key& key) {
  return inbound_.withdraw(key, [this](std::uint64_t message) { turn_away(message, {623, 0}); });
}

void Link::fence(std::uint64_t epoch) {
  inbound_.fence(epoch, [&](std::uint64_t message) { turn_away(message, {624, epoch}); });
}

void Link::keepalive() {
  if (control_.empty()) control_.push_back({Kind::Grant, 0, 0, 0});
}

void Link::bye() { control_.push_back({Kind::Bye, 0, 0, 0}); }

void Link::clear() {
  inbound_.clear();
  known_.clear();
  opened_.clear();
  standing_.clear();
  queue_.clear();
  control_.clear();
  acks_.clear();
}

// The transfer is answered or given up: its source is not read again.
void Link::finish(Outgoing* outgoing) {
  known_.erase(outgoing->order.op);
  if (outgoing->message != kUnopened) opened_.erase(outgoing->message);
  queue_.release(outgoing);
}

// The peer has verified all of it.
void Link::complete(Outgoing* outgoing) {
  const std::uint64_t op = outgoing->order.op;
  finish(outgoing);
  const auto found = standing_.find(op);
  if (found == standing_.end()) {
    events_.completed(op);
    return;
  }
  Standing& standing = found->second;
  ++standing.carried.times;
  standing.carried.ns += now_ - standing.begun;
  standing.under_way = false;
  if (standing.owed > 0) {
    begin(standing);
  } else if (standing.concluded) {
    events_.completed(op);
  }
}

// -- sending ----------------------------------------------------------------------------------

bool Link::next(Frame& frame, std::uint64_t room, Wanted wanted) {
  frame.data = nullptr;
  Header& header = frame.header;
  header = Header{};
  if (wanted == Wanted::Chunks) {
    if (!next_data(frame, room, wanted)) return false;
  } else if (!acks_.empty()) {
    const Ack ack = acks_.front();
    acks_.pop_front();
    ++acks_sent_;
    if (Incoming* incoming = inbound_.find(ack.message)) incoming->ack = 0;
    header.kind = Kind::Ack;
    header.message = ack.message;
    header.offset = ack.verified;
  } else if (!control_.empty()) {
    const Control control = control_.front();
    control_.pop_front();
    header.kind = control.kind;
    header.message = control.message;
    header.offset = control.offset;
    header.length = control.length;
  } else if (wanted == Wanted::All && next_data(frame, room, wanted)) {
    // it is in `frame`
  } else if (taken_ + own_.window - granted_ >= own_.window / 4) {
    // Data that was discarded gives back credit without an acknowledgement to carry it.
    header.kind = Kind::Grant;
  } else {
    return false;
  }
  granted_ = taken_ + own_.window;
  header.credit = granted_;
  return true;
}

bool Link::next_data(Frame& frame, std::uint64_t room, Wanted wanted) {
  Outgoing* outgoing = queue_.head();
  if (outgoing == nullptr) return false;
  const bool unopened = outgoing->message == kUnopened;
  if (unopened && wanted == Wanted::Chunks) return false;
  const Order& order = outgoing->order;
  std::uint64_t credit = allowed_ - sent_;
  std::uint64_t free = kMaxOpen - opened_.size();
  if (order.priority >= kWeights) {
    const std::uint64_t reserve = peer_.window / 4;
    credit = credit > reserve ? credit - reserve : 0;
    free = free > kMaxOpen / 4 ? free - kMaxOpen / 4 : 0;
  }
  const std::uint64_t count = std::min<std::uint64_t>(chunk_, order.dst.length - outgoing->sent);
  // Wait for room for a whole chunk: crumbs of credit would become crumbs of frames.
  if (count > credit || count > room || (unopened && free == 0)) return false;
  Header& header = frame.header;
  if (unopened) {
    outgoing->message = next_message_++;
    opened_.insert(outgoing->message, outgoing);
    frame.dst = order.dst;
    header.length = order.dst.length;
    // What fits in one frame goes as one; a longer transfer announces itself first.
    header.kind = count == order.dst.length ? Kind::Put : Kind::Open;
  } else {
    header.kind = Kind::Data;
    header.length = order.dst.length;  // only a hint: how to copy
  }
  header.message = outgoing->message;
  if (header.kind != Kind::Open) {
    header.offset = outgoing->sent;
    header.payload = static_cast<std::uint32_t>(count);
    frame.data = order.source + outgoing->sent;
    frame.op = order.op;
    outgoing->sent += count;
    sent_ += count;
    note_in_flight();
    queue_.advance(outgoing);
  }
  return true;
}

void Link::note_in_flight() {
  // What the peer allows beyond its window is what it has taken so far.
  counters_.in_flight = sent_ - (allowed_ - peer_.window);
  counters_.peak_in_flight = std::max(counters_.peak_in_flight, counters_.in_flight);
}

// -- receiving --------------------------------------------------------------------------------

Verdict Link::accept(const Header& header, const Destination& dst, std::byte*& place) {
  place = nullptr;
  if (std::max({header.message, header.offset, header.length}) >= kU63) {
    return violation("a frame with a number beyond 2^63");
  }
  if (const Verdict verdict = credit(header); !verdict.ok()) return verdict;
  // A correct peer has at most kMaxOpen questions; one that asks on and takes no answers must
  // not fill our memory with them.
  if (acks_.size() + control_.size() > 4 * kMaxOpen) {
    return violation("answers are not being taken");
  }
  if (has_payload(header.kind)) {
    if (header.payload > own_.chunk) return violation("a frame of impossible size");
    if (taken_ + arriving_ + header.payload > granted_) {
      return violation("more data than was granted");
    }
  } else if (header.payload != 0) {
    return violation("a frame of impossible size");
  }
  switch (header.kind) {
    case Kind::Open:
    case Kind::Put:
      return opened(header, dst, place);
    case Kind::Data:
      return data(header, place);
    case Kind::Ack:
      return acked(header);
    case Kind::Refuse:
      return refused(header);
    case Kind::Cancel:
      if (header.message >= next_incoming_) return violation("a transfer that was never opened");
      inbound_.drop(header.message);
      return {};
    case Kind::Grant:
      return {};
    case Kind::Bye:
      peer_closed_ = true;
      return {};
  }
  return violation("a frame of unknown type");
}

Verdict Link::credit(const Header& header) {
  // It exceeds what was sent by the peer's window at most. Streams may deliver it out of order.
  if (header.credit > sent_ + peer_.window) return violation("impossible credit");
  if (header.credit > allowed_) {
    allowed_ = header.credit;
    note_in_flight();
  }
  return {};
}

Verdict Link::opened(const Header& header, const Destination& dst, std::byte*& place) {
  if (header.message != next_incoming_) return violation("a transfer opened out of order");
  ++next_incoming_;
  if (dst.length != header.length) {
    return violation("a transfer of another length than its destination");
  }
  if (std::max({dst.arena, dst.offset, dst.epoch}) >= kU63 || dst.offset + dst.length >= kU63) {
    return violation("a destination beyond 2^63");
  }
  if (header.offset != 0) return violation("a transfer that does not begin at its beginning");
  if (header.kind == Kind::Put && header.payload != header.length) {
    return violation("a transfer that is not whole");
  }
  if (inbound_.open_count() >= kMaxOpen) return violation("too many transfers at once");
  const Refusal refusal = inbound_.open(header.message, dst);
  if (refusal.code != 0) turn_away(header.message, refusal);
  if (header.kind == Kind::Put) {
    arriving_ += header.payload;
    place = this->place(header);
  }
  return {};
}

Verdict Link::data(const Header& header, std::byte*& place) {
  if (header.payload == 0) return violation("a frame of impossible size");
  if (header.message >= next_incoming_) {
    return violation("data of a transfer that was never opened");
  }
  const Incoming* incoming = inbound_.find(header.message);
  if (incoming != nullptr && !incoming->fits(header.offset, header.payload)) {
    return violation("a chunk that repeats or overruns");
  }
  arriving_ += header.payload;
  // Refused or cancelled: its sender will hear, or knows.
  if (incoming != nullptr) place = this->place(header);
  return {};
}

std::byte* Link::place(const Header& header) {
  const Incoming* incoming = inbound_.find(header.message);
  if (incoming == nullptr) return nullptr;
  return incoming->region->base + incoming->start + header.offset;
}

Verdict Link::landed(const Header& header, bool intact) {
  arriving_ -= header.payload;
  taken_ += header.payload;
  Incoming* incoming = inbound_.find(header.message);
  // Withdrawn while it was being received: its sender has been told already.
  if (incoming == nullptr) return {};
  if (!intact) {
    const std::uint64_t verified = incoming->verified;
    inbound_.drop(header.message);
    turn_away(header.message, {630, verified});
    return {};
  }
  // Checked again: another stream may have delivered the same bytes meanwhile.
  if (!incoming->fits(header.offset, header.payload)) {
    return violation("a chunk that repeats");
  }
  incoming->add(header.offset, header.payload);
  // Peers that stripe leave a gap for each chunk in flight; crumbs would be an attack.
  if (incoming->gaps() > own_.window / kMinChunk + 1) return violation("too many gaps");
  // Progress is reported, and credit given back, in steps of an eighth of the window.
  const bool whole = incoming->verified == incoming->length;
  if (!whole && incoming->verified - incoming->reported < own_.window / 8) return {};
  incoming->reported = incoming->verified;
  if (incoming->ack != 0) {
    acks_[incoming->ack - 1 - acks_sent_].verified = incoming->verified;
  } else {
    acks_.push_back({header.message, incoming->verified});
    incoming->ack = acks_sent_ + acks_.size();
  }
  if (whole) {
    Region& region = *incoming->region;
    if (incoming->length == region.length) {
      if (region.bell != nullptr) {
        region.bell->ring();
      } else {
        events_.arrived(region.key, region.arrivals);
      }
    }
    // Not drop(): places of other transfers stay good.
    inbound_.close(header.message);
  }
  return {};
}

void Link::turn_away(std::uint64_t message, Refusal refusal) {
  control_.push_back({Kind::Refuse, message, refusal.code, refusal.detail});
}

Verdict Link::acked(const Header& header) {
  if (header.message >= next_message_) {
    return violation("an answer to a transfer that was never opened");
  }
  Outgoing** found = opened_.find(header.message);
  if (found == nullptr) return {};
  Outgoing* outgoing = *found;
  if (header.offset < outgoing->verified || header.offset > outgoing->sent) {
    return violation("an acknowledgement of what was not sent");
  }
  outgoing->verified = header.offset;
  if (outgoing->verified == length_of(outgoing) && outgoing->exhausted()) {
    complete(outgoing);
  } else if (!standing_.contains(outgoing->order.op)) {
    events_.progressed(outgoing->order.op, header.offset, outgoing->progress);
  }
  return {};
}

Verdict Link::refused(const Header& header) {
  if (header.message >= next_message_) {
    return violation("an answer to a transfer that was never opened");
  }
  Outgoing** found = opened_.find(header.message);
  if (found == nullptr) return {};
  Outgoing* outgoing = *found;
  events_.failed(outgoing->order.op, static_cast<std::uint16_t>(header.offset % 10000),
                 header.length);
  standing_.erase(outgoing->order.op);
  finish(outgoing);
  return {};
}

}  // namespace genie
