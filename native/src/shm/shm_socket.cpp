// The socket of the shared-memory wire: it passes memory, rings the bell and tells of the end.
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "genie/shm.h"

namespace genie {
namespace {

// What travels over the socket: a memory announcement (with a descriptor), or a ring of the bell.
constexpr char kBell = 'b';
constexpr char kMemory = 'm';
constexpr std::size_t kMemoryBytes = 9;  // type, number (0: the ring)
constexpr int kBells = 64;               // taken at once
constexpr std::size_t kMaxArena = std::size_t{1} << 40;

}  // namespace

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
    if (pending_.empty() && bytes[0] == kBell) {
      heard_bell();
      continue;
    }
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

// The peer rings once for each time that a thread here sleeps. Who heard the bell need not be the
// sleeper, which then sleeps on: the peer must know that the next message needs a bell again. What
// came in between is in the ring, where the caller looks after this.
void ShmWire::heard_bell() {
  if (!armed_) return;
  auto& sleeping = out_->control().sleeping;
  sleeping.store(sleeping.load(std::memory_order_relaxed) + 2);
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

}  // namespace genie
