// The datagram protocol as Python sees it: a poller for each port, a channel for each session.
// Calls that take a lock, wait or copy release the GIL.
#include <arpa/inet.h>
#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <stdexcept>
#include <utility>

#include "convert.h"
#include "genie/fault_port.h"
#include "genie/poller.h"
#include "genie/ring_port.h"
#include "genie/seam.h"

namespace genie {

using namespace nb::literals;
using datagram::Channel;
using datagram::Code;
using datagram::FaultRates;
using datagram::Poller;

namespace {

using Free = nb::call_guard<nb::gil_scoped_release>;

// An address and UDP port as Python writes them: six bytes, four bytes, a number.
struct Address {
  std::array<std::uint8_t, 6> mac{};
  std::uint32_t ip = 0;
  std::uint16_t udp = 0;
};

Address address_of(const nb::bytes& mac, const nb::bytes& ip, std::uint16_t udp) {
  if (mac.size() != 6 || ip.size() != 4) throw std::invalid_argument("6 bytes MAC, 4 bytes IPv4");
  Address out;
  std::memcpy(out.mac.data(), mac.data(), 6);
  std::memcpy(&out.ip, ip.data(), 4);
  out.udp = htons(udp);
  return out;
}

std::shared_ptr<Poller> start(std::unique_ptr<datagram::Port> port, const FaultRates& rates,
                              std::uint64_t seed) {
  if (!datagram::Faults(rates, seed).changes_nothing()) {
    port = std::make_unique<datagram::FaultPort>(std::move(port), rates, seed);
  }
  std::string error;
  std::shared_ptr<Poller> poller = Poller::start(std::move(port), error);
  if (poller == nullptr) throw std::runtime_error(error);
  return poller;
}

std::shared_ptr<Poller> start_port(const nb::capsule& capsule, const FaultRates& rates,
                                   std::uint64_t seed) {
  const char* name = capsule.name();
  if (name == nullptr || std::strcmp(name, datagram::PortSeam::kName) != 0) {
    throw std::invalid_argument("not a port");
  }
  auto* port = datagram::PortSeam::take(static_cast<datagram::PortSeam*>(capsule.data()));
  if (port == nullptr) {
    throw std::invalid_argument("the port was taken already, or made by another build");
  }
  const nb::gil_scoped_release free;
  return start(std::unique_ptr<datagram::Port>(port), rates, seed);
}

std::pair<std::shared_ptr<Poller>, std::shared_ptr<Poller>> start_rings(std::size_t slots,
                                                                        std::size_t max_datagram,
                                                                        const FaultRates& rates,
                                                                        std::uint64_t seed) {
  if (slots < 4 || slots > 65536 || (slots & (slots - 1)) != 0 ||
      max_datagram < datagram::kMinDatagram || max_datagram > datagram::kMaxDatagram) {
    throw std::invalid_argument("slots or datagrams out of range");
  }
  auto [left, right] = datagram::RingPort::pair(slots, max_datagram);
  return {start(std::move(left), rates, seed), start(std::move(right), rates, seed + 1)};
}

// Bytes of a session that both sides must name alike go into its keys: the same secret gives
// other keys to another epoch, or to another pair of connections.
bool keys_of(datagram::SessionOptions& options, const nb::bytes& send, const nb::bytes& receive) {
  const auto derive = [&](const nb::bytes& secret, std::uint32_t from, std::uint32_t to,
                          datagram::AesKey& out) {
    std::array<std::byte, 12> context{};
    store(context.data(), options.epoch);
    store(context.data() + 4, from);
    store(context.data() + 8, to);
    return datagram::derive_key(span_of(secret), context, out);
  };
  return derive(send, options.local_connection, options.peer_connection, options.send_key) &&
         derive(receive, options.peer_connection, options.local_connection, options.receive_key);
}

// One session; see Channel. The poller lives as long as any of its sessions.
class Session {
 public:
  Session(std::shared_ptr<Poller> poller, std::unique_ptr<Channel> channel)
      : poller_(std::move(poller)), channel_(std::move(channel)) {}
  ~Session() {
    const nb::gil_scoped_release free;
    channel_.reset();
    poller_.reset();
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  Channel& end() { return *channel_; }

  // False when the session has ended, or when the region cannot be.
  bool add(std::uint64_t address, std::uint64_t length, bool writable, std::uint64_t arena,
           std::uint64_t offset, std::uint64_t epoch, const nb::bytes& key) {
    const Region region = region_of(address, length, writable, arena, offset, epoch, key);
    const nb::gil_scoped_release free;
    return channel_->add(region);
  }

  void post(std::uint64_t op, std::uint64_t address, std::uint64_t arena, std::uint64_t offset,
            std::uint64_t length, std::uint64_t epoch, const nb::bytes& key, int priority) {
    const Order order = order_of(op, address, arena, offset, length, epoch, key, priority);
    const nb::gil_scoped_release free;
    const Code code = channel_->post(order);
    // A session that has ended says so with Lost, for all that it had and was given.
    if (code == Code::BadHandle || code == Code::BadOption || code == Code::QueueFull) {
      channel_->events().failed(op, static_cast<std::uint16_t>(code), 0);
    }
  }

  nb::tuple counters() {
    datagram::SessionCounters found;
    {
      const nb::gil_scoped_release free;
      found = channel_->counters();
    }
    return nb::make_tuple(found.bytes_sent, found.bytes_received, found.in_flight,
                          found.peak_in_flight, found.datagrams_sent);
  }

  nb::dict details() {
    datagram::SessionCounters found;
    {
      const nb::gil_scoped_release free;
      found = channel_->counters();
    }
    nb::dict out;
    out["datagrams_received"] = found.datagrams_received;
    out["bytes_landed"] = found.bytes_landed;
    out["bytes_lost"] = found.bytes_lost;
    out["probes"] = found.probes;
    out["rejected"] = found.rejected;
    out["duplicates"] = found.duplicates;
    out["dropped"] = found.dropped;
    out["window"] = found.window;
    out["rtt_ns"] = found.rtt;
    out["base_rtt_ns"] = found.base_rtt;
    return out;
  }

 private:
  std::shared_ptr<Poller> poller_;
  std::unique_ptr<Channel> channel_;
};

std::shared_ptr<Session> open_session(const std::shared_ptr<Poller>& poller, const nb::tuple& local,
                                      const nb::tuple& peer, std::uint32_t local_connection,
                                      std::uint32_t peer_connection, std::uint32_t epoch,
                                      bool sealed, const nb::bytes& send, const nb::bytes& receive,
                                      std::size_t max_datagram, std::uint64_t window,
                                      std::uint64_t peer_window, std::int64_t stall_ns,
                                      std::size_t queue, bool shared_path) {
  const auto unpack = [](const nb::tuple& at) {
    return address_of(nb::cast<nb::bytes>(at[0]), nb::cast<nb::bytes>(at[1]),
                      nb::cast<std::uint16_t>(at[2]));
  };
  const Address from = unpack(local), to = unpack(peer);
  datagram::Flow flow;
  flow.local_mac = from.mac;
  flow.peer_mac = to.mac;
  flow.local_ip = from.ip;
  flow.peer_ip = to.ip;
  flow.local_udp = from.udp;
  flow.peer_udp = to.udp;
  datagram::SessionOptions options;
  options.protection = sealed ? datagram::Protection::Aes128Gcm : datagram::Protection::Crc32c;
  options.local_connection = local_connection;
  options.peer_connection = peer_connection;
  options.epoch = epoch;
  options.max_datagram = max_datagram;
  options.window = window;
  options.peer_window = peer_window;
  options.shared_path = shared_path;
  options.stall_timeout = stall_ns < 0 ? 0 : static_cast<std::uint64_t>(stall_ns);
  options.queue = queue;
  if (sealed) {
    if (send.size() < 16 || receive.size() < 16) {
      throw std::invalid_argument("a secret has at least 16 bytes");
    }
    if (!keys_of(options, send, receive)) throw std::runtime_error("the crypto library refuses");
  }
  Code why = Code::Ok;
  std::unique_ptr<Channel> channel;
  {
    const nb::gil_scoped_release free;
    channel = poller->open(options, flow, why);
  }
  if (why == Code::BadOption) throw std::invalid_argument(datagram::describe(why));
  if (channel == nullptr) throw std::runtime_error(datagram::describe(why));
  return std::make_shared<Session>(poller, std::move(channel));
}

nb::tuple port_counters(Poller& poller) {
  datagram::PortCounters found;
  {
    const nb::gil_scoped_release free;
    found = poller.counters();
  }
  return nb::make_tuple(found.received, found.sent, found.foreign, found.missed, found.exhausted);
}

}  // namespace

void bind_datagram(nb::module_& m) {
  nb::class_<FaultRates>(m, "FaultRates")
      .def(
          "__init__",
          [](FaultRates* self, double drop, double duplicate, double late, double truncate,
             double flip, std::uint64_t lateness_ns, std::uint64_t delay_ns) {
            for (const double rate : {drop, duplicate, late, truncate, flip}) {
              if (!(rate >= 0 && rate <= 1)) throw std::invalid_argument("a rate is 0 to 1");
            }
            new (self) FaultRates{drop, duplicate, late, truncate, flip, lateness_ns, delay_ns};
          },
          "drop"_a = 0.0, "duplicate"_a = 0.0, "late"_a = 0.0, "truncate"_a = 0.0, "flip"_a = 0.0,
          "lateness_ns"_a = 0, "delay_ns"_a = 0);
  nb::class_<Poller>(m, "Poller")
      .def_static("start", &start_port, "port"_a, "faults"_a, "seed"_a)
      .def_static("rings", &start_rings, Free(), "slots"_a, "max_datagram"_a, "faults"_a, "seed"_a)
      .def_prop_ro("driver", [](const Poller& p) { return p.traits().name; })
      .def_prop_ro("max_datagram", [](const Poller& p) { return p.traits().max_datagram; })
      .def_prop_ro(
          "credit",
          [](const Poller& p) { return datagram::credit_of(p.traits(), p.traits().max_datagram); })
      .def_prop_ro("wakes", [](const Poller& p) { return p.traits().wake_fd >= 0; })
      .def("open", &open_session, "local"_a, "peer"_a, "local_connection"_a, "peer_connection"_a,
           "epoch"_a, "sealed"_a, "send"_a, "receive"_a, "max_datagram"_a, "window"_a,
           "peer_window"_a, "stall_ns"_a, "queue"_a, "shared_path"_a)
      .def("counters", &port_counters,
           nb::sig("def counters(self) -> tuple[int, int, int, int, int]"))
      .def("up", &Poller::up, Free())
      .def("stop", &Poller::stop, Free());
  bind_connection<Session>(m, "Channel")
      .def("add", &Session::add, "address"_a, "length"_a, "writable"_a, "arena"_a, "offset"_a,
           "epoch"_a, "key"_a)
      .def("post", &Session::post, "op"_a, "address"_a, "arena"_a, "offset"_a, "length"_a,
           "epoch"_a, "key"_a, "priority"_a)
      .def_prop_ro("max_datagram", [](Session& s) { return s.end().max_datagram(); })
      .def("counters", &Session::counters,
           nb::sig("def counters(self) -> tuple[int, int, int, int, int]"))
      .def("details", &Session::details, nb::sig("def details(self) -> dict[str, int]"))
      .def(
          "unfinished", [](Session& s) { return s.end().unfinished(); }, Free())
      .def(
          "finished", [](Session& s, std::uint64_t n) { return s.end().finished(n); }, Free(),
          "message"_a);
}

}  // namespace genie
