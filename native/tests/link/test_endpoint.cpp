// Endpoints over their real wires; run under ThreadSanitizer and AddressSanitizer too.
#include <doctest/doctest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <deque>
#include <functional>
#include <random>
#include <thread>

#include "pairs.h"

namespace genie::test {
namespace {

TEST_CASE("bytes arrive, of any size, both ways") {
  for (const auto& [name, make] : wires()) {
    CAPTURE(name);
    Pair pair = make();
    std::uint64_t op = 0;
    for (const std::size_t size : {0u, 1u, 64u, 4095u, 65536u, 65537u, 5u << 20}) {
      CAPTURE(size);
      for (auto [from, to] : {std::pair{&pair.a, &pair.b}, std::pair{&pair.b, &pair.a}}) {
        const auto data = noise(size, ++op);
        std::vector<std::byte> buffer(size);
        const Region region = region_of(buffer, op);
        to->endpoint->add(region);
        from->endpoint->post(order_to(op, data, region));
        REQUIRE(from->completed(op));
        REQUIRE(to->until(
            [&](const Event& e) { return e.type == EventType::Arrived && e.key == region.key; }));
        CHECK(buffer == data);
        CHECK(to->endpoint->withdraw(region.key));
      }
    }
    pair.a.endpoint->close();
    std::uint16_t code = 0;
    REQUIRE(pair.b.lost(&code));
    CHECK(code == 610);
    REQUIRE(pair.a.lost(&code));
    CHECK(code == 611);
  }
}

TEST_CASE("posts, cancellations and withdrawals from many threads") {
  for (const auto& [name, make] : wires()) {
    CAPTURE(name);
    constexpr std::size_t kSize = 300'000;
    constexpr int kThreads = 3;
    constexpr std::uint64_t kPosts = 40;
    std::deque<std::vector<std::byte>> sources;
    std::deque<std::vector<std::byte>> buffers;
    std::vector<Region> regions;
    Pair pair = make();  // ends before its memory does
    for (int i = 0; i < kThreads; ++i) {
      sources.push_back(noise(kSize, static_cast<std::uint64_t>(i)));
      buffers.emplace_back(kSize);
      regions.push_back(region_of(buffers.back(), static_cast<std::uint64_t>(i) + 1));
      pair.b.endpoint->add(regions.back());
    }
    std::atomic<bool> stop{false};
    std::vector<std::thread> threads;
    std::atomic<std::uint64_t> cancelled{0};
    for (int i = 0; i < kThreads; ++i) {
      threads.emplace_back([&, i] {
        std::mt19937 random(static_cast<unsigned>(i));
        for (std::uint64_t n = 0; n < kPosts; ++n) {
          const std::uint64_t op = 1 + n * kThreads + static_cast<std::uint64_t>(i);
          pair.a.endpoint->post(order_to(op, sources[i], regions[i]));
          if (random() % 4 == 0 && pair.a.endpoint->cancel(op)) cancelled.fetch_add(1);
          if (random() % 8 == 0) {
            pair.b.endpoint->withdraw(regions[i].key);
            // Nobody writes there now.
            std::fill(buffers[i].begin(), buffers[i].end(), std::byte{0});
            pair.b.endpoint->add(regions[i]);
          }
        }
      });
    }
    std::thread reader([&] {
      while (!stop) pair.b.endpoint->poll(pair.b.events, 1'000'000);
    });
    for (auto& thread : threads) thread.join();
    // Each post that was not cancelled ends exactly once.
    const auto ended = [&] {
      std::uint64_t count = 0;
      for (const Event& e : pair.a.events) {
        count += e.type == EventType::Completed || e.type == EventType::Failed;
      }
      return count;
    };
    const std::int64_t limit = now_ns() + 60'000'000'000;
    while (ended() + cancelled < kThreads * kPosts && now_ns() < limit) {
      pair.a.endpoint->poll(pair.a.events, 100'000'000);
    }
    CHECK(ended() + cancelled == kThreads * kPosts);
    stop = true;
    reader.join();
    const auto data = noise(64, 9);
    pair.a.endpoint->post(order_to(1'000'000, data, regions[0]));
    CHECK(pair.a.completed(1'000'000));
  }
}

// What an eventfd counts, once it has come to `wanted`.
std::uint64_t rung(int fd, std::uint64_t wanted) {
  std::uint64_t heard = 0;
  const std::int64_t limit = now_ns() + 60'000'000'000;
  while (heard < wanted && now_ns() < limit) {
    pollfd watched{fd, POLLIN, 0};
    ::poll(&watched, 1, 100);
    std::uint64_t count = 0;
    if (::read(fd, &count, sizeof count) == sizeof count) heard += count;
  }
  return heard;
}

TEST_CASE("an order stands: each trigger sends it once, and each arrival rings") {
  for (const auto& [name, make] : wires()) {
    CAPTURE(name);
    for (const std::size_t size : {64u, 300'000u}) {
      CAPTURE(size);
      auto data = noise(size, 3);
      std::vector<std::byte> buffer(size);
      const OwnedFd trigger(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
      const OwnedFd bell(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
      Pair pair = make();
      const Region region = region_of(buffer, 1);
      pair.b.endpoint->add(region);
      REQUIRE(pair.b.endpoint->hang(region.key, bell.fd()));
      std::string error;
      REQUIRE(pair.a.endpoint->stand(order_to(7, data, region), trigger.fd(), error));
      const auto pull = [&](std::uint64_t times) {
        REQUIRE(::write(trigger.fd(), &times, sizeof times) == sizeof times);
      };
      for (int turn = 0; turn < 20; ++turn) {
        data[0] = static_cast<std::byte>(turn);
        pull(1);
        REQUIRE(rung(bell.fd(), 1) == 1);
        REQUIRE(buffer == data);
      }
      pull(5);  // one at a time, none forgotten
      CHECK(rung(bell.fd(), 5) == 5);
      const std::int64_t limit = now_ns() + 60'000'000'000;
      while (pair.a.endpoint->carried(7).times < 25 && now_ns() < limit) std::this_thread::yield();
      CHECK(pair.a.endpoint->carried(7).times == 25);
      CHECK(pair.a.endpoint->carried(7).ns > 0);
      CHECK(pair.b.endpoint->rings(region.key) == 25);
      CHECK(pair.a.endpoint->cancel(7));
      CHECK_FALSE(pair.a.endpoint->cancel(7));
      pull(1);
      // Nobody sends it any more, and nothing of all this was an event.
      const auto other = noise(64, 4);
      std::vector<std::byte> place(64);
      const Region last = region_of(place, 2);
      pair.b.endpoint->add(last);
      pair.a.endpoint->post(order_to(8, other, last));
      REQUIRE(pair.a.completed(8));
      CHECK(rung(bell.fd(), 0) == 0);
      std::uint64_t count = 0;
      CHECK(::read(bell.fd(), &count, sizeof count) == -1);
      pair.b.endpoint->poll(pair.b.events, 1'000'000);
      for (const Side* side : {&pair.a, &pair.b}) {
        for (const Event& e : side->events) {
          CHECK_FALSE((e.type == EventType::Arrived && e.key == region.key));
          CHECK_FALSE((e.type == EventType::Completed && e.a == 7));
        }
      }
    }
  }
}

TEST_CASE("a standing order that is concluded completes when all that was asked for is verified") {
  for (const auto& [name, make] : wires()) {
    CAPTURE(name);
    const auto data = noise(3 * 4096 + 5, 3);
    const OwnedFd trigger(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    Pair pair = make();
    for (std::uint64_t op = 7; op < 57; ++op) {
      CAPTURE(op);
      const std::uint64_t times = op % 5;
      std::vector<std::byte> buffer(data.size());
      const Region region = region_of(buffer, op);
      pair.b.endpoint->add(region);
      std::string error;
      REQUIRE(pair.a.endpoint->stand(order_to(op, data, region), trigger.fd(), error));
      // At once: nobody has taken the last write from the eventfd by then.
      if (times > 0) REQUIRE(::write(trigger.fd(), &times, sizeof times) == sizeof times);
      pair.a.endpoint->conclude(op);
      pair.a.endpoint->conclude(op);
      REQUIRE(pair.a.completed(op));
      CHECK(pair.a.endpoint->carried(op).times == times);
      CHECK(pair.a.endpoint->carried(op).times == 0);  // forgotten
      if (times > 0) CHECK(buffer == data);
      CHECK_FALSE(pair.a.endpoint->cancel(op));
      CHECK(pair.b.endpoint->withdraw(region.key));
    }
  }
}

TEST_CASE("a standing order fails once, where its peer withdraws the destination") {
  for (const auto& [name, make] : wires()) {
    CAPTURE(name);
    const auto data = noise(64, 3);
    std::vector<std::byte> buffer(64);
    const OwnedFd trigger(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    Pair pair = make();
    const Region region = region_of(buffer, 1);
    std::string error;
    REQUIRE(pair.a.endpoint->stand(order_to(7, data, region), trigger.fd(), error));
    CHECK_FALSE(pair.b.endpoint->hang(region.key, trigger.fd()));  // not known there
    const std::uint64_t one = 1;
    REQUIRE(::write(trigger.fd(), &one, sizeof one) == sizeof one);
    REQUIRE(pair.a.until([](const Event& e) { return e.type == EventType::Failed && e.a == 7; }));
    CHECK_FALSE(pair.a.endpoint->cancel(7));
    pair.a.endpoint->close();
    REQUIRE(pair.a.lost());
    CHECK_FALSE(pair.a.endpoint->stand(order_to(9, data, region), trigger.fd(), error));
    CHECK(error == "the connection has ended");
  }
}

TEST_CASE("an alarm rings once") {
  Pair pair = shm_pair();
  pair.a.endpoint->alarm(5'000'000);
  pair.a.endpoint->alarm(50'000'000);  // later than the one that is due
  REQUIRE(pair.a.until([](const Event& e) { return e.type == EventType::Expired; }));
  pair.a.events.clear();
  CHECK_FALSE(pair.a.until([](const Event& e) { return e.type == EventType::Expired; }, 0));
}

TEST_CASE("a stale epoch, a foreign key and too long a range are refused") {
  for (const auto& [name, make] : wires()) {
    CAPTURE(name);
    Pair pair = make();
    const auto data = noise(100, 1);
    std::vector<std::byte> buffer(100);
    const Region region = region_of(buffer, 7);
    pair.b.endpoint->add(region);
    const auto code_of = [&](Order order) -> int {
      pair.a.events.clear();
      pair.a.endpoint->post(order);
      int code = -1;
      pair.a.until([&](const Event& e) {
        if (e.type != EventType::Completed && e.type != EventType::Failed) return false;
        code = e.code;
        return true;
      });
      return code;
    };
    Order order = order_to(1, data, region);
    order.dst.key.low ^= 1;
    CHECK(code_of(order) == 623);
    order = order_to(2, data, region);
    order.dst.epoch = 2;
    CHECK(code_of(order) == 624);
    order = order_to(3, data, region);
    order.dst.offset = 1;
    CHECK(code_of(order) == 625);
    CHECK(code_of(order_to(4, data, region)) == 0);
    pair.b.endpoint->fence(2);
    CHECK(code_of(order_to(5, data, region)) == 624);
  }
}

}  // namespace
}  // namespace genie::test
