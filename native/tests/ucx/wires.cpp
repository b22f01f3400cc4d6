#include <doctest/doctest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string_view>

#include "ucx_pair.h"
#include "ucx_port.h"

namespace genie::test {
namespace {

// Of what genie_transport._ucx_path sets, those that are read when a worker starts.
const bool kSettings = [] {
  ::setenv("UCX_POSIX_ERROR_HANDLING", "y", 0);
  ::setenv("UCX_TCP_CONN_NB", "y", 0);
  ::setenv("UCX_WARN_UNUSED_ENV_VARS", "n", 0);
  return true;
}();

std::span<const std::byte> bytes_of(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

bool all(int fd, void* data, std::size_t size, bool out) {
  auto* at = static_cast<char*>(data);
  const std::int64_t end = now_ns() + 10'000'000'000;
  while (size > 0 && now_ns() < end) {
    const ssize_t moved = out ? ::send(fd, at, size, MSG_NOSIGNAL) : ::recv(fd, at, size, 0);
    if (moved == 0) return false;
    if (moved < 0) {
      if (errno != EAGAIN) return false;
      ::usleep(100);
      continue;
    }
    at += moved;
    size -= static_cast<std::size_t>(moved);
  }
  return size == 0;
}

}  // namespace

const UcxFactory& ucx_factory() {
  static const UcxFactory factory{kUcxAbi, sizeof(UcxFactory), &make_ucx_port};
  return factory;
}

Pair ucx_pair(bool sealed, bool network, const Terms& terms) {
  Pair pair{started(terms), started(terms)};
  const auto [near, far] = unix_sockets();
  const auto one = noise(32, 1);
  const auto two = noise(32, 2);
  const UcxOptions options{network, network, 0};
  if (network) ::setenv("UCX_TLS", "tcp", 1);
  std::string error;
  for (auto [side, fd, send, receive] :
       {std::tuple{&pair.a, near, &one, &two}, std::tuple{&pair.b, far, &two, &one}}) {
    auto wire = UcxWire::create(ucx_factory(), fd, "", options, terms.chunk,
                                {*send, *receive, sealed}, error);
    CAPTURE(error);
    REQUIRE(wire != nullptr);
    REQUIRE(side->endpoint->attach(std::move(wire), terms));
  }
  ::unsetenv("UCX_TLS");
  return pair;
}

std::vector<std::pair<const char*, Make>> wires() {
  return {
      {"ucx", [] { return ucx_pair(false, false); }},
      {"ucx sealed", [] { return ucx_pair(true, false); }},
      {"ucx over tcp", [] { return ucx_pair(false, true); }},
      {"ucx over tcp, sealed", [] { return ucx_pair(true, true); }},
  };
}

// -- Liar -------------------------------------------------------------------------------------

Liar::Liar(Side& victim, bool sealed, const Terms& terms) {
  mine_ = noise(32, 3);
  theirs_ = noise(32, 4);
  const auto [near, far] = unix_sockets();
  fd_ = near;
  std::string error;
  auto wire =
      UcxWire::create(ucx_factory(), far, "", {}, terms.chunk, {theirs_, mine_, sealed}, error);
  REQUIRE(wire != nullptr);
  REQUIRE(victim.endpoint->attach(std::move(wire), terms));
  port_.reset(make_ucx_port({false, false, 1 << 20}, error));
  REQUIRE(port_ != nullptr);
  REQUIRE(datagram::derive_key(mine_, bytes_of("genie ucx token"), token_));
  REQUIRE(writer_.start(sealed ? std::span<const std::byte>(mine_) : std::span<const std::byte>{}));
}

Liar::~Liar() {
  port_.reset();
  ::close(fd_);
}

bool Liar::introduce(bool flip) {
  datagram::AesKey key{};
  const auto own = port_->address();
  std::vector<std::byte> hello(4 + own.size() + 16);
  store(hello.data(), static_cast<std::uint32_t>(own.size()));
  REQUIRE(datagram::derive_key(mine_, bytes_of("genie ucx address"), key));
  auto gcm = datagram::Gcm::create(key, true);
  REQUIRE(gcm->begin(0, 0, hello.data(), 4));
  REQUIRE(gcm->add(hello.data() + 4, own.data(), own.size()));
  REQUIRE(gcm->seal(hello.data() + 4 + own.size()));
  if (flip) hello[20] ^= std::byte{1};
  if (!all(fd_, hello.data(), hello.size(), true)) return false;

  std::uint32_t size = 0;
  if (!all(fd_, &size, sizeof size, false)) return false;
  REQUIRE(size < 1u << 14);
  std::vector<std::byte> sealed(size + 16);
  if (!all(fd_, sealed.data(), sealed.size(), false)) return false;
  REQUIRE(datagram::derive_key(theirs_, bytes_of("genie ucx address"), key));
  gcm = datagram::Gcm::create(key, false);
  std::array<std::byte, 4> plain{};
  store(plain.data(), size);
  REQUIRE(gcm->begin(0, 0, plain.data(), 4));
  REQUIRE(gcm->add(sealed.data(), sealed.data(), size));
  REQUIRE(gcm->verify(sealed.data() + size));
  std::string error;
  return port_->connect(std::span(sealed).first(size), error);
}

std::vector<std::byte> Liar::put(const std::vector<std::byte>& data, const Region& region) {
  Header header;
  header.kind = Kind::Put;
  header.payload = static_cast<std::uint32_t>(data.size());
  header.message = message_++;
  header.length = data.size();
  header.credit = kTerms.window;
  const Destination dst{region.arena, 0, data.size(), region.epoch, region.key};
  std::vector<std::byte> frame(kMaxHeader + data.size() + kFrameTrailer);
  std::size_t size = writer_.write(frame.data(), header, dst, data.data());
  if (!writer_.sealed()) {
    std::memcpy(frame.data() + size, data.data(), data.size());
    size += data.size();
  }
  frame.resize(size);
  return frame;
}

void Liar::say(const UcxTag& tag, const std::vector<std::byte>& message, bool push) {
  said_.emplace_back(tag, message);
  const auto& [kept, bytes] = said_.back();
  (void)port_->send(&kept, bytes.data(), bytes.size(), push, 0);
  work();
}

void Liar::work() {
  for (int i = 0; i < 50; ++i) port_->progress(*this);
}

}  // namespace genie::test
