// Making a wire over UCX, the socket beside it, and sleeping.
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>

#include "genie/endpoint.h"
#include "genie/ucx.h"

namespace genie {

using datagram::derive_key;
using datagram::Gcm;

namespace {

constexpr std::size_t kMaxAddress = 16u << 10;
constexpr std::size_t kTag = 16;
constexpr int kPatience = 64;  // looks at a UCX that is never done before a nap
constexpr std::int64_t kNap = 500'000;

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
