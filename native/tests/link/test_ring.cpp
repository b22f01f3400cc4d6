// Shared memory whose other side is hostile: it writes what it likes, whenever it likes.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <random>
#include <thread>

#include "genie/shm.h"
#include "pairs.h"

namespace genie::test {
namespace {

bool pass(int socket, int descriptor, std::uint64_t number = 0) {
  char text[9] = {'m'};
  std::memcpy(text + 1, &number, sizeof number);
  alignas(cmsghdr) char extra[CMSG_SPACE(sizeof(int))] = {};
  iovec part{text, sizeof text};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = extra;
  message.msg_controllen = sizeof extra;
  cmsghdr* c = CMSG_FIRSTHDR(&message);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(c), &descriptor, sizeof descriptor);
  return ::sendmsg(socket, &message, MSG_NOSIGNAL) == sizeof text;
}

// A correct endpoint whose peer is the test: it has a ring of its own and the socket.
struct Victim {
  Side side;
  int socket;
  std::unique_ptr<RingWriter> ring;

  Victim() {
    const auto [near, far] = unix_sockets();
    socket = far;
    std::string error;
    side.endpoint = std::make_unique<Endpoint>(kTerms);
    REQUIRE(side.endpoint->start(error));
    auto wire = ShmWire::create(near, "", {16384, 64u << 10}, error);
    REQUIRE(wire != nullptr);
    const Terms peer{kTerms.window, 16384, kTerms.stall_ns};
    REQUIRE(side.endpoint->attach(std::move(wire), peer));
    ring = RingWriter::create(64, 64u << 10, error);
    REQUIRE(ring != nullptr);
  }
  ~Victim() { ::close(socket); }
};

TEST_CASE("random descriptors end the connection or do nothing") {
  const char* wanted = std::getenv("GENIE_MUTATIONS");
  const int rounds = wanted != nullptr ? std::atoi(wanted) / 500 : 150;
  std::mt19937_64 random(3);
  std::vector<std::byte> target(4096);
  const Region region = region_of(target, 5);
  for (int round = 0; round < rounds; ++round) {
    Victim victim;
    victim.side.endpoint->add(region);
    REQUIRE(pass(victim.socket, victim.ring->fd()));
    Destination dst{5, 0, 4096, 1, region.key};
    for (int i = 0; i < 60; ++i) {
      Descriptor d;
      d.kind = static_cast<std::uint8_t>(random() % 10);
      const auto pick = [&](std::uint64_t small) {
        switch (random() % 4) {
          case 0:
            return random();
          case 1:
            return ~std::uint64_t{0} - random() % 3;
          default:
            return random() % (small + 1);
        }
      };
      d.payload = static_cast<std::uint32_t>(pick(4096));
      d.message = pick(2);
      d.offset = pick(4096);
      d.length = pick(4096);
      d.credit = random() % 4 != 0 ? kTerms.window : pick(kTerms.window);
      d.arena = random() % 8 == 0 ? pick(3) : 0;
      if (random() % 2 != 0) dst.length = d.length;
      if (victim.ring->fits(8192)) {
        victim.ring->append(reinterpret_cast<std::byte*>(&dst), sizeof dst);
        std::byte some[64] = {};
        victim.ring->append(some, random() % 64);
      }
      if (random() % 2 != 0) d.position = pick(1 << 16);
      victim.ring->publish(d);
    }
    (void)::send(victim.socket, "b", 1, MSG_NOSIGNAL);
    victim.side.endpoint->poll(victim.side.events, 2'000'000);
    ::shutdown(victim.socket, SHUT_RDWR);
    std::uint16_t code = 0;
    REQUIRE(victim.side.lost(&code));
    CHECK((code == 631 || code == 610));
  }
}

TEST_CASE("a control page that lies") {
  for (const std::uint64_t lie : {1000ull, 1ull << 40, ~0ull}) {
    const auto data = noise(256u << 10, 1);  // more than its ring holds: it must look
    Victim victim;
    REQUIRE(pass(victim.socket, victim.ring->fd()));
    victim.ring->control().consumed.store(lie);
    victim.side.endpoint->post({1, data.data(), {1, 0, data.size(), 1, {1, 1}}, 0});
    (void)::send(victim.socket, "b", 1, MSG_NOSIGNAL);
    std::uint16_t code = 0;
    REQUIRE(victim.side.lost(&code));
    CHECK(code == 631);
  }
}

TEST_CASE("rings of impossible shape are refused") {
  std::string error;
  for (int which = 0; which < 6; ++which) {
    CAPTURE(which);
    auto ring = RingWriter::create(64, 64u << 10, error);
    REQUIRE(ring != nullptr);
    auto& control = ring->control();
    if (which == 0) control.magic = 0;
    if (which == 1) control.version = 2;
    if (which == 2) control.entries = 65;
    if (which == 3) control.entries = 1ull << 60;
    if (which == 4) control.bytes = 1ull << 40;
    if (which == 5) control.bytes = 1ull << 31;  // plausible, but not what is there
    CHECK(RingReader::open(::dup(ring->fd()), error) == nullptr);
  }
}

TEST_CASE("only sealed memory is taken, and it cannot be changed under its reader") {
  std::string error;
  const int open = ::memfd_create("open", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  REQUIRE(::ftruncate(open, 1 << 20) == 0);
  CHECK(Arena::open(::dup(open), 1u << 30, error) == nullptr);
  REQUIRE(::fcntl(open, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0);
  CHECK(Arena::open(open, 1u << 30, error) == nullptr);  // its owner could punch holes

  auto arena = Arena::create(1u << 20, false, error);
  REQUIRE(arena != nullptr);
  CHECK(Arena::open(::dup(arena->fd()), 4096, error) == nullptr);  // larger than allowed
  const auto reader = Arena::open(::dup(arena->fd()), 1u << 30, error);
  REQUIRE(reader != nullptr);
  CHECK(::ftruncate(arena->fd(), 0) != 0);
  CHECK(::fallocate(arena->fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) != 0);
  CHECK(::madvise(arena->data(), 4096, MADV_REMOVE) != 0);
  CHECK(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, reader->fd(), 0) == MAP_FAILED);
  arena->data()[5] = std::byte{42};
  CHECK(static_cast<const Arena&>(*reader).data()[5] == std::byte{42});
}

TEST_CASE("bytes wrap around the ring") {
  std::string error;
  auto writer = RingWriter::create(64, 64u << 10, error);
  REQUIRE(writer != nullptr);
  auto reader = RingReader::open(::dup(writer->fd()), error);
  REQUIRE(reader != nullptr);
  std::thread sender([&] {
    for (std::uint64_t i = 0; i < 5000; ++i) {
      const auto data = noise(1 + i * 7 % 9000, i);
      while (!writer->fits(data.size())) {
        std::this_thread::yield();
        // The reader's count, as it would stand in the reader's own memory.
        writer->reclaim(writer->control().consumed.load(std::memory_order_acquire));
      }
      writer->append(data.data(), data.size());
      Descriptor d;
      d.payload = static_cast<std::uint32_t>(data.size());
      writer->publish(d);
    }
  });
  for (std::uint64_t i = 0; i < 5000; ++i) {
    Descriptor d;
    while (!reader->peek(d)) std::this_thread::yield();
    REQUIRE(reader->within(d, d.payload));
    std::vector<std::byte> got(d.payload);
    reader->copy(d.position, got.data(), got.size(), i % 2 != 0);
    REQUIRE(got == noise(1 + i * 7 % 9000, i));
    reader->advance(d.payload);
    writer->control().consumed.store(reader->taken(), std::memory_order_release);
  }
  sender.join();
}

}  // namespace
}  // namespace genie::test
