// What the bindings of both kinds of connection share.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "genie/endpoint.h"

namespace genie {

namespace nb = nanobind;

inline Key to_key(const nb::bytes& bytes) {
  if (bytes.size() != sizeof(Key)) throw std::invalid_argument("a key has 16 bytes");
  Key key;
  std::memcpy(&key, bytes.data(), sizeof key);
  return key;
}

inline std::byte* pointer(std::uint64_t address) { return reinterpret_cast<std::byte*>(address); }

inline std::span<const std::byte> span_of(const nb::bytes& bytes) {
  return {reinterpret_cast<const std::byte*>(bytes.c_str()), bytes.size()};
}

// Events come as (type, code, a, b, key or text).
inline nb::list to_python(const std::vector<Event>& events, EventQueue& queue) {
  nb::list found;
  for (const Event& event : events) {
    const auto type = static_cast<int>(event.type);
    switch (event.type) {
      case EventType::Arrived:
        found.append(
            nb::make_tuple(type, 0, event.a, event.b,
                           nb::bytes(reinterpret_cast<const char*>(&event.key), sizeof event.key)));
        break;
      case EventType::Lost:
        found.append(nb::make_tuple(type, event.code, 0, 0, queue.lost_text()));
        break;
      default:
        found.append(nb::make_tuple(type, event.code, event.a, event.b, nb::none()));
    }
  }
  return found;
}

// Measures round trips on the real path: posts, waits until the answer has arrived at `mine`,
// and so on, `count` times; who is not `first` waits before it posts. Nanoseconds of each trip.
// Nobody else may use the connection meanwhile: events of other transfers are lost.
template <typename End>
std::vector<std::int64_t> measure_trips(End& end, Order order, const Key& mine, std::size_t count,
                                        bool first) {
  std::vector<std::int64_t> trips;
  trips.reserve(count);
  std::vector<Event> events;
  const std::int64_t limit = now_ns() + 60'000'000'000;
  for (std::size_t i = 0; i < count && now_ns() < limit; ++i) {
    const std::int64_t begin = now_ns();
    order.op = (std::uint64_t{1} << 62) + i;
    if (first) end.post(order);
    for (bool arrived = false; !arrived && now_ns() < limit;) {
      events.clear();
      end.poll(events, 1'000'000'000);
      for (const Event& event : events) {
        arrived |= event.type == EventType::Arrived && event.key == mine;
        if (event.type == EventType::Lost) return trips;
      }
    }
    trips.push_back(now_ns() - begin);
    if (!first) end.post(order);
  }
  return trips;
}

// Adds the classes of the datagram transports to _core.
void bind_datagram(nb::module_& m);

}  // namespace genie
