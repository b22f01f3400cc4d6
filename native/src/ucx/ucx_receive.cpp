// What UCX brings: messages into their order, frames into the link.
#include <algorithm>
#include <cstring>

#include "genie/endpoint.h"
#include "genie/ucx.h"

namespace genie {
namespace {

constexpr int kTurnSteps = 8;
constexpr std::int64_t kGrace = 200'000'000;

}  // namespace

void UcxWire::receive(Link& link, Turn& turn) {
  if (look_) read_socket(turn);
  if (!out_.empty()) write_socket();
  if (turn.ended()) return;
  progress(link, turn);
  if (turn.ended() || link.peer_closed() || turn.received) return;
  if (eof_ || port_->failure() != nullptr) end(turn);
}

void UcxWire::progress(Link& link, Turn& turn) {
  link_ = &link;
  turn_ = &turn;
  share_ = kTurn;
  bool any = true;
  for (int i = 0; i < kTurnSteps && any && share_ > 0 && !turn.ended() && !link.peer_closed();
       ++i) {
    any = port_->progress(*this);
    fetch_more();
  }
  link_ = nullptr;
  turn_ = nullptr;
  if (!any) return;
  turn.more = true;
  busy_ = 0;
}

// The peer, or the way to it, is gone. What it said before may still be under way: a while.
void UcxWire::end(Turn& turn) {
  const std::int64_t now = now_ns();
  if (grace_ == 0) grace_ = now + kGrace;
  if (now < grace_) return;
  if (port_->failure() != nullptr) {
    turn.end(610, std::string("the connection failed: ") + port_->failure());
  } else {
    turn.end(610, "the connection ended without a farewell");
  }
}

// Whether a message is the peer's, and due now or soon.
bool UcxWire::expected(const UcxTag& tag) {
  if (turn_->ended() || link_->peer_closed()) return false;
  std::byte difference{};
  for (std::size_t i = 0; i < tag.token.size(); ++i) difference |= tag.token[i] ^ peer_token_[i];
  if (difference != std::byte{}) return false;
  // Twice the same: a recording of it, and no reason to end the connection.
  if (tag.sequence < expected_ || held_.contains(tag.sequence)) return false;
  if (tag.sequence - expected_ < kMaxHeld) return true;
  violation(*turn_, "a message far beyond its turn");
  return false;
}

void UcxWire::pushed(const UcxTag& tag, const std::byte* data, std::size_t size) {
  if (!expected(tag)) return;
  if (size > kShortBytes) return violation(*turn_, "a pushed message of impossible size");
  turn_->received = true;
  if (tag.sequence != expected_) {
    held_[tag.sequence].copy.assign(data, data + size);
    return;
  }
  deliver(data, size);
  deliver_held();
}

bool UcxWire::announced(const UcxTag& tag, std::size_t size, void* ticket) {
  if (!expected(tag)) return false;
  const bool repeated = std::any_of(offers_.begin(), offers_.end(), [&](const Offer& offer) {
    return offer.tag.sequence == tag.sequence;
  });
  if (repeated) return false;
  if (size > long_bytes(chunk_) || offers_.size() >= kMaxOffers) {
    violation(*turn_, "an announced message of impossible size");
    return false;
  }
  turn_->received = true;
  offers_.push_back({tag, size, ticket});
  return true;
}

// Fetches what was announced, as far as there are slots. The last one is for the message that is
// due, so that those behind it cannot hold up what they wait for.
void UcxWire::fetch_more() {
  for (auto offer = offers_.begin(); offer != offers_.end() && !turn_->ended();) {
    if (free_fetch_.empty()) return;
    if (free_fetch_.size() == 1 && offer->tag.sequence != expected_) {
      ++offer;
      continue;
    }
    Slot* slot = free_fetch_.back();
    free_fetch_.pop_back();
    slot->tag = offer->tag;
    slot->size = offer->size;
    const auto cookie = static_cast<std::uint64_t>(slot - slots_.data());
    const UcxStatus status = port_->fetch(offer->ticket, slot->data, slot->size, cookie);
    offer = offers_.erase(offer);
    if (status != UcxStatus::Going) arrived(slot, status == UcxStatus::Done);
  }
}

void UcxWire::fetched(std::uint64_t cookie, bool ok) { arrived(&slots_[cookie], ok); }

void UcxWire::arrived(Slot* slot, bool ok) {
  if (!ok || turn_->ended() || link_->peer_closed()) {
    // Why is in port_->failure(), and nothing behind this message can be delivered.
    release(slot);
    return;
  }
  turn_->received = true;
  if (slot->tag.sequence != expected_) {
    held_[slot->tag.sequence].slot = slot;
    return;
  }
  deliver(slot->data, slot->size);
  release(slot);
  deliver_held();
}

void UcxWire::deliver_held() {
  while (!turn_->ended() && !held_.empty() && held_.begin()->first == expected_) {
    auto node = held_.extract(held_.begin());
    Held& held = node.mapped();
    if (held.slot == nullptr) {
      deliver(held.copy.data(), held.copy.size());
    } else {
      deliver(held.slot->data, held.slot->size);
      release(held.slot);
    }
  }
}

// All frames of a message whose turn it is.
void UcxWire::deliver(const std::byte* data, std::size_t size) {
  ++expected_;
  link_->counters().bytes_received += sizeof(UcxTag) + size;
  share_ -= std::min<std::uint64_t>(share_, size + 256);
  while (size > 0 && !turn_->ended() && !link_->peer_closed()) {
    const std::size_t used = frame(data, size);
    data += used;
    size -= used;
  }
}

// The first frame; how many bytes it has. Violations end the turn.
std::size_t UcxWire::frame(const std::byte* data, std::size_t size) {
  const auto broken = [this, size](const char* why) {
    violation(*turn_, why);
    return size;
  };
  const std::size_t head = size < kPlainBytes ? 0 : FrameReader::announced(data);
  if (head == 0 || head > size) return broken("a frame of unknown type or version");
  Header header{};
  Destination dst{};
  if (const Verdict v = reader_.read(data, header, dst); !v.ok()) return broken(v.why);
  std::byte* place = nullptr;
  if (link_->early(header)) return broken("data of a transfer that was never opened");
  if (const Verdict v = link_->accept(header, dst, place); !v.ok()) return broken(v.why);
  if (!has_payload(header.kind)) return head;
  const std::size_t tag = header.payload == 0 ? 0 : reader_.tag_bytes();
  if (size - head < header.payload + tag) return broken("a frame that is cut off");
  bool intact = true;
  // What goes nowhere is not looked at.
  if (header.payload != 0 && place != nullptr) {
    const std::byte* from = data + head;
    intact = reader_.begin();
    if (!reader_.sealed()) std::memcpy(place, from, header.payload);
    intact = reader_.add(place, from, header.payload) && intact;
    intact = reader_.finish(from + header.payload) && intact;
  }
  if (const Verdict v = link_->landed(header, intact); !v.ok()) return broken(v.why);
  return head + header.payload + tag;
}

}  // namespace genie
