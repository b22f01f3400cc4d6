#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "genie/endpoint.h"
#include "genie/ucx.h"

namespace genie {

using datagram::derive_key;
using datagram::Gcm;

namespace {

constexpr std::size_t kMaxAddress = 16u << 10;
constexpr std::size_t kTag = 16;
constexpr int kTurnSteps = 8;
constexpr std::uint64_t kTurn = 1u << 20;  // bytes before the other direction has its turn
constexpr int kPatience = 64;              // looks at a UCX that is never done before a nap
constexpr std::int64_t kNap = 500'000;
constexpr std::int64_t kGrace = 200'000'000;

std::span<const std::byte> bytes_of(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

// The address, encrypted under `key`; both directions have a key of their own, used once.
bool seal(const datagram::AesKey& key, std::span<const std::byte> address, std::string& out) {
  const auto gcm = Gcm::create(key, true);
  const auto size = static_cast<std::uint32_t>(address.size());
  out.resize(4 + address.size() + kTag);
  auto* at = reinterpret_cast<std::byte*>(out.data());
  store(at, size);
  return gcm != nullptr && gcm->begin(0, 0, at, 4) && gcm->add(at + 4, address.data(), size) &&
         gcm->seal(at + 4 + size);
}

}  // namespace

std::unique_ptr<UcxWire> UcxWire::create(const UcxFactory& factory, int fd, std::string greeting,
                                         UcxOptions options, std::uint32_t chunk,
                                         const UcxSecrets& secrets, std::string& error) {
  std::unique_ptr<UcxWire> wire(new UcxWire(fd, chunk, secrets.sealed));
  options.memory = memory_bytes(chunk);
  wire->port_.reset(factory.make(options, error));
  if (wire->port_ == nullptr || !wire->start(secrets, std::move(greeting), error)) return nullptr;
  return wire;
}

UcxWire::UcxWire(int fd, std::uint32_t chunk, bool sealed)
    : fd_(fd), chunk_(chunk), sealed_(sealed) {}

UcxWire::~UcxWire() {
  if (port_ != nullptr) {
    for (const Offer& offer : offers_) port_->drop(offer.ticket);
  }
  port_.reset();
  if (timer_fd_ >= 0) ::close(timer_fd_);
  ::close(fd_);
}

bool UcxWire::start(const UcxSecrets& secrets, std::string greeting, std::string& error) {
  timer_fd_ = ::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  if (timer_fd_ < 0) {
    error = "no descriptors are left";
    return false;
  }
  const auto none = std::span<const std::byte>{};
  datagram::AesKey own{};
  std::string address;
  if (!derive_key(secrets.send, bytes_of("genie ucx token"), own_token_) ||
      !derive_key(secrets.receive, bytes_of("genie ucx token"), peer_token_) ||
      !derive_key(secrets.send, bytes_of("genie ucx address"), own) ||
      !derive_key(secrets.receive, bytes_of("genie ucx address"), address_key_) ||
      !writer_.start(sealed_ ? secrets.send : none) ||
      !reader_.start(sealed_ ? secrets.receive : none) || !seal(own, port_->address(), address)) {
    error = "the crypto library refuses AES-128-GCM";
    return false;
  }
  if (port_->address().size() > kMaxAddress) {
    error = "the address of UCX's worker is too long";
    return false;
  }
  out_ = std::move(greeting) + address;
  lay_out();
  return true;
}

std::size_t UcxWire::long_bytes(std::uint32_t chunk) {
  return (kMaxHeader + chunk + kFrameTrailer + 4095) & ~std::size_t{4095};
}

std::size_t UcxWire::memory_bytes(std::uint32_t chunk) {
  return kShort * kShortBytes + (2 * kLong + 1) * long_bytes(chunk);
}

void UcxWire::lay_out() {
  slots_.resize(kShort + 2 * kLong + 1);
  std::byte* at = port_->memory();
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    slots_[i].data = at;
    at += i < kShort ? kShortBytes : long_bytes(chunk_);
    release(&slots_[i]);
  }
}

void UcxWire::release(Slot* slot) {
  const auto index = static_cast<std::size_t>(slot - slots_.data());
  (index < kShort           ? free_short_
   : index < kShort + kLong ? free_long_
                            : free_fetch_)
      .push_back(slot);
}

// -- the socket -------------------------------------------------------------------------------

void UcxWire::write_socket() {
  while (!out_.empty()) {
    const ssize_t sent = ::send(fd_, out_.data(), out_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN && errno != EWOULDBLOCK) look_ = true;  // reading says why
      return;
    }
    out_.erase(0, static_cast<std::size_t>(sent));
  }
}

void UcxWire::read_socket(Turn& turn) {
  look_ = false;
  while (!eof_ && !turn.ended()) {
    // The peer's address, and nothing behind it.
    const std::size_t left = connected_ ? 1 : wanted_ - in_.size();
    std::string bytes(left, '\0');
    const ssize_t got = ::recv(fd_, bytes.data(), left, MSG_DONTWAIT);
    if (got < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN && errno != EWOULDBLOCK) eof_ = true;
      break;
    }
    if (got == 0) {
      eof_ = true;
      break;
    }
    turn.received = true;
    if (connected_) return violation(turn, "bytes on the socket behind the address");
    in_.append(bytes.data(), static_cast<std::size_t>(got));
    if (in_.size() == wanted_ && !introduced(turn)) return;
  }
}

// The size is there, then all of the address.
bool UcxWire::introduced(Turn& turn) {
  const auto* at = reinterpret_cast<const std::byte*>(in_.data());
  const auto size = load<std::uint32_t>(at);
  if (in_.size() == 4) {
    if (size == 0 || size > kMaxAddress) {
      violation(turn, "an address of impossible size");
      return false;
    }
    wanted_ = 4 + size + kTag;
    return true;
  }
  // Zeros behind it end whatever UCX may read beyond.
  std::vector<std::byte> address(size + kMaxAddress);
  const auto gcm = Gcm::create(address_key_, false);
  if (gcm == nullptr || !gcm->begin(0, 0, at, 4) || !gcm->add(address.data(), at + 4, size) ||
      !gcm->verify(at + 4 + size)) {
    violation(turn, "an address whose tag does not verify");
    return false;
  }
  std::string error;
  if (!port_->connect(std::span(address).first(size), error)) {
    turn.end(610, error);
    return false;
  }
  connected_ = true;
  in_.clear();
  return true;
}

void UcxWire::violation(Turn& turn, const char* why) {
  turn.end(631, std::string("the peer broke the protocol: ") + why);
}

// -- receiving --------------------------------------------------------------------------------

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

// -- sending ----------------------------------------------------------------------------------

void UcxWire::send(Link& link, Turn& turn, Wanted wanted) {
  if (!out_.empty()) write_socket();
  flushed_ = out_.empty();
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

// -- sleeping ---------------------------------------------------------------------------------

bool UcxWire::arm(Link&) {
  if (look_) return false;
  if (eof_ || port_->failure() != nullptr) return nap();
  if (port_->arm()) {
    busy_ = 0;
    armed_ = true;
    return true;
  }
  // UCX is never done while a peer that is stopped takes nothing from it.
  return ++busy_ > kPatience && nap();
}

bool UcxWire::nap() {
  const itimerspec at{{}, {0, kNap}};
  return ::timerfd_settime(timer_fd_, 0, &at, nullptr) == 0;
}

std::size_t UcxWire::watch(pollfd* out) {
  // A socket at its end is always ready: it has said all it had to.
  out[0] = {eof_ ? -1 : fd_, static_cast<short>(POLLIN | (out_.empty() ? 0 : POLLOUT)), 0};
  // While it is not armed it may be ready all the time.
  out[1] = {armed_ ? port_->fd() : -1, POLLIN, 0};
  out[2] = {timer_fd_, POLLIN, 0};
  return 3;
}

void UcxWire::ready(const pollfd* found, std::size_t) {
  if (found[0].revents != 0) look_ = true;
  if (found[2].revents != 0) {
    std::uint64_t count = 0;
    [[maybe_unused]] const auto got = ::read(timer_fd_, &count, sizeof count);
  }
}

void UcxWire::shut() {
  ::shutdown(fd_, SHUT_RDWR);
  port_->close();
}

}  // namespace genie
