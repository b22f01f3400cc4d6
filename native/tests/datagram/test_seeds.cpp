// Whole runs under virtual time, one for each seed. GENIE_SEEDS sets how many, GENIE_SEED runs one.
#include <doctest/doctest.h>

#include <cstdlib>

#include "world.h"

using namespace genie;
using namespace genie::datagram;
using namespace genie::datagram::sim;

namespace {

struct Planned {
  int side = 0;
  std::uint64_t op = 0;
  std::size_t buffer = 0;  // of the other side
  Destination dst{};
  std::vector<std::byte> source;
  Code expected = Code::Ok;
  bool cancelled = false;
  bool may_fail = false;  // its destination is withdrawn or fenced at some time
  bool checked = false;
};

// One run: two sides with some buffers each, posts at random times, faults, and now and then a
// cancellation, a withdrawal, a fence, a blackout, a death or a close.
class Run {
 public:
  explicit Run(std::uint64_t seed) : random_(seed * 0x2545F4914F6CDD1Dull + 1) {
    const Protection protection = random_.chance(0.5) ? Protection::Crc32c : Protection::Aes128Gcm;
    const std::size_t datagrams[] = {512, 1472, 1472, 8972};
    auto options = matching(protection, datagrams[random_.below(4)], seed);
    if (random_.chance(0.3)) {
      options.first.window = options.second.peer_window = 64 << 10;
    }
    options.first.shared_path = options.second.shared_path = random_.chance(0.7);
    LinkOptions link;
    link.latency = 5 * kMicro + random_.below(random_.chance(0.2) ? 5 * kMilli : 200 * kMicro);
    link.bytes_per_second = 50'000'000 + random_.below(5'000'000'000);
    link.queue_bytes = random_.chance(0.2) ? 40'000 : 4 << 20;
    sim_ = std::make_unique<Sim>(options.first, options.second, link, seed);
    sim_->set_faults(faults(), seed);
    plan();
  }

  // What went wrong, or nothing.
  std::string go() {
    const Nanos limit = sim_->now() + 60 * kSecond;
    const bool ended = sim_->run(limit, [&] { return check() || finished(); });
    if (!wrong_.empty() && std::getenv("GENIE_SEED")) {
      for (int side = 0; side < 2; ++side) {
        const SessionCounters c = sim_->session(side).counters();
        MESSAGE("side " << side << " sent " << c.datagrams_sent << " received "
                        << c.datagrams_received << " probes " << c.probes << " rejected "
                        << c.rejected << " duplicates " << c.duplicates << " dropped " << c.dropped
                        << " lost " << c.bytes_lost << " rtt " << c.rtt << " at " << sim_->now());
      }
    }
    if (!wrong_.empty()) return wrong_;
    if (!ended) return "hangs: not done within a minute of virtual time";
    for (auto& buffers : buffers_) {
      for (auto& buffer : buffers) {
        if (!buffer->guarded()) return "a canary was overwritten";
      }
    }
    for (int side = 0; side < 2; ++side) {
      if (sim_->side(side).is_lost && !ending_) {
        return "side " + std::to_string(side) + " was lost with code " +
               std::to_string(static_cast<int>(sim_->side(side).lost));
      }
      const SessionCounters counters = sim_->session(side).counters();
      if (counters.peak_in_flight > (9 << 20)) return "more in flight than the window";
    }
    return "";
  }

  std::uint64_t datagrams() { return sim_->side(0).sent + sim_->side(1).sent; }

 private:
  FaultRates faults() {
    FaultRates rates;
    if (random_.chance(0.2)) return rates;
    const double level = random_.chance(0.2) ? 0.3 : random_.chance(0.5) ? 0.05 : 0.01;
    if (random_.chance(0.7)) rates.drop = level * random_.unit();
    if (random_.chance(0.5)) rates.duplicate = level * random_.unit();
    if (random_.chance(0.5)) rates.late = level * random_.unit();
    if (random_.chance(0.5)) rates.truncate = level * random_.unit() / 2;
    if (random_.chance(0.5)) rates.flip = level * random_.unit() / 2;
    rates.lateness = random_.below(3 * kMilli);
    return rates;
  }

  Nanos soon() { return sim_->now() + random_.below(4 * kMilli); }

  void plan() {
    for (int side = 0; side < 2; ++side) {
      for (auto n = 1 + random_.below(4); n > 0; --n) {
        const std::size_t size = random_.chance(0.3)   ? random_.below(200)
                                 : random_.chance(0.7) ? random_.below(30'000)
                                                       : random_.below(300'000);
        buffers_[side].push_back(std::make_unique<Buffer>(sim_->session(side), ++arena_, size));
      }
    }
    for (auto n = 1 + random_.below(12); n > 0; --n) add_post();
    if (random_.chance(0.3)) burst();
    if (random_.chance(0.2)) {
      const int side = static_cast<int>(random_.below(2));
      const std::size_t index = random_.below(buffers_[side].size());
      doomed(side, index);
      sim_->at(soon(), [this, side, index] {
        Buffer& buffer = *buffers_[side][index];
        sim_->session(side).withdraw(buffer.region.key);
        frozen_.emplace_back(&buffer, std::vector(buffer.data(), buffer.data() + buffer.size()));
      });
    }
    if (random_.chance(0.1)) {
      const int side = static_cast<int>(random_.below(2));
      for (std::size_t i = 0; i < buffers_[side].size(); ++i) doomed(side, i);
      sim_->at(soon(), [this, side] { sim_->session(side).fence(2); });
    }
    if (random_.chance(0.15)) {
      sim_->at(soon(), [this] { sim_->black_out(sim_->now() + random_.below(500 * kMilli)); });
    }
    if (random_.chance(0.05)) {
      ending_ = true;
      const int side = static_cast<int>(random_.below(2));
      sim_->at(soon(), [this, side] { sim_->session(side).close(sim_->now()); });
    } else if (random_.chance(0.05)) {
      ending_ = true;
      const int side = static_cast<int>(random_.below(2));
      sim_->at(soon(), [this, side] { sim_->side(side).dead = true; });
    }
  }

  void doomed(int side, std::size_t buffer) {
    for (Planned& p : posts_) {
      if (p.side != side && p.buffer == buffer) p.may_fail = true;
    }
    doomed_.emplace_back(side, buffer);
  }

  void add_post() {
    Planned planned;
    planned.side = static_cast<int>(random_.below(2));
    auto& theirs = buffers_[1 - planned.side];
    planned.buffer = random_.below(theirs.size());
    Buffer& buffer = *theirs[planned.buffer];
    const std::uint64_t offset = random_.chance(0.5) ? 0 : random_.below(buffer.size() + 1);
    planned.dst =
        buffer.part(offset, random_.chance(0.5) ? buffer.size() - offset
                                                : random_.below(buffer.size() - offset + 1));
    const double kind = random_.unit();
    if (kind < 0.05) {
      planned.dst.key.low ^= 1 + random_.below(99);
      planned.expected = Code::NoDestination;
    } else if (kind < 0.08) {
      planned.dst.epoch += 1;
      planned.expected = Code::StaleEpoch;
    } else if (kind < 0.11) {
      planned.dst.length = buffer.size() - offset + 1;
      planned.expected = Code::OutOfRange;
    }
    planned.source = noise(planned.dst.length, random_.next());
    const int priority = static_cast<int>(random_.below(4));
    const std::size_t index = posts_.size();
    posts_.push_back(std::move(planned));
    const Nanos when = soon();
    sim_->at(when, [this, index, priority] {
      Planned& p = posts_[index];
      p.op = sim_->post(p.side, p.source.data(), p.dst, priority);
      p.checked = false;
      posted_.push_back(index);
    });
    if (random_.chance(0.1)) {
      sim_->at(when + random_.below(300 * kMicro), [this, index] {
        Planned& p = posts_[index];
        if (!p.checked && sim_->session(p.side).cancel(p.op)) p.cancelled = true;
      });
    }
  }

  // Many small messages side by side in one buffer.
  void burst() {
    const int side = static_cast<int>(random_.below(2));
    const std::size_t count = 20 + random_.below(200), each = 1 + random_.below(100);
    buffers_[1 - side].push_back(
        std::make_unique<Buffer>(sim_->session(1 - side), ++arena_, count * each));
    const std::size_t buffer = buffers_[1 - side].size() - 1;
    for (std::size_t i = 0; i < count; ++i) {
      Planned planned;
      planned.side = side;
      planned.buffer = buffer;
      planned.dst = buffers_[1 - side][buffer]->part(i * each, each);
      planned.source = noise(each, random_.next());
      const std::size_t index = posts_.size();
      posts_.push_back(std::move(planned));
      sim_->at(sim_->now() + kMicro * i, [this, index] {
        Planned& p = posts_[index];
        p.op = sim_->post(p.side, p.source.data(), p.dst, 0);
        posted_.push_back(index);
      });
    }
  }

  bool overlapped(const Planned& p) const {
    for (const std::size_t other : posted_) {
      const Planned& q = posts_[other];
      if (&q != &p && q.side == p.side && q.buffer == p.buffer &&
          q.dst.offset < p.dst.offset + p.dst.length &&
          p.dst.offset < q.dst.offset + q.dst.length) {
        return true;
      }
    }
    return false;
  }

  // Looks at what has ended since the last call. True when something is wrong.
  bool check() {
    for (const std::size_t index : posted_) {
      Planned& p = posts_[index];
      if (p.checked) continue;
      const Outcome& outcome = sim_->side(p.side).outcomes[p.op];
      if (!outcome.ended) {
        if (p.cancelled) p.checked = true;
        continue;
      }
      p.checked = true;
      if (p.cancelled) return fail("an event of a cancelled operation");
      judge(p, outcome);
      if (!wrong_.empty()) return true;
    }
    for (auto& [buffer, bytes] : frozen_) {
      if (!buffer->holds(bytes.data())) return fail("a withdrawn buffer was written");
    }
    return false;
  }

  void judge(const Planned& p, const Outcome& outcome) {
    const std::string name = "op " + std::to_string(p.op) + " of side " + std::to_string(p.side);
    if (outcome.code == Code::Ok) {
      if (p.expected != Code::Ok) return void(fail(name + " completed, but is forged"));
      Buffer& buffer = *buffers_[1 - p.side][p.buffer];
      if (!overlapped(p) && !p.source.empty() &&
          std::memcmp(buffer.data() + p.dst.offset, p.source.data(), p.source.size()) != 0) {
        fail(name + " completed with other bytes");
      }
      return;
    }
    const bool dooms =
        p.may_fail && (outcome.code == Code::NoDestination || outcome.code == Code::StaleEpoch);
    const bool lost =
        ending_ && (outcome.code == Code::Closed || outcome.code == Code::PeerSilent ||
                    outcome.code == Code::PeerClosed);
    const bool busy = outcome.code == Code::Busy && overlapped(p);
    if (outcome.code != p.expected && !dooms && !lost && !busy) {
      fail(name + " failed with " + std::to_string(static_cast<int>(outcome.code)));
    }
  }

  bool fail(const std::string& why) {
    if (wrong_.empty()) wrong_ = why;
    return true;
  }

  bool finished() const {
    if (posted_.size() != posts_.size()) return false;
    for (int side = 0; side < 2; ++side) {
      const Side& s = const_cast<Sim&>(*sim_).side(side);
      if (!s.dead && s.session->outstanding() != 0) return false;
    }
    return true;
  }

  Random random_;
  std::unique_ptr<Sim> sim_;
  std::vector<std::unique_ptr<Buffer>> buffers_[2];
  std::vector<Planned> posts_;
  std::vector<std::size_t> posted_;
  std::vector<std::pair<int, std::size_t>> doomed_;
  std::vector<std::pair<Buffer*, std::vector<std::byte>>> frozen_;
  std::uint64_t arena_ = 0;
  bool ending_ = false;
  std::string wrong_;
};

}  // namespace

TEST_CASE("seeds: nothing lost, nothing wrong, nobody hangs") {
  std::uint64_t first = 1, count = 1000, datagrams = 0;
  if (const char* text = std::getenv("GENIE_SEEDS")) count = std::strtoull(text, nullptr, 10);
  if (const char* text = std::getenv("GENIE_SEED")) {
    first = std::strtoull(text, nullptr, 10);
    count = 1;
  }
  for (std::uint64_t seed = first; seed < first + count; ++seed) {
    Run run(seed);
    const std::string wrong = run.go();
    datagrams += run.datagrams();
    if (!wrong.empty()) FAIL_CHECK("seed " << seed << ": " << wrong);
  }
  MESSAGE(count << " seeds, " << datagrams << " datagrams");
}

TEST_CASE("goodput at 1 % loss is at least nine tenths of lossless") {
  for (const Nanos latency : {25 * kMicro, 250 * kMicro, 5 * kMilli}) {
    double seconds[2] = {0, 0};
    for (const int lossy : {0, 1}) {
      LinkOptions link;
      link.latency = latency;
      link.bytes_per_second = 1'000'000'000;
      if (lossy) link.faults.drop = 0.01;
      const auto options = matching(Protection::Crc32c, 8972, 3);
      Sim sim(options.first, options.second, link, 3);
      const std::size_t big = 64 << 20;
      const auto source = noise(big, 1);
      Buffer dst(sim.session(1), 1, big);
      const Nanos start = sim.now();
      sim.post(0, source.data(), dst.whole(), 1);
      REQUIRE(sim.run(sim.now() + 60 * kSecond, [&] { return sim.quiet(); }));
      CHECK(dst.holds(source.data()));
      seconds[lossy] = static_cast<double>(sim.now() - start) * 1e-9;
    }
    MESSAGE("one way " << latency / kMicro << " us: " << 64.0 * 1.048576 / seconds[0]
                       << " MB/ms lossless, ratio " << seconds[0] / seconds[1]);
    CHECK(seconds[0] / seconds[1] >= 0.9);
  }
}
