// _core: the native transports as Python sees them. Hot calls take integers; everything that
// copies, waits or takes a lock releases the GIL.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "convert.h"
#include "genie/arena.h"
#include "genie/endpoint.h"
#include "genie/shm.h"
#include "genie/tcp.h"
#include "genie/ucx.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace genie {
namespace {

using Free = nb::call_guard<nb::gil_scoped_release>;

// Where the bytes of a buffer stand. The caller keeps the buffer alive.
std::uint64_t address_of(const nb::object& buffer) {
  Py_buffer view;
  if (PyObject_GetBuffer(buffer.ptr(), &view, PyBUF_SIMPLE) != 0) throw nb::python_error();
  const auto address = reinterpret_cast<std::uint64_t>(view.buf);
  PyBuffer_Release(&view);
  return address;
}

std::shared_ptr<Arena> make_arena(std::size_t bytes, bool huge) {
  std::string error;
  std::shared_ptr<Arena> arena = Arena::create(bytes, huge, error);
  if (arena == nullptr) throw std::runtime_error(error);
  return arena;
}

// A view of all of the arena, which stays as long as the view.
nb::object view_of(const nb::object& self) {
  auto& arena = nb::cast<Arena&>(self);
  const std::size_t shape[1] = {arena.size()};
  return nb::cast(nb::ndarray<nb::memview, std::uint8_t, nb::ndim<1>, nb::device::cpu>(
      arena.data(), 1, shape, self));
}

// One end of a native connection; see Endpoint. Events come as (type, code, a, b, key or text).
class Port {
 public:
  Port(std::uint64_t window, std::uint32_t chunk, std::int64_t stall_ns) {
    if (chunk < kMinChunk || chunk > kMaxChunk || window < 2ull * chunk || window > 1ull << 30 ||
        stall_ns <= 0) {
      throw std::invalid_argument("limits out of range");
    }
    endpoint_ = std::make_unique<Endpoint>(Terms{window, chunk, stall_ns});
    std::string error;
    if (!endpoint_->start(error)) throw std::runtime_error(error);
  }
  ~Port() {
    const nb::gil_scoped_release free;
    endpoint_.reset();
  }
  Port(const Port&) = delete;
  Port& operator=(const Port&) = delete;

  Endpoint& end() { return *endpoint_; }

  void add(std::uint64_t address, std::uint64_t length, bool writable, std::uint64_t arena,
           std::uint64_t offset, std::uint64_t epoch, const nb::bytes& key) {
    const Region region = region_of(address, length, writable, arena, offset, epoch, key);
    const nb::gil_scoped_release free;
    endpoint_->add(region);
  }

  void post(std::uint64_t op, std::uint64_t address, std::uint64_t arena, std::uint64_t offset,
            std::uint64_t length, std::uint64_t epoch, const nb::bytes& key, int priority) {
    const Order order = order_of(op, address, arena, offset, length, epoch, key, priority);
    const nb::gil_scoped_release free;
    endpoint_->post(order);
  }

  void stand(std::uint64_t op, std::uint64_t address, std::uint64_t arena, std::uint64_t offset,
             std::uint64_t length, std::uint64_t epoch, const nb::bytes& key, int priority,
             int trigger) {
    const Order order = order_of(op, address, arena, offset, length, epoch, key, priority);
    std::string error;
    bool stands = false;
    {
      const nb::gil_scoped_release free;
      stands = endpoint_->stand(order, trigger, error);
    }
    if (!stands) throw std::runtime_error(error);
  }

  void conclude(std::uint64_t op) {
    const nb::gil_scoped_release free;
    endpoint_->conclude(op);
  }

  bool hang(const nb::bytes& bytes, int eventfd) {
    const Key key = to_key(bytes);
    const nb::gil_scoped_release free;
    return endpoint_->hang(key, eventfd);
  }

  nb::tuple carried(std::uint64_t op) {
    Carried found;
    {
      const nb::gil_scoped_release free;
      found = endpoint_->carried(op);
    }
    return nb::make_tuple(found.times, found.ns);
  }

  std::uint64_t rings(const nb::bytes& bytes) {
    const Key key = to_key(bytes);
    const nb::gil_scoped_release free;
    return endpoint_->rings(key);
  }

  nb::tuple counters() {
    Counters found;
    {
      const nb::gil_scoped_release free;
      found = endpoint_->counters();
    }
    return nb::make_tuple(found.bytes_sent, found.bytes_received, found.in_flight,
                          found.peak_in_flight, found.sends);
  }

  // Takes the descriptor in any case. False when there is a peer already.
  bool attach_shm(int fd, const nb::bytes& greeting, std::uint64_t window, std::uint32_t chunk,
                  std::int64_t stall_ns, std::size_t ring) {
    std::string error;
    ShmOptions options;
    options.chunk = chunk;
    options.ring = ring;
    std::string text(greeting.c_str(), greeting.size());
    bool attached = false;
    bool made = false;
    {
      const nb::gil_scoped_release free;
      auto wire = ShmWire::create(fd, std::move(text), options, error);
      made = wire != nullptr;
      if (made) attached = endpoint_->attach(std::move(wire), Terms{window, chunk, stall_ns});
    }
    if (!made) throw std::runtime_error(error);
    return attached;
  }

  // Takes the descriptors in any case: the streams of one connection, each with two secrets (empty
  // for clear frames). False when there is a peer already.
  bool attach_tcp(const std::vector<int>& fds, const nb::bytes& greeting, std::uint64_t window,
                  std::uint32_t chunk, std::int64_t stall_ns, const std::vector<nb::bytes>& send,
                  const std::vector<nb::bytes>& receive) {
    std::vector<std::unique_ptr<TcpStream>> streams;
    for (const int fd : fds) streams.push_back(std::make_unique<TcpStream>(fd, chunk));
    if (streams.empty() || send.size() != fds.size() || receive.size() != fds.size()) {
      throw std::invalid_argument("each stream has two secrets");
    }
    const auto secret = [](const nb::bytes& bytes) {
      if (bytes.size() != 0 && bytes.size() < 16) {
        throw std::invalid_argument("a secret has at least 16 bytes");
      }
      return span_of(bytes);
    };
    for (std::size_t i = 0; i < streams.size(); ++i) {
      if (!streams[i]->start(secret(send[i]), secret(receive[i]))) {
        throw std::runtime_error("the crypto library refuses AES-128-GCM");
      }
    }
    streams[0]->greet(std::string(greeting.c_str(), greeting.size()));
    auto wire = std::make_unique<TcpWire>(std::move(streams[0]));
    for (std::size_t i = 1; i < streams.size(); ++i) {
      if (!wire->add(std::move(streams[i]))) throw std::invalid_argument("too many streams");
    }
    const nb::gil_scoped_release free;
    return endpoint_->attach(std::move(wire), Terms{window, chunk, stall_ns});
  }

  // Takes the descriptor in any case. False when there is a peer already. `factory` is the
  // capsule of the module _ucx.
  bool attach_ucx(const nb::capsule& factory, int fd, const nb::bytes& greeting,
                  std::uint64_t window, std::uint32_t chunk, std::int64_t stall_ns, bool network,
                  bool loopback, bool sealed, const nb::bytes& send, const nb::bytes& receive) {
    const auto* found = static_cast<const UcxFactory*>(factory.data(kUcxCapsule));
    if (found == nullptr) throw nb::python_error();
    if (found->abi != kUcxAbi || found->size != sizeof(UcxFactory)) {
      throw std::runtime_error("_ucx and _core are of different builds");
    }
    if (send.size() < 16 || receive.size() < 16) {
      throw std::invalid_argument("a secret has at least 16 bytes");
    }
    const UcxSecrets secrets{span_of(send), span_of(receive), sealed};
    const UcxOptions options{network, loopback, 0};
    std::string text(greeting.c_str(), greeting.size());
    std::string error;
    bool made = false;
    bool attached = false;
    {
      const nb::gil_scoped_release free;
      auto wire = UcxWire::create(*found, fd, std::move(text), options, chunk, secrets, error);
      made = wire != nullptr;
      if (made) attached = endpoint_->attach(std::move(wire), Terms{window, chunk, stall_ns});
    }
    if (!made) throw std::runtime_error(error);
    return attached;
  }

  bool share(const std::shared_ptr<Arena>& arena) {
    const nb::gil_scoped_release free;
    return endpoint_->with_wire([&](Wire& wire) {
      auto* shm = dynamic_cast<ShmWire*>(&wire);
      return shm != nullptr && shm->share(arena);
    });
  }

 private:
  std::unique_ptr<Endpoint> endpoint_;
};

}  // namespace
}  // namespace genie

NB_MODULE(_core, m) {
  using genie::Port;
  m.doc() = "The native transports.";
  genie::bind_datagram(m);
  // What a program still holds when it ends is its own business, and no leak.
  nb::set_leak_warnings(false);
  m.def("address_of", &genie::address_of, "buffer"_a);
  nb::class_<genie::Arena>(m, "Arena")
      .def(nb::new_(&genie::make_arena), genie::Free(), "nbytes"_a, "huge"_a = true)
      .def_prop_ro("nbytes", &genie::Arena::size)
      .def_prop_ro("huge", &genie::Arena::huge)
      .def_prop_ro("view", &genie::view_of, nb::sig("def view(self) -> memoryview"));
  genie::bind_connection<Port>(m, "Port")
      .def(nb::init<std::uint64_t, std::uint32_t, std::int64_t>(), "window"_a, "chunk"_a,
           "stall_ns"_a)
      .def("add", &Port::add, "address"_a, "length"_a, "writable"_a, "arena"_a, "offset"_a,
           "epoch"_a, "key"_a)
      .def("post", &Port::post, "op"_a, "address"_a, "arena"_a, "offset"_a, "length"_a, "epoch"_a,
           "key"_a, "priority"_a)
      .def("stand", &Port::stand, "op"_a, "address"_a, "arena"_a, "offset"_a, "length"_a, "epoch"_a,
           "key"_a, "priority"_a, "trigger"_a)
      .def("conclude", &Port::conclude, "op"_a)
      .def("hang", &Port::hang, "key"_a, "eventfd"_a)
      .def("carried", &Port::carried, "op"_a,
           nb::sig("def carried(self, op: int) -> tuple[int, int]"))
      .def("rings", &Port::rings, "key"_a)
      .def("counters", &Port::counters,
           nb::sig("def counters(self) -> tuple[int, int, int, int, int]"))
      .def("attach_shm", &Port::attach_shm, "fd"_a, "greeting"_a, "window"_a, "chunk"_a,
           "stall_ns"_a, "ring"_a)
      .def("attach_tcp", &Port::attach_tcp, "fds"_a, "greeting"_a, "window"_a, "chunk"_a,
           "stall_ns"_a, "send"_a, "receive"_a)
      .def("attach_ucx", &Port::attach_ucx, "factory"_a, "fd"_a, "greeting"_a, "window"_a,
           "chunk"_a, "stall_ns"_a, "network"_a, "loopback"_a, "sealed"_a, "send"_a, "receive"_a)
      .def("share", &Port::share, "arena"_a);
}
