#include "pairs.h"

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <random>

#include "genie/shm.h"
#include "genie/tcp.h"

namespace genie::test {

bool Side::until(const std::function<bool(const Event&)>& test, int seconds) {
  const std::int64_t end = now_ns() + seconds * 1'000'000'000LL;
  std::size_t seen = 0;
  for (;;) {
    for (; seen < events.size(); ++seen) {
      if (test(events[seen])) return true;
    }
    const std::int64_t left = end - now_ns();
    if (left <= 0) return false;
    endpoint->poll(events, left);
  }
}

bool Side::completed(std::uint64_t op) {
  return until([op](const Event& e) { return e.type == EventType::Completed && e.a == op; });
}

bool Side::lost(std::uint16_t* code) {
  return until([code](const Event& e) {
    if (e.type == EventType::Lost && code != nullptr) *code = e.code;
    return e.type == EventType::Lost;
  });
}

std::pair<int, int> unix_sockets() {
  int fds[2] = {-1, -1};
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
  return {fds[0], fds[1]};
}

std::pair<int, int> tcp_sockets() {
  const int listening = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  REQUIRE(::bind(listening, generic, size) == 0);
  REQUIRE(::listen(listening, 1) == 0);
  REQUIRE(::getsockname(listening, generic, &size) == 0);
  const int near = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  REQUIRE(::connect(near, generic, size) == 0);
  const int far = ::accept(listening, nullptr, nullptr);
  REQUIRE(far >= 0);
  ::close(listening);
  for (const int fd : {near, far}) {
    const int one = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    ::fcntl(fd, F_SETFL, O_NONBLOCK);
  }
  return {near, far};
}

Side started(const Terms& terms) {
  Side made{std::make_unique<Endpoint>(terms), {}};
  std::string error;
  REQUIRE(made.endpoint->start(error));
  return made;
}

Pair shm_pair(const Terms& terms) {
  Pair pair{started(terms), started(terms)};
  const auto [near, far] = unix_sockets();
  std::string error;
  for (auto [made, fd] : {std::pair{&pair.a, near}, std::pair{&pair.b, far}}) {
    auto wire = ShmWire::create(fd, "", {terms.chunk, 256u << 10}, error);
    REQUIRE(wire != nullptr);
    REQUIRE(made->endpoint->attach(std::move(wire), terms));
  }
  return pair;
}

Pair tcp_pair(bool sealed, int streams, const Terms& terms) {
  Pair pair{started(terms), started(terms)};
  std::unique_ptr<TcpWire> wires[2];
  for (int i = 0; i < streams; ++i) {
    const auto [near, far] = tcp_sockets();
    const auto one = noise(32, 2 * i + 1);
    const auto two = noise(32, 2 * i + 2);
    const std::span<const std::byte> none;
    auto left = std::make_unique<TcpStream>(near, terms.chunk);
    auto right = std::make_unique<TcpStream>(far, terms.chunk);
    REQUIRE(left->start(sealed ? one : none, sealed ? two : none));
    REQUIRE(right->start(sealed ? two : none, sealed ? one : none));
    if (i == 0) {
      wires[0] = std::make_unique<TcpWire>(std::move(left));
      wires[1] = std::make_unique<TcpWire>(std::move(right));
    } else {
      REQUIRE(wires[0]->add(std::move(left)));
      REQUIRE(wires[1]->add(std::move(right)));
    }
  }
  REQUIRE(pair.a.endpoint->attach(std::move(wires[0]), terms));
  REQUIRE(pair.b.endpoint->attach(std::move(wires[1]), terms));
  return pair;
}

Region region_of(std::vector<std::byte>& bytes, std::uint64_t number) {
  Region region;
  region.base = bytes.data();
  region.arena = number;
  region.length = bytes.size();
  region.epoch = 1;
  region.key = {number, ~number};
  region.writable = true;
  return region;
}

Order order_to(std::uint64_t op, const std::vector<std::byte>& source, const Region& region) {
  return {op, source.data(), {region.arena, 0, source.size(), region.epoch, region.key}, 1};
}

std::vector<std::byte> noise(std::size_t size, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::byte> bytes(size);
  for (auto& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

}  // namespace genie::test
