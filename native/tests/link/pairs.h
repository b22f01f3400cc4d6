// Two endpoints that are joined by a real wire, in one process.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "genie/endpoint.h"

namespace genie::test {

struct Side {
  std::unique_ptr<Endpoint> endpoint;
  std::vector<Event> events;

  // Waits until an event passes `test`; earlier ones stay in `events`.
  bool until(const std::function<bool(const Event&)>& test, int seconds = 20);
  bool completed(std::uint64_t op);
  bool lost(std::uint16_t* code = nullptr);
};

struct Pair {
  Side a;
  Side b;
};

inline constexpr Terms kTerms{1 << 20, 64 << 10, 30'000'000'000};

Pair shm_pair(const Terms& terms = kTerms);
Pair tcp_pair(bool sealed, int streams = 1, const Terms& terms = kTerms);

// The wires that test_endpoint.cpp runs over; each test program has its own.
using Make = std::function<Pair()>;
std::vector<std::pair<const char*, Make>> wires();

Side started(const Terms& terms);

std::pair<int, int> unix_sockets();
std::pair<int, int> tcp_sockets();
Region region_of(std::vector<std::byte>& bytes, std::uint64_t number);
Order order_to(std::uint64_t op, const std::vector<std::byte>& source, const Region& region);
std::vector<std::byte> noise(std::size_t size, std::uint64_t seed);

}  // namespace genie::test
