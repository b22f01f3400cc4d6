// _dpdk: makes ports over DPDK's ethdev, which _core drives. Loaded only when a device is asked
// for, so that a machine without DPDK's libraries uses everything else.
#include "genie/dpdk.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>
#include <sched.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>

#include "genie/seam.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace genie::datagram {
namespace {

// What went wrong: the number of the GENnnnn, and the words.
struct Problem {
  Code code = Code::Ok;
  std::string text;
};

nb::tuple told(const Problem& problem) {
  return nb::make_tuple(static_cast<int>(problem.code), problem.text);
}

// Runs `work` in a thread of the network namespace that `path` names ("" for this one). Sockets
// that it opens stay there.
void within(const std::string& path, Problem& problem, const std::function<void()>& work) {
  if (path.empty()) return work();
  try {
    std::thread([&] {
      const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
      if (fd < 0) {
        problem = {Code::BadInterface, path + ": " + std::strerror(errno)};
        return;
      }
      const int entered = ::setns(fd, CLONE_NEWNET);
      const int why = errno;
      ::close(fd);
      if (entered != 0) {
        problem = {why == EPERM ? Code::NoPermission : Code::BadInterface,
                   path + ": " + std::strerror(why)};
        return;
      }
      work();
    }).join();
  } catch (const std::system_error& failure) {
    problem = {Code::NoMemory, failure.what()};
  }
}

nb::tuple start(const std::string& pages, unsigned memory_mb, const std::vector<std::string>& pci) {
  EalOptions options;
  options.pages = pages == "huge"       ? EalOptions::Pages::Huge
                  : pages == "ordinary" ? EalOptions::Pages::Ordinary
                                        : EalOptions::Pages::Auto;
  options.memory_mb = memory_mb;
  options.pci = pci;
  Problem problem;
  const nb::gil_scoped_release free;
  if (!Eal::start(options, problem.code, problem.text)) {
    const nb::gil_scoped_acquire hold;
    return told(problem);
  }
  const nb::gil_scoped_acquire hold;
  return told({});
}

void destroy(Port* port) { delete port; }

void drop(void* data) noexcept {
  std::unique_ptr<PortSeam> seam(static_cast<PortSeam*>(data));
  if (seam->port != nullptr) destroy(seam->port);
}

// (0, "", port, MAC, MTU) or (code, text).
nb::tuple open_port(const std::string& kind, int number, const std::string& where, bool server,
                    std::size_t mtu, const nb::bytes& ip, std::uint16_t udp,
                    const std::string& netns) {
  if (ip.size() != 4) throw std::invalid_argument("an IPv4 address has 4 bytes");
  std::uint32_t address = 0;
  std::memcpy(&address, ip.data(), 4);
  Problem problem;
  std::unique_ptr<DpdkPort> port;
  const auto work = [&] {
    DpdkOptions options;
    if (kind == "net_ring") {
      options = ring_device(number, mtu);
    } else if (kind == "net_memif") {
      options = memif_device(number, where, server, mtu);
    } else if (kind == "net_af_packet") {
      if (!af_packet_device(number, where, mtu, options, problem.code, problem.text)) return;
    } else if (kind == "net_af_xdp") {
      if (!af_xdp_device(number, where, mtu, options, problem.code, problem.text)) return;
    } else {
      options.device = where;
      options.mtu = mtu;
    }
    port = DpdkPort::open(options, problem.code, problem.text);
    if (port != nullptr) port->listen(address, htons(udp));
  };
  {
    const nb::gil_scoped_release free;
    within(netns, problem, work);
  }
  if (port == nullptr) return told(problem);
  const nb::bytes mac(reinterpret_cast<const char*>(port->mac().data()), 6);
  auto seam = std::make_unique<PortSeam>();
  seam->destroy = &destroy;
  seam->port = port.release();
  const nb::capsule capsule(seam.release(), PortSeam::kName, &drop);
  return nb::make_tuple(0, "", capsule, mac, mtu);
}

}  // namespace
}  // namespace genie::datagram

NB_MODULE(_dpdk, m) {
  using namespace genie::datagram;
  m.doc() = "Ports over DPDK.";
  m.def("version", &Eal::version);
  m.def("running", &Eal::running);
  m.def("huge", &Eal::huge);
  m.def("start", &start, "pages"_a, "memory_mb"_a, "pci"_a,
        nb::sig("def start(pages: str, memory_mb: int, pci: list[str]) -> tuple[int, str]"));
  m.def("open", &open_port, "kind"_a, "number"_a, "where"_a, "server"_a, "mtu"_a, "ip"_a, "udp"_a,
        "netns"_a,
        nb::sig("def open(kind: str, number: int, where: str, server: bool, mtu: int, ip: bytes, "
                "udp: int, netns: str) -> tuple[Any, ...]"));
  m.def("set_link", &DpdkPort::set_device_link, "device"_a, "up"_a);
}
