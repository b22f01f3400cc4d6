// Sessions on ports, in real time and with real threads.
#include <doctest/doctest.h>

#include <thread>

#include "genie/fault_port.h"
#include "genie/poller.h"
#include "genie/ring_port.h"
#include "world.h"

using namespace genie;
using namespace genie::datagram;
using namespace genie::datagram::sim;

namespace {

struct Ends {
  explicit Ends(Protection protection, const FaultRates& rates = {}, std::size_t datagram = 8972,
                std::size_t slots = 512) {
    auto [left, right] = RingPort::pair(slots, datagram);
    std::unique_ptr<Port> ports[2] = {std::move(left), std::move(right)};
    auto options = matching(protection, datagram, 1);
    SessionOptions own[2] = {options.first, options.second};
    for (int i = 0; i < 2; ++i) {
      own[i].peer_window = credit_of(ports[i]->traits(), datagram);
      ports[i] = std::make_unique<FaultPort>(std::move(ports[i]), rates, 5 + i);
      std::string error;
      poller[i] = Poller::start(std::move(ports[i]), error);
      REQUIRE(poller[i]);
      Code why;
      channel[i] = poller[i]->open(own[i], {}, why);
      REQUIRE(channel[i]);
    }
  }
  ~Ends() {
    for (auto& c : channel) c.reset();
  }

  std::unique_ptr<Poller> poller[2];
  std::unique_ptr<Channel> channel[2];
};

Region region_of(std::vector<std::byte>& bytes, std::uint64_t arena) {
  Region region;
  region.base = bytes.data();
  region.arena = arena;
  region.length = bytes.size();
  region.epoch = 1;
  region.key = Key{arena, 99};
  region.writable = true;
  return region;
}

// Waits for the end of `op` and returns its code.
Code wait_for(Channel& channel, std::uint64_t op, std::int64_t seconds = 20) {
  const Nanos limit = clock_now() + static_cast<Nanos>(seconds) * kSecond;
  std::vector<Event> events;
  while (clock_now() < limit) {
    events.clear();
    channel.poll(events, 100'000'000);
    for (const Event& event : events) {
      if (event.type == EventType::Completed && event.a == op) return Code::Ok;
      if (event.type == EventType::Failed && event.a == op) return static_cast<Code>(event.code);
      if (event.type == EventType::Lost) return static_cast<Code>(event.code);
    }
  }
  return Code::PeerSilent;
}

Order order_of(std::uint64_t op, const std::vector<std::byte>& source, const Region& region,
               int priority = 1) {
  Order order;
  order.op = op;
  order.source = source.data();
  order.dst = {region.arena, 0, source.size(), region.epoch, region.key};
  order.priority = priority;
  return order;
}

}  // namespace

TEST_CASE("a message crosses rings between two threads") {
  for (const Protection protection : {Protection::Crc32c, Protection::Aes128Gcm}) {
    Ends ends(protection);
    const auto source = noise(10 << 20, 1);
    std::vector<std::byte> bytes(10 << 20);
    const Region region = region_of(bytes, 1);
    REQUIRE(ends.channel[1]->add(region));
    REQUIRE(ends.channel[0]->post(order_of(1, source, region)) == Code::Ok);
    CHECK(wait_for(*ends.channel[0], 1) == Code::Ok);
    CHECK(bytes == source);
    CHECK(ends.channel[1]->withdraw(region.key));
    REQUIRE(ends.channel[0]->post(order_of(2, source, region)) == Code::Ok);
    CHECK(wait_for(*ends.channel[0], 2) == Code::NoDestination);
  }
}

TEST_CASE("faults on rings, in real time") {
  FaultRates rates;
  rates.drop = rates.duplicate = rates.late = rates.flip = rates.truncate = 0.02;
  rates.lateness = 500 * kMicro;
  for (const Protection protection : {Protection::Crc32c, Protection::Aes128Gcm}) {
    Ends ends(protection, rates);
    const auto source = noise(20 << 20, 1);
    std::vector<std::byte> bytes(20 << 20);
    const Region region = region_of(bytes, 1);
    REQUIRE(ends.channel[1]->add(region));
    for (std::uint64_t op = 1; op <= 3; ++op) {
      std::fill(bytes.begin(), bytes.end(), std::byte{0});
      REQUIRE(ends.channel[0]->post(order_of(op, source, region)) == Code::Ok);
      CHECK(wait_for(*ends.channel[0], op) == Code::Ok);
      CHECK(bytes == source);
    }
  }
}

TEST_CASE("a port without free slots is back-pressure, not failure") {
  Ends ends(Protection::Crc32c, {}, 1472, 4);  // four frames each way
  const auto source = noise(2 << 20, 1);
  std::vector<std::byte> bytes(2 << 20);
  const Region region = region_of(bytes, 1);
  REQUIRE(ends.channel[1]->add(region));
  REQUIRE(ends.channel[0]->post(order_of(1, source, region)) == Code::Ok);
  CHECK(wait_for(*ends.channel[0], 1) == Code::Ok);
  CHECK(bytes == source);
}

TEST_CASE("many threads post, cancel and withdraw at once") {
  Ends ends(Protection::Crc32c);
  const auto source = noise(100'000, 1);
  std::vector<std::vector<std::byte>> bytes(4, std::vector<std::byte>(100'000));
  std::vector<std::thread> threads;
  for (std::uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (std::uint64_t i = 0; i < 200; ++i) {
        Region region = region_of(bytes[t], t + 1);
        region.key.high = i;
        if (!ends.channel[1]->add(region)) std::abort();
        const std::uint64_t op = t * 1000 + i;
        if (ends.channel[0]->post(order_of(op, source, region, static_cast<int>(t))) != Code::Ok) {
          std::abort();
        }
        if (i % 3 == 0) ends.channel[0]->cancel(op);
        if (i % 5 == 0) std::this_thread::yield();
        ends.channel[1]->withdraw(region.key);
        // Nobody may write it now: a race for the sanitizer to find.
        std::fill(bytes[t].begin(), bytes[t].end(), std::byte{0});
      }
    });
  }
  std::vector<Event> events;
  for (int i = 0; i < 20; ++i) ends.channel[0]->poll(events, 1'000'000);
  for (auto& thread : threads) thread.join();
  CHECK(ends.channel[0]->post({}) != Code::Closed);
}

TEST_CASE("a datagram larger than the port carries is refused when the session is opened") {
  auto [left, right] = RingPort::pair(64, 1472);
  std::string error;
  auto poller = Poller::start(std::move(left), error);
  auto options = matching(Protection::Crc32c, 8972, 1).first;
  Code why = Code::Ok;
  CHECK_FALSE(poller->open(options, {}, why));
  CHECK(why == Code::PortUnusable);
  options.max_datagram = 1472;
  const auto first = poller->open(options, {}, why);
  CHECK(why == Code::Ok);
  CHECK_FALSE(poller->open(options, {}, why));  // the connection number is taken
  CHECK(why == Code::BadOption);
}

TEST_CASE("an idle port costs little and still answers") {
  Ends ends(Protection::Crc32c);
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  timespec before, after;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
  const double used = static_cast<double>(after.tv_sec - before.tv_sec) +
                      static_cast<double>(after.tv_nsec - before.tv_nsec) * 1e-9;
  MESSAGE("two idle ports without a descriptor: " << used / 0.5 * 100 << " % of a core");
  CHECK(used / 0.5 < 0.2);
  const auto source = noise(64, 1);
  std::vector<std::byte> bytes(64);
  const Region region = region_of(bytes, 1);
  REQUIRE(ends.channel[1]->add(region));
  REQUIRE(ends.channel[0]->post(order_of(1, source, region)) == Code::Ok);
  CHECK(wait_for(*ends.channel[0], 1) == Code::Ok);
}

TEST_CASE("closing one end is seen at the other") {
  Ends ends(Protection::Aes128Gcm);
  const auto source = noise(64, 1);
  std::vector<std::byte> bytes(64);
  const Region region = region_of(bytes, 1);
  REQUIRE(ends.channel[1]->add(region));
  REQUIRE(ends.channel[0]->post(order_of(1, source, region)) == Code::Ok);
  REQUIRE(wait_for(*ends.channel[0], 1) == Code::Ok);
  ends.channel[0]->close();
  CHECK(wait_for(*ends.channel[1], 7, 5) == Code::PeerClosed);
  CHECK(ends.channel[0]->post(order_of(2, source, region)) == Code::Closed);
}
