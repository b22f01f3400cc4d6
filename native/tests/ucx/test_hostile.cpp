// What a wire over UCX does with strangers, and with a peer that lies.
#include <doctest/doctest.h>

#include <algorithm>
#include <random>

#include "ucx_pair.h"

namespace genie::test {
namespace {

constexpr std::size_t kSize = 300;

struct Scene {
  explicit Scene(bool sealed) : victim(started(kTerms)), liar(victim, sealed) {
    for (std::uint64_t i = 0; i < buffers.size(); ++i) {
      buffers[i].resize(kSize);
      regions.push_back(region_of(buffers[i], i + 1));
      victim.endpoint->add(regions.back());
    }
  }

  bool arrived(std::size_t i) {
    const std::int64_t end = now_ns() + 20'000'000'000;
    while (now_ns() < end) {
      liar.work();
      victim.endpoint->poll(victim.events, 1'000'000);
      for (const Event& e : victim.events) {
        if (e.type == EventType::Arrived && e.key == regions[i].key) return buffers[i] == data;
        if (e.type == EventType::Lost) return false;
      }
    }
    return false;
  }

  int lost() {
    const std::int64_t end = now_ns() + 20'000'000'000;
    while (now_ns() < end) {
      liar.work();
      victim.endpoint->poll(victim.events, 1'000'000);
      for (const Event& e : victim.events) {
        if (e.type == EventType::Lost) return e.code;
      }
    }
    return 0;
  }

  std::vector<std::byte> data = noise(kSize, 7);
  std::array<std::vector<std::byte>, 3> buffers;
  std::vector<Region> regions;
  Side victim;  // ends before its memory does
  Liar liar;
};

TEST_CASE("what does not carry the connection's token is dropped, and nothing else happens") {
  for (const bool sealed : {false, true}) {
    Scene scene(sealed);
    REQUIRE(scene.liar.introduce());
    const auto frame = scene.liar.put(scene.data, scene.regions[0]);
    UcxTag stranger = scene.liar.tag(0);
    stranger.token[5] ^= std::byte{1};
    for (int i = 0; i < 20; ++i) scene.liar.say(stranger, frame, true);
    scene.liar.say(stranger, noise(1 << 20, 1), false);  // announced, longer than any message
    scene.liar.say(scene.liar.tag(0), frame, true);
    CHECK(scene.arrived(0));
  }
}

TEST_CASE("messages are taken in their order, and once") {
  for (const bool sealed : {false, true}) {
    Scene scene(sealed);
    REQUIRE(scene.liar.introduce());
    std::vector<std::vector<std::byte>> frames;
    for (const Region& region : scene.regions) frames.push_back(scene.liar.put(scene.data, region));
    scene.liar.say(scene.liar.tag(2), frames[2], true);
    scene.liar.say(scene.liar.tag(1), frames[1], false);
    scene.liar.say(scene.liar.tag(2), frames[2], true);
    scene.liar.say(scene.liar.tag(0), frames[0], false);
    scene.liar.say(scene.liar.tag(0), frames[0], true);
    for (std::size_t i = 0; i < 3; ++i) CHECK(scene.arrived(i));
    std::size_t count = 0;
    for (const Event& e : scene.victim.events) count += e.type == EventType::Arrived ? e.b : 0;
    CHECK(count == 3);
  }
}

TEST_CASE("impossible messages end the connection") {
  const auto ends = [](const UcxTag& offset, const std::vector<std::byte>& bytes, bool push) {
    Scene scene(true);
    REQUIRE(scene.liar.introduce());
    scene.liar.say(scene.liar.tag(offset.sequence), bytes, push);
    return scene.lost();
  };
  CHECK(ends({{}, 0}, noise(100, 1), true) == 631);       // no frame
  CHECK(ends({{}, 0}, noise(1 << 20, 1), false) == 631);  // longer than a frame can be
  CHECK(ends({{}, 5000}, noise(100, 1), true) == 631);    // far beyond its turn
  CHECK(ends({{}, ~0ull}, noise(100, 1), false) == 631);
}

TEST_CASE("an address that the peer did not seal is not used") {
  Scene scene(true);
  scene.liar.introduce(true);
  CHECK(scene.lost() == 631);
}

TEST_CASE("no mutated message places a byte that is then believed") {
  std::mt19937 random(11);
  for (int round = 0; round < 60; ++round) {
    CAPTURE(round);
    Scene scene(round % 2 == 0);
    REQUIRE(scene.liar.introduce());
    auto frame = scene.liar.put(scene.data, scene.regions[0]);
    const auto at = random() % frame.size();
    if (round % 3 == 0) {
      frame.resize(at);
    } else {
      frame[at] ^= static_cast<std::byte>(1u << random() % 8);
    }
    scene.liar.say(scene.liar.tag(0), frame, round % 5 != 0);
    // Damage to the payload fails the transfer, and anything else the connection; then another
    // transfer shows which it was, and that nothing of the first arrived.
    scene.liar.say(scene.liar.tag(1), scene.liar.put(scene.data, scene.regions[1]), true);
    const bool next = scene.arrived(1);
    const auto first =
        std::count_if(scene.victim.events.begin(), scene.victim.events.end(), [&](const Event& e) {
          return e.type == EventType::Arrived && e.key == scene.regions[0].key;
        });
    CHECK(first == 0);
    if (!next) {
      const int code = scene.lost();
      CHECK(code == 631);
    }
  }
}

}  // namespace
}  // namespace genie::test
