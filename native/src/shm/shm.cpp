#include "genie/shm.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "genie/copy.h"

namespace genie {
namespace {

// What travels over the socket: a memory announcement (with a descriptor), or a ring of the bell.
constexpr char kBell = 'b';
constexpr char kMemory = 'm';
constexpr std::size_t kMemoryBytes = 9;  // type, number (0: the ring)

constexpr std::uint64_t kTurn = 1u << 20;     // bytes before the other direction has its turn
constexpr std::uint64_t kLarge = 4096;        // payloads worth a publication of their own
constexpr std::uint64_t kStreaming = 4u << 20;  // messages that would only flush the caches
constexpr std::uint64_t kPatience = 4096;     // idle looks at the ring before one at the socket
constexpr int kBells = 64;                    // taken at once
constexpr std::size_t kMaxShared = 64;
constexpr std::size_t kMaxArena = std::size_t{1} << 40;

}  // namespace

std::unique_ptr<ShmWire> ShmWire::create(int fd, std::string greeting, const ShmOptions& options,
                                         std::string& error) {
  // Room for two chunks at least, so that one is filled while the other is read.
  const std::size_t bytes = std::max<std::size_t>(options.ring, 2u * (options.chunk + 4096u));
  auto out = RingWriter::create(2048, bytes, error);
  if (out == nullptr) {
    ::close(fd);
    return nullptr;
  }
  return std::unique_ptr<ShmWire>(
      new ShmWire(fd, std::move(greeting), std::move(out), options.chunk));
}

ShmWire::ShmWire(int fd, std::string greeting, std::unique_ptr<RingWriter> out,
                 std::uint32_t chunk)
    : fd_(fd), own_chunk_(chunk), greeting_(std::move(greeting)), out_(std::move(out)) {}

ShmWire::~ShmWire() {
  if (pending_fd_ >= 0) ::close(pending_fd_);
  ::close(fd_);
}

bool ShmWire::share(std::shared_ptr<Arena> arena) {
  for (const Shared& shared : ours_) {
    if (shared.arena == arena) return true;
  }
  if (ours_.size() >= kMaxShared) return false;
  ours_.push_back({std::move(arena), ours_.size() + 1});
  return true;
}

// -- the socket -------------------------------------------------------------------------------

void ShmWire::read_socket(Turn& turn) {
  look_ = false;
  for (int messages = 0;; ++messages) {
    if (messages == kBells) {  // more than a correct peer rings; the ring must have its turn
      look_ = true;
      return;
    }
    std::array<char, kMemoryBytes> bytes{};
    // A descriptor belongs to the first byte of its message: never read beyond one message
    // while another may follow with its own.
    const std::size_t wanted =
        pending_.empty() ? (in_ == nullptr ? kMemoryBytes : 1) : kMemoryBytes - pending_.size();
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> extra{};
    iovec part{bytes.data(), wanted};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = extra.data();
    message.msg_controllen = extra.size();
    const ssize_t got = ::recvmsg(fd_, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN && errno != EWOULDBLOCK) eof_ = true;
      return;
    }
    if (got == 0) {
      eof_ = true;
      return;
    }
    for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
      if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
      int received = -1;
      std::memcpy(&received, CMSG_DATA(c), sizeof received);
      if (pending_fd_ >= 0) ::close(pending_fd_);
      pending_fd_ = received;
    }
    const auto count = static_cast<std::size_t>(got);
    if (pending_.empty() && bytes[0] == kBell) continue;
    pending_.append(bytes.data(), count);
    if (pending_[0] != kMemory) {
      turn.end(631, "the peer broke the protocol: an unknown message on the socket");
      return;
    }
    if (pending_.size() < kMemoryBytes) continue;
    std::string error;
    if (!take_message(error)) {
      turn.end(631, "the peer broke the protocol: " + error);
      return;
    }
    turn.received = true;
  }
}

bool ShmWire::take_message(std::string& error) {
  const auto number = load<std::uint64_t>(reinterpret_cast<const std::byte*>(pending_.data()) + 1);
  pending_.clear();
  const int descriptor = std::exchange(pending_fd_, -1);
  if (descriptor < 0) {
    error = "memory without its descriptor";
    return false;
  }
  if (number == 0) {
    if (in_ != nullptr) {
      ::close(descriptor);
      error = "a second ring";
      return false;
    }
    in_ = RingReader::open(descriptor, error);
    return in_ != nullptr;
  }
  if (theirs_.size() >= kMaxShared || theirs_.contains(number)) {
    ::close(descriptor);
    error = "too many arenas";
    return false;
  }
  auto arena = Arena::open(descriptor, kMaxArena, error);
  if (arena == nullptr) return false;
  theirs_.emplace(number, std::move(arena));
  return true;
}

// The greeting, our ring, and arenas that the peer has not been told of; in this order.
void ShmWire::write_socket(Turn& turn) {
  while (!greeting_.empty()) {
    const ssize_t sent =
        ::send(fd_, greeting_.data(), greeting_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN && errno != EWOULDBLOCK) look_ = true;
      return;
    }
    greeting_.erase(0, static_cast<std::size_t>(sent));
  }
  const auto announce = [&](std::uint64_t number, int descriptor) {
    std::string text(kMemoryBytes, kMemory);
    std::memcpy(text.data() + 1, &number, sizeof number);
    return send_descriptor(text, descriptor, turn);
  };
  if (!introduced_) {
    if (!announce(0, out_->fd())) return;
    introduced_ = true;
  }
  for (Shared& shared : ours_) {
    if (!shared.told && !announce(shared.number, shared.arena->fd())) return;
    shared.told = true;
  }
}

bool ShmWire::send_descriptor(const std::string& text, int descriptor, Turn& turn) {
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> extra{};
  iovec part{const_cast<char*>(text.data()), text.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = extra.data();
  message.msg_controllen = extra.size();
  cmsghdr* c = CMSG_FIRSTHDR(&message);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(c), &descriptor, sizeof descriptor);
  ssize_t sent = -1;
  do {
    sent = ::sendmsg(fd_, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent < 0) {
    if (errno != EAGAIN && errno != EWOULDBLOCK) look_ = true;
    return false;
  }
  // Stream sockets of this family take so few bytes whole or not at all.
  turn.sent = true;
  return true;
}

// Rings when the peer has said that it sleeps, once for each time it does.
void ShmWire::signal() {
  // All of these are sequentially consistent: either the peer sees what was published before it
  // sleeps, or this sees that it sleeps.
  const std::uint64_t sleeping = in_->control().sleeping.load();
  if (sleeping % 2 == 0 || sleeping == rung_) return;
  rung_ = sleeping;
  // A full socket holds bells that the peer has not heard yet: one more would add nothing.
  if (::send(fd_, &kBell, 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno != EAGAIN &&
      errno != EINTR) {
    look_ = true;
  }
}

// -- receiving --------------------------------------------------------------------------------

void ShmWire::receive(Link& link, Turn& turn) {
  if (look_ || ++idle_ % kPatience == 0) read_socket(turn);
  if (turn.ended()) return;
  if (in_ == nullptr) {
    if (eof_) turn.end(610, "the connection ended without a farewell");
    return;
  }
  std::uint64_t share = kTurn;
  bool took = false;
  Descriptor descriptor;
  while (in_->peek(descriptor)) {
    if (share == 0) {
      turn.more = true;
      break;
    }
    const Verdict verdict = take(link, descriptor, turn);
    if (!verdict.ok()) {
      turn.end(631, std::string("the peer broke the protocol: ") + verdict.why);
      return;
    }
    share -= std::min<std::uint64_t>(share, descriptor.payload + 256);
    took = true;
    if (descriptor.payload >= kLarge) {
      out_->control().consumed.store(in_->taken());
      signal();
    }
    if (link.peer_closed()) break;
  }
  if (took) {
    turn.received = true;
    idle_ = 0;
    out_->control().consumed.store(in_->taken());
    signal();
  } else if (eof_) {
    turn.end(610, "the connection ended without a farewell");
  }
}

Verdict ShmWire::take(Link& link, const Descriptor& descriptor, Turn& turn) {
  const auto kind = static_cast<Kind>(descriptor.kind);
  if (descriptor.kind < 1 || descriptor.kind > static_cast<int>(Kind::Put)) {
    return violation("a frame of unknown type");
  }
  const Header header{kind,           descriptor.payload, descriptor.message,
                      descriptor.offset, descriptor.length,  descriptor.credit};
  const std::uint64_t head = has_destination(kind) ? kDestinationBytes : 0;
  const bool in_ring = descriptor.arena == 0;
  const std::uint64_t bytes = head + (in_ring ? header.payload : 0);
  if (in_ring ? !in_->within(descriptor, bytes) : head != 0) {
    return violation("a descriptor out of its ring");
  }
  const std::byte* elsewhere = nullptr;
  if (!in_ring) {
    auto found = theirs_.find(descriptor.arena);
    if (found == theirs_.end()) {
      read_socket(turn);  // its announcement was sent before, but by another way
      if (turn.ended()) return {};
      found = theirs_.find(descriptor.arena);
    }
    if (found == theirs_.end() || descriptor.position > found->second->size() ||
        header.payload > found->second->size() - descriptor.position) {
      return violation("a descriptor out of its arena");
    }
    elsewhere = static_cast<const Arena&>(*found->second).data() + descriptor.position;
  }
  Destination destination;
  if (head != 0) {
    in_->copy(descriptor.position, reinterpret_cast<std::byte*>(&destination), head, false);
  }
  std::byte* place = nullptr;
  if (const Verdict verdict = link.accept(header, destination, place); !verdict.ok()) {
    return verdict;
  }
  const bool streaming = header.length >= kStreaming;
  if (place != nullptr && header.payload != 0) {
    if (elsewhere != nullptr) {
      (streaming ? copy_streaming : copy)(place, elsewhere, header.payload);
    } else {
      in_->copy(descriptor.position + head, place, header.payload, streaming);
    }
  }
  link.counters().bytes_received += sizeof(Descriptor) + head + header.payload;
  in_->advance(bytes);
  return has_payload(kind) ? link.landed(header, true) : Verdict{};
}

// -- sending ----------------------------------------------------------------------------------

void ShmWire::send(Link& link, Turn& turn, Wanted wanted) {
  if (!introduced_ || !greeting_.empty() || (!ours_.empty() && !ours_.back().told)) {
    write_socket(turn);
  }
  flushed_ = false;
  blocked_ = false;
  // Nobody reads the ring before the peer's own memory is here to hear of it.
  if (in_ == nullptr) return;
  std::uint64_t share = kTurn;
  bool put_any = false;
  Frame frame;
  for (;;) {
    if (share == 0) {
      turn.more = true;
      break;
    }
    // The peer's count is looked at when room gets short only: its line belongs in the peer's
    // cache.
    if (!out_->fits(kDestinationBytes + own_chunk_)) {
      seen_consumed_ = in_->control().consumed.load();
      if (!out_->reclaim(seen_consumed_)) {
        turn.end(631, "the peer broke the protocol: it has taken more than was sent");
        return;
      }
      if (!out_->fits(kDestinationBytes)) {
        blocked_ = true;
        break;
      }
    }
    if (!link.next(frame, out_->room() - kDestinationBytes, wanted)) {
      // Otherwise it waits for credit, which comes as a descriptor.
      blocked_ = !out_->fits(kDestinationBytes + own_chunk_) && link.has_outgoing();
      flushed_ = true;
      break;
    }
    put(frame, turn);
    link.counters().bytes_sent += sizeof(Descriptor) + frame.header.payload +
                                  (has_destination(frame.header.kind) ? kDestinationBytes : 0);
    put_any = true;
    share -= std::min<std::uint64_t>(share, frame.header.payload + 256);
    if (frame.header.payload >= kLarge) signal();
  }
  if (put_any) {
    turn.sent = true;
    ++link.counters().sends;
    signal();
  }
}

void ShmWire::put(const Frame& frame, Turn&) {
  const Header& header = frame.header;
  Descriptor descriptor;
  descriptor.kind = static_cast<std::uint8_t>(header.kind);
  descriptor.payload = header.payload;
  descriptor.message = header.message;
  descriptor.offset = header.offset;
  descriptor.length = header.length;
  descriptor.credit = header.credit;
  if (has_destination(header.kind)) {
    out_->append(reinterpret_cast<const std::byte*>(&frame.dst), kDestinationBytes);
  }
  if (header.payload != 0) {
    if (const Shared* shared = shared_source(frame)) {
      descriptor.arena = shared->number;
      descriptor.position = static_cast<std::uint64_t>(frame.data - shared->arena->data());
    } else {
      out_->append(frame.data, header.payload);
    }
  }
  out_->publish(descriptor);
}

const ShmWire::Shared* ShmWire::shared_source(const Frame& frame) const {
  if (frame.header.kind != Kind::Data) return nullptr;
  for (const Shared& shared : ours_) {
    const std::byte* base = shared.arena->data();
    if (shared.told && frame.data >= base && frame.data < base + shared.arena->size()) {
      return &shared;
    }
  }
  return nullptr;
}

// -- sleeping ---------------------------------------------------------------------------------

bool ShmWire::arm(Link& link) {
  (void)link;
  if (!armed_) {
    armed_ = true;
    auto& sleeping = out_->control().sleeping;
    sleeping.store(sleeping.load(std::memory_order_relaxed) + 1);
  }
  if (look_) return false;
  if (in_ == nullptr) return true;
  if (in_->ready()) return false;
  return !blocked_ || in_->control().consumed.load() == seen_consumed_;
}

void ShmWire::disarm() {
  if (!armed_) return;
  armed_ = false;
  auto& sleeping = out_->control().sleeping;
  sleeping.store(sleeping.load(std::memory_order_relaxed) + 1, std::memory_order_release);
}

std::size_t ShmWire::watch(pollfd* out) {
  const bool waits = !introduced_ || !greeting_.empty();
  out[0] = {fd_, static_cast<short>(POLLIN | (waits ? POLLOUT : 0)), 0};
  return 1;
}

void ShmWire::ready(const pollfd* found, std::size_t) {
  if (found->revents != 0) look_ = true;
}

void ShmWire::shut() { ::shutdown(fd_, SHUT_RDWR); }

}  // namespace genie
