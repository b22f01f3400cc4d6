// What the bindings of both kinds of connection share.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <chrono>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
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

inline Region region_of(std::uint64_t address, std::uint64_t length, bool writable,
                        std::uint64_t arena, std::uint64_t offset, std::uint64_t epoch,
                        const nb::bytes& key) {
  Region region;
  region.base = pointer(address);
  region.arena = arena;
  region.offset = offset;
  region.length = length;
  region.epoch = epoch;
  region.key = to_key(key);
  region.writable = writable;
  return region;
}

inline Order order_of(std::uint64_t op, std::uint64_t address, std::uint64_t arena,
                      std::uint64_t offset, std::uint64_t length, std::uint64_t epoch,
                      const nb::bytes& key, int priority) {
  if (priority < 0 || priority >= kPriorities) throw std::invalid_argument("no such priority");
  Order order;
  order.op = op;
  order.source = pointer(address);
  order.dst = Destination{arena, offset, length, epoch, to_key(key)};
  order.priority = priority;
  return order;
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

// When a side began to wait, for the first one by posting, and when something had arrived:
// nanoseconds of the monotonic clock, which all processes of a machine share.
using Trip = std::pair<std::int64_t, std::int64_t>;

// Measures round trips on the real path: posts, waits until the answer has arrived at `mine`,
// and so on, `count` times; who is not `first` waits before it posts. The first one sleeps for
// `pause_ns` before each. Nobody else may use the connection meanwhile: events of other transfers
// are lost.
template <typename End>
std::vector<Trip> measure_trips(End& end, Order order, const Key& mine, std::size_t count,
                                bool first, std::int64_t pause_ns) {
  std::vector<Trip> trips;
  trips.reserve(count);
  std::vector<Event> events;
  const std::int64_t limit = now_ns() + 60'000'000'000;
  for (std::size_t i = 0; i < count && now_ns() < limit; ++i) {
    if (first && pause_ns > 0) std::this_thread::sleep_for(std::chrono::nanoseconds(pause_ns));
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
    trips.emplace_back(begin, now_ns());
    if (!first) end.post(order);
  }
  return trips;
}

// The calls that connections of both kinds take alike. `Held` owns an Endpoint or a Channel, its
// end().
template <typename Held>
nb::class_<Held> bind_connection(nb::module_& m, const char* name) {
  using namespace nb::literals;
  using Free = nb::call_guard<nb::gil_scoped_release>;
  return nb::class_<Held>(m, name)
      .def("fileno", [](Held& self) { return self.end().events().fd(); })
      .def(
          "withdraw",
          [](Held& self, const nb::bytes& bytes) {
            const Key key = to_key(bytes);
            const nb::gil_scoped_release free;
            return self.end().withdraw(key);
          },
          "key"_a)
      .def(
          "fence", [](Held& self, std::uint64_t epoch) { self.end().fence(epoch); }, Free(),
          "epoch"_a)
      .def(
          "cancel", [](Held& self, std::uint64_t op) { return self.end().cancel(op); }, Free(),
          "op"_a)
      .def(
          "alarm", [](Held& self, std::int64_t ns) { self.end().alarm(ns); }, Free(), "delay_ns"_a)
      .def(
          "poll",
          [](Held& self, std::int64_t timeout_ns) {
            std::vector<Event> events;
            {
              const nb::gil_scoped_release free;
              self.end().poll(events, timeout_ns);
            }
            return to_python(events, self.end().events());
          },
          "timeout_ns"_a,
          nb::sig("def poll(self, timeout_ns: int) -> list[tuple[int, int, int, int, Any]]"))
      .def(
          "ping",
          [](Held& self, std::uint64_t address, std::uint64_t arena, std::uint64_t offset,
             std::uint64_t length, std::uint64_t epoch, const nb::bytes& there,
             const nb::bytes& here, std::size_t count, bool first, std::int64_t pause_ns) {
            const Key mine = to_key(here);
            const Order order = order_of(0, address, arena, offset, length, epoch, there, 0);
            const nb::gil_scoped_release free;
            return measure_trips(self.end(), order, mine, count, first, pause_ns);
          },
          "address"_a, "arena"_a, "offset"_a, "length"_a, "epoch"_a, "there"_a, "here"_a, "count"_a,
          "first"_a, "pause_ns"_a)
      .def("pending", [](Held& self) { return self.end().events().pending(); })
      .def(
          "wake", [](Held& self) { self.end().wake(); }, Free())
      .def(
          "hold", [](Held& self, bool yes) { self.end().hold(yes); }, Free(), "yes"_a)
      .def(
          "close", [](Held& self) { self.end().close(); }, Free())
      .def(
          "join", [](Held& self) { self.end().join(); }, Free());
}

// Adds the classes of the datagram transports to _core.
void bind_datagram(nb::module_& m);

}  // namespace genie
