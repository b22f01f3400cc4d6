#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <unordered_map>

#include "genie/inbound.h"

namespace genie::test {
namespace {

TEST_CASE("ranges in any order, each byte once") {
  std::mt19937 random(1);
  for (int round = 0; round < 2000; ++round) {
    Incoming incoming;
    incoming.length = 64;
    std::vector<bool> there(64);
    for (int step = 0; step < 40; ++step) {
      const std::uint64_t offset = random() % 70;
      const std::uint64_t count = 1 + random() % 9;
      bool fits = offset + count <= 64;
      for (std::uint64_t i = offset; fits && i < offset + count; ++i) fits = !there[i];
      REQUIRE(incoming.fits(offset, count) == fits);
      if (!fits) continue;
      incoming.add(offset, count);
      for (std::uint64_t i = offset; i < offset + count; ++i) there[i] = true;
      const auto all = static_cast<std::uint64_t>(std::count(there.begin(), there.end(), true));
      REQUIRE(incoming.verified == all);
    }
  }
}

TEST_CASE("numbers that would wrap do not fit") {
  Incoming incoming;
  incoming.length = 100;
  CHECK_FALSE(incoming.fits(~std::uint64_t{0}, 1));
  CHECK_FALSE(incoming.fits(50, ~std::uint64_t{0}));
  CHECK_FALSE(incoming.fits(101, 0));
}

TEST_CASE("the flat map agrees with the standard's") {
  std::mt19937_64 random(2);
  FlatMap<std::uint64_t> map;
  std::unordered_map<std::uint64_t, std::uint64_t> model;
  for (int step = 0; step < 200'000; ++step) {
    const std::uint64_t key = random() % 500;
    auto* found = map.find(key);
    const auto expected = model.find(key);
    REQUIRE((found != nullptr) == (expected != model.end()));
    if (found != nullptr) {
      REQUIRE(*found == expected->second);
      CHECK(map.erase(key));
      model.erase(expected);
    } else {
      const std::uint64_t value = random();
      map.insert(key, value);
      model.emplace(key, value);
    }
    REQUIRE(map.size() == model.size());
  }
}

}  // namespace
}  // namespace genie::test
