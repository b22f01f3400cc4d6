// Faults of a network, made from a seed: the same seed gives the same faults.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "genie/rate.h"

namespace genie::datagram {

// SplitMix64: small, fast, and the same everywhere.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9E3779B97F4A7C15ull);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
  }
  // From 0 to bound - 1; 0 for a bound of 0.
  std::uint64_t below(std::uint64_t bound) { return bound == 0 ? 0 : next() % bound; }
  double unit() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  bool chance(double probability) { return probability > 0 && unit() < probability; }

 private:
  std::uint64_t state_;
};

// Probabilities for each datagram, and how long a late one is late.
struct FaultRates {
  double drop = 0;
  double duplicate = 0;
  double late = 0;
  double truncate = 0;
  double flip = 0;  // one to four bits
  Nanos lateness = 0;
  Nanos delay = 0;  // of every datagram, as distance has it
};

class Faults {
 public:
  Faults(const FaultRates& rates, std::uint64_t seed) : rates_(rates), random_(seed) {}

  struct Verdict {
    unsigned copies = 1;  // 0: dropped
    Nanos late[2] = {0, 0};
  };
  Verdict decide();
  // Damages one copy, perhaps; returns its size, which is smaller when it was truncated.
  std::size_t damage(std::span<std::byte> datagram);
  bool changes_nothing() const;

 private:
  FaultRates rates_;
  Random random_;
};

}  // namespace genie::datagram
