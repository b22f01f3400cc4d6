// What a session does on a network without faults, and what it refuses.
#include <doctest/doctest.h>

#include "world.h"

using namespace genie;
using namespace genie::datagram;
using namespace genie::datagram::sim;

namespace {

struct Pair {
  explicit Pair(Protection protection = Protection::Crc32c, std::size_t datagram = 1472,
                LinkOptions link = {})
      : options(matching(protection, datagram, 1)), sim(options.first, options.second, link, 1) {}

  bool finish(Nanos within = 10 * kSecond) {
    return sim.run(sim.now() + within, [&] { return sim.quiet(); });
  }
  Outcome outcome(std::uint64_t op, int side = 0) { return sim.side(side).outcomes.at(op); }

  std::pair<SessionOptions, SessionOptions> options;
  Sim sim;
};

}  // namespace

TEST_CASE("messages of every awkward size arrive whole") {
  for (const Protection protection : {Protection::Crc32c, Protection::Aes128Gcm}) {
    for (const std::size_t datagram : {512ul, 1472ul, 8972ul, 65504ul}) {
      Pair pair(protection, datagram);
      const std::size_t chunk = chunk_bytes(datagram);
      std::vector<std::unique_ptr<Buffer>> buffers;
      std::vector<std::vector<std::byte>> sources;
      std::uint64_t arena = 1;
      for (const std::size_t size :
           {std::size_t{0}, std::size_t{1}, std::size_t{63}, chunk - 1, chunk, chunk + 1, 2 * chunk,
            64 * chunk, 65 * chunk + 7, std::size_t{300'000}}) {
        buffers.push_back(std::make_unique<Buffer>(pair.sim.session(1), arena++, size));
        sources.push_back(noise(size, size + 1));
        pair.sim.post(0, sources.back().data(), buffers.back()->whole(), 1);
      }
      REQUIRE(pair.finish());
      for (std::size_t i = 0; i < buffers.size(); ++i) {
        CHECK(pair.outcome(i).code == Code::Ok);
        CHECK(buffers[i]->holds(sources[i].data()));
        CHECK(buffers[i]->guarded());
      }
      CHECK(pair.sim.side(1).arrivals.size() == buffers.size());
      const SessionCounters counters = pair.sim.session(0).counters();
      CHECK(counters.bytes_lost == 0);
      CHECK(counters.probes == 0);
    }
  }
}

TEST_CASE("both directions at once, and small messages share datagrams") {
  Pair pair(Protection::Aes128Gcm, 8972);
  const std::size_t count = 3000;
  const auto source = noise(64 * count, 5);
  Buffer here(pair.sim.session(0), 1, 64 * count), there(pair.sim.session(1), 1, 64 * count);
  for (std::size_t i = 0; i < count; ++i) {
    pair.sim.post(0, source.data() + 64 * i, there.part(64 * i, 64), 0);
    pair.sim.post(1, source.data() + 64 * i, here.part(64 * i, 64), 0);
  }
  REQUIRE(pair.finish());
  CHECK(here.holds(source.data()));
  CHECK(there.holds(source.data()));
  CHECK(pair.sim.side(0).sent < count / 20);
}

TEST_CASE("handles are checked before a byte is written") {
  Pair pair;
  Buffer dst(pair.sim.session(1), 3, 100, 5), constant(pair.sim.session(1), 4, 100, 5, false);
  const auto source = noise(400, 1);
  auto forged = dst.whole(), arena = dst.whole(), old = dst.whole(), young = dst.whole();
  forged.key.high ^= 1;
  arena.arena = 4;
  old.epoch = 4;
  young.epoch = 6;
  const std::pair<Destination, Code> cases[] = {
      {forged, Code::NoDestination},
      {arena, Code::NoDestination},
      {old, Code::StaleEpoch},
      {young, Code::StaleEpoch},
      {dst.part(1, 100), Code::OutOfRange},
      {dst.part(101, 0), Code::OutOfRange},
      {dst.part(0, 101), Code::OutOfRange},
      {dst.part(std::uint64_t{1} << 62, 1), Code::OutOfRange},
      {constant.whole(), Code::ReadOnly},
  };
  for (const auto& [destination, code] : cases) {
    const auto op = pair.sim.post(0, source.data(), destination, 1);
    REQUIRE(pair.finish());
    CHECK(pair.outcome(op).code == code);
  }
  const std::vector<std::byte> zeros(100);
  CHECK(dst.holds(zeros.data()));
  CHECK(constant.holds(zeros.data()));
  CHECK(dst.guarded());
  const auto op = pair.sim.post(0, source.data(), dst.whole(), 1);
  REQUIRE(pair.finish());
  CHECK(pair.outcome(op).code == Code::Ok);  // the session is none the worse
  CHECK(dst.holds(source.data()));
}

TEST_CASE("sizes that cannot be are refused where they are posted") {
  Pair pair;
  const auto source = noise(16, 1);
  Order order;
  order.source = source.data();
  order.dst.length = 16;
  order.dst.offset = kU63 - 1;
  CHECK(pair.sim.session(0).post(order) == Code::BadHandle);
  order.dst.offset = 0;
  order.dst.length = kU63;
  CHECK(pair.sim.session(0).post(order) == Code::BadHandle);
  order.dst.length = 16;
  order.priority = 4;
  CHECK(pair.sim.session(0).post(order) == Code::BadHandle);
}

TEST_CASE("a refused message leaves those that share its datagram alone") {
  Pair pair(Protection::Crc32c, 8972);
  const auto source = noise(4096, 1);
  Buffer dst(pair.sim.session(1), 1, 4096);
  auto forged = dst.part(0, 32);
  forged.key.low ^= 1;
  for (std::size_t i = 0; i < 64; ++i) {
    pair.sim.post(0, source.data() + 64 * i, dst.part(64 * i, 64), 1);
    pair.sim.post(0, source.data(), forged, 1);
  }
  REQUIRE(pair.finish());
  for (std::size_t i = 0; i < 64; ++i) {
    CHECK(pair.outcome(2 * i).code == Code::Ok);
    CHECK(pair.outcome(2 * i + 1).code == Code::NoDestination);
  }
  CHECK(dst.holds(source.data()));
}

TEST_CASE("the second writer of the same bytes is refused; neighbours are not") {
  Pair pair;
  const auto ones = noise(200'000, 1), twos = noise(200'000, 2);
  Buffer dst(pair.sim.session(1), 1, 200'000);
  pair.sim.post(0, ones.data(), dst.whole(), 1);
  pair.sim.post(0, twos.data(), dst.whole(), 1);
  REQUIRE(pair.finish());
  CHECK(pair.outcome(0).code == Code::Ok);
  CHECK(pair.outcome(1).code == Code::Busy);
  CHECK(dst.holds(ones.data()));
  pair.sim.post(0, twos.data(), dst.part(0, 100'000), 1);
  pair.sim.post(0, twos.data() + 100'000, dst.part(100'000, 100'000), 1);
  REQUIRE(pair.finish());
  CHECK(pair.outcome(3).code == Code::Ok);
  CHECK(dst.holds(twos.data()));
}

TEST_CASE("after withdraw() no byte is written, and every message into it fails") {
  Pair pair;
  const std::size_t count = 200, each = 20'000;  // many more refusals than fit an answer
  const auto source = noise(count * each, 1);
  Buffer dst(pair.sim.session(1), 1, count * each);
  for (std::size_t i = 0; i < count; ++i) {
    pair.sim.post(0, source.data() + i * each, dst.part(i * each, each), static_cast<int>(i % 4));
  }
  std::vector<std::byte> then;
  pair.sim.at(pair.sim.now() + 300 * kMicro, [&] {
    CHECK(pair.sim.session(1).withdraw(dst.region.key));
    then.assign(dst.data(), dst.data() + dst.size());
  });
  REQUIRE(pair.finish());
  CHECK(dst.holds(then.data()));
  std::size_t failed = 0;
  for (std::size_t i = 0; i < count; ++i) {
    if (pair.outcome(i).code == Code::Ok) {
      CHECK(std::memcmp(dst.data() + i * each, source.data() + i * each, each) == 0);
    } else {
      CHECK(pair.outcome(i).code == Code::NoDestination);
      ++failed;
    }
  }
  CHECK(failed > 150);
  CHECK_FALSE(pair.sim.session(1).withdraw(dst.region.key));
}

TEST_CASE("a fence ends what is under way and refuses older handles") {
  Pair pair;
  const auto source = noise(500'000, 1);
  Buffer old(pair.sim.session(1), 1, 500'000, 1);
  pair.sim.post(0, source.data(), old.whole(), 1);
  pair.sim.at(pair.sim.now() + 100 * kMicro, [&] { pair.sim.session(1).fence(2); });
  REQUIRE(pair.finish());
  CHECK(pair.outcome(0).code == Code::StaleEpoch);
  pair.sim.post(0, source.data(), old.whole(), 1);
  Buffer young(pair.sim.session(1), 2, 500'000, 2);
  pair.sim.post(0, source.data(), young.whole(), 1);
  REQUIRE(pair.finish());
  CHECK(pair.outcome(1).code == Code::StaleEpoch);
  CHECK(pair.outcome(2).code == Code::Ok);
}

TEST_CASE("cancel stops writing, and its destination can be used at once") {
  Pair pair;
  const auto ones = noise(400'000, 1), twos = noise(400'000, 2);
  Buffer dst(pair.sim.session(1), 1, 400'000);
  const auto first = pair.sim.post(0, ones.data(), dst.whole(), 1);
  std::uint64_t second = 0;
  pair.sim.at(pair.sim.now() + 90 * kMicro, [&] {
    CHECK(pair.sim.session(0).cancel(first));
    CHECK_FALSE(pair.sim.session(0).cancel(first));
    second = pair.sim.post(0, twos.data(), dst.whole(), 1);
  });
  REQUIRE(pair.sim.run(pair.sim.now() + kSecond, [&] {
    return pair.sim.side(0).outcomes.size() == 2 && pair.outcome(1).ended;
  }));
  CHECK_FALSE(pair.outcome(first).ended);
  CHECK(pair.outcome(second).code == Code::Ok);
  CHECK(dst.holds(twos.data()));
}

TEST_CASE("a decode message passes weights that were posted before it") {
  LinkOptions link;
  link.bytes_per_second = 1'000'000'000;
  Pair pair(Protection::Crc32c, 8972, link);
  const std::size_t big = 64 << 20;
  const auto source = noise(big, 1);
  Buffer weights(pair.sim.session(1), 1, big), decode(pair.sim.session(1), 2, 4096);
  pair.sim.post(0, source.data(), weights.whole(), 2);
  std::vector<Nanos> posted;
  for (int i = 1; i <= 20; ++i) {
    pair.sim.at(pair.sim.now() + static_cast<Nanos>(i) * 2 * kMilli, [&] {
      posted.push_back(pair.sim.now());
      pair.sim.post(0, source.data(), decode.whole(), 0);
    });
  }
  REQUIRE(pair.sim.run(pair.sim.now() + 10 * kSecond,
                       [&] { return posted.size() == 20 && pair.sim.quiet(); }));
  for (std::size_t i = 0; i < posted.size(); ++i) {
    // The queue that weights build up is short; longest while their window is still doubling.
    CHECK(pair.outcome(i + 1).at - posted[i] < (i < 12 ? 3000 : 1500) * kMicro);
  }
  CHECK(weights.holds(source.data()));
}

TEST_CASE("transfers of one class share the path") {
  Pair pair;
  const std::size_t big = 4 << 20, small = 256 << 10;
  const auto source = noise(big, 1);
  Buffer large(pair.sim.session(1), 1, big), little(pair.sim.session(1), 2, small);
  pair.sim.post(0, source.data(), large.whole(), 1);
  pair.sim.post(0, source.data(), little.whole(), 1);
  REQUIRE(pair.finish());
  const Nanos start = kSecond;
  CHECK(pair.outcome(1).at - start < (pair.outcome(0).at - start) / 4);
}

TEST_CASE("a closed credit stops the sender, and an opened one lets it go on") {
  Pair pair;
  const auto source = noise(1 << 20, 1);
  Buffer dst(pair.sim.session(1), 1, 1 << 20);
  pair.sim.session(1).set_window(0);
  pair.sim.run(pair.sim.now() + kMilli, [] { return false; });
  pair.sim.post(0, source.data(), dst.whole(), 1);
  const std::uint64_t before = pair.sim.session(1).counters().bytes_landed;
  CHECK_FALSE(pair.sim.run(pair.sim.now() + kSecond, [&] { return pair.sim.quiet(); }));
  CHECK(pair.sim.session(1).counters().bytes_landed == before);
  CHECK(pair.sim.side(0).sent < 300);  // asks now and then
  pair.sim.session(1).set_window(1 << 20);
  REQUIRE(pair.finish());
  CHECK(dst.holds(source.data()));
}

TEST_CASE("more posts than the queue holds are refused, and the session goes on") {
  auto options = matching(Protection::Crc32c, 1472, 1);
  options.first.queue = 10;
  Sim sim(options.first, options.second, {}, 1);
  const auto source = noise(64, 1);
  Buffer dst(sim.session(1), 1, 64 * 20);
  for (std::size_t i = 0; i < 20; ++i) sim.post(0, source.data(), dst.part(64 * i, 64), 1);
  REQUIRE(sim.run(sim.now() + kSecond, [&] { return sim.quiet(); }));
  for (std::size_t i = 0; i < 20; ++i) {
    CHECK(sim.side(0).outcomes[i].code == (i < 10 ? Code::Ok : Code::QueueFull));
  }
}

TEST_CASE("close ends both sides; nothing is left waiting") {
  Pair pair;
  const auto source = noise(1 << 20, 1);
  Buffer dst(pair.sim.session(1), 1, 1 << 20), back(pair.sim.session(0), 1, 1 << 20);
  pair.sim.post(0, source.data(), dst.whole(), 1);
  pair.sim.post(1, source.data(), back.whole(), 1);
  pair.sim.at(pair.sim.now() + 60 * kMicro, [&] { pair.sim.session(0).close(pair.sim.now()); });
  REQUIRE(pair.sim.run(pair.sim.now() + kSecond, [&] {
    return pair.sim.session(0).silent() && pair.sim.session(1).silent();
  }));
  CHECK(pair.outcome(0, 0).code == Code::Closed);
  CHECK(pair.outcome(0, 1).code == Code::PeerClosed);
  CHECK(pair.sim.side(0).lost == Code::Closed);
  CHECK(pair.sim.side(1).lost == Code::PeerClosed);
  CHECK(pair.sim.session(1).post({}) == Code::PeerClosed);
}

TEST_CASE("a peer that falls silent is noticed within the stall timeout") {
  Pair pair;
  const auto source = noise(1 << 20, 1);
  Buffer dst(pair.sim.session(1), 1, 1 << 20);
  pair.sim.post(0, source.data(), dst.whole(), 1);
  pair.sim.at(pair.sim.now() + 60 * kMicro, [&] { pair.sim.side(1).dead = true; });
  const Nanos start = pair.sim.now();
  REQUIRE(pair.finish());
  CHECK(pair.outcome(0).code == Code::PeerSilent);
  CHECK(pair.sim.now() - start < 2 * kSecond + 10 * kMilli);
  CHECK(pair.sim.side(0).lost == Code::PeerSilent);
  CHECK(pair.sim.steps() < 5000);  // it did not hammer a dead peer
}

TEST_CASE("an idle session stays alive, and costs next to nothing") {
  Pair pair;
  CHECK_FALSE(pair.sim.run(pair.sim.now() + 60 * kSecond, [] { return false; }));
  CHECK_FALSE(pair.sim.session(0).ended());
  CHECK_FALSE(pair.sim.session(1).ended());
  CHECK(pair.sim.side(0).sent < 150);  // about two a second
}

TEST_CASE("a slow peer bounds what is in flight to what it granted") {
  Pair pair;
  pair.sim.side(1).polls_every = 20 * kMilli;
  pair.sim.session(1).set_window(100'000);
  const auto source = noise(8 << 20, 1);
  Buffer dst(pair.sim.session(1), 1, 8 << 20);
  pair.sim.run(pair.sim.now() + 100 * kMilli, [] { return false; });
  const std::uint64_t base = pair.sim.session(0).counters().peak_in_flight;
  pair.sim.post(0, source.data(), dst.whole(), 0);
  REQUIRE(pair.finish(30 * kSecond));
  CHECK(pair.outcome(0).code == Code::Ok);
  CHECK(pair.sim.session(0).counters().peak_in_flight < std::max<std::uint64_t>(base, 103'000));
}

TEST_CASE("the path's rate is used, and its queue stays short") {
  for (const Nanos latency : {10 * kMicro, 200 * kMicro, 2 * kMilli}) {
    LinkOptions link;
    link.latency = latency;
    link.bytes_per_second = 1'000'000'000;
    Pair pair(Protection::Crc32c, 8972, link);
    const std::size_t big = 64 << 20;
    const auto source = noise(big, 1);
    Buffer dst(pair.sim.session(1), 1, big);
    const Nanos start = pair.sim.now();
    pair.sim.post(0, source.data(), dst.whole(), 1);
    REQUIRE(pair.finish(20 * kSecond));
    const double seconds = static_cast<double>(pair.sim.now() - start) * 1e-9;
    const double share = static_cast<double>(big) / seconds / 1e9;
    MESSAGE("one way " << latency / kMicro << " us: " << share << " of the line, rtt "
                       << pair.sim.session(0).counters().rtt / kMicro << " us");
    CHECK(share > 0.8);
  }
}
