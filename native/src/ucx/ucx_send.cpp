// What goes to UCX: frames from the link, in short messages and long ones.
#include <algorithm>
#include <cstring>

#include "genie/endpoint.h"
#include "genie/ucx.h"

namespace genie {

void UcxWire::send(Link& link, Turn& turn, Wanted wanted) {
  if (!out_.empty()) write_socket();
  flushed_ = out_.empty();
  // At the end nobody calls receive(); the peer may have sent all it had before this side has read
  // its address, and its last acknowledgement needs that.
  if (wanted == Wanted::Control && !connected_) {
    read_socket(turn);
    flushed_ = eof_;
    if (!connected_) return;
  }
  if (!connected_ || port_->failure() != nullptr || eof_) {
    flushed_ = true;  // nothing has been taken
    return;
  }
  std::uint64_t share = kTurn;
  bool any = true;
  while (any && !turn.ended()) {
    if (share == 0) {
      turn.more = true;
      return;
    }
    settle();
    const std::uint64_t before = link.counters().bytes_sent;
    any = fill_short(link, turn, wanted);
    any = fill_long(link, turn, wanted) || any;
    share -= std::min<std::uint64_t>(share, link.counters().bytes_sent - before);
  }
  if (wanted != Wanted::Control) return;
  // The end: nobody calls receive() any more, and UCX sends in progress() only.
  progress(link, turn);
  settle();
  flushed_ = floor_ == next_ && port_->flushed();
}

// Moves the floor past what has been taken.
void UcxWire::settle() {
  while (floor_ < next_ && !going_[floor_ % kAhead]) ++floor_;
}

// One message of as many small frames as there are.
bool UcxWire::fill_short(Link& link, Turn& turn, Wanted wanted) {
  if (free_short_.empty() || next_ - floor_ >= kAhead) return false;
  Slot* slot = free_short_.back();
  std::size_t used = 0;
  constexpr std::size_t kOverhead = kMaxHeader + kFrameTrailer;
  Frame frame;
  while (used + kOverhead <= kShortBytes &&
         link.next(frame, kShortBytes - used - kOverhead, wanted)) {
    const std::size_t wrote = put(frame, slot->data + used);
    if (wrote == 0) {
      turn.end(610, "the crypto library failed");
      return false;
    }
    used += wrote;
  }
  if (used == 0) return false;
  free_short_.pop_back();
  dispatch(link, turn, slot, used, true);
  return true;
}

// One message of one frame that is too long for a short one.
bool UcxWire::fill_long(Link& link, Turn& turn, Wanted wanted) {
  if (turn.ended() || free_long_.empty() || next_ - floor_ >= kAhead) return false;
  Frame frame;
  if (!link.next(frame, chunk_, wanted)) return false;
  Slot* slot = free_long_.back();
  free_long_.pop_back();
  const std::size_t wrote = put(frame, slot->data);
  if (wrote == 0) {
    turn.end(610, "the crypto library failed");
    return false;
  }
  dispatch(link, turn, slot, wrote, wrote <= kShortBytes);
  return true;
}

// Writes a frame with its payload; the bytes written, 0 when the crypto library refuses.
std::size_t UcxWire::put(const Frame& frame, std::byte* out) {
  const std::size_t wrote = writer_.write(out, frame.header, frame.dst, frame.data);
  if (wrote == 0 || sealed_ || frame.header.payload == 0) return wrote;
  std::memcpy(out + wrote, frame.data, frame.header.payload);
  return wrote + frame.header.payload;
}

void UcxWire::dispatch(Link& link, Turn& turn, Slot* slot, std::size_t size, bool push) {
  slot->tag = UcxTag{own_token_, next_};
  slot->size = size;
  const auto cookie = static_cast<std::uint64_t>(slot - slots_.data());
  const UcxStatus status = port_->send(&slot->tag, slot->data, size, push, cookie);
  going_[next_ % kAhead] = status == UcxStatus::Going;
  ++next_;
  if (status != UcxStatus::Going) release(slot);
  if (status == UcxStatus::Failed) {
    look_ = true;  // receive() tells why, once the peer's last words are in
    return;
  }
  turn.sent = true;
  ++link.counters().sends;
  link.counters().bytes_sent += sizeof(UcxTag) + size;
}

void UcxWire::sent(std::uint64_t cookie) {
  Slot* slot = &slots_[cookie];
  going_[slot->tag.sequence % kAhead] = false;
  release(slot);
}

}  // namespace genie
