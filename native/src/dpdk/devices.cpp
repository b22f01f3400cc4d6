#include <ifaddrs.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "genie/dpdk.h"

namespace genie::datagram {

namespace {

constexpr std::size_t kFrameExtra = 14 + 128;  // Ethernet, and what a packet socket puts before it
constexpr std::size_t kMaxRingFrame = 63 << 10;  // a packet buffer holds less than 64 KiB
constexpr std::size_t kKernelRing = 32 << 20;    // memory of each direction's ring
constexpr std::size_t kMaxXdpMtu = 1700;         // AF_XDP: larger frames vanish on a veth

bool usable(const std::string& interface, std::size_t mtu, Code& why, std::string& error) {
  why = Code::BadInterface;
  if (interface.empty() || interface.size() >= IFNAMSIZ ||
      interface.find_first_of(",= /") != std::string::npos) {
    error.assign("not the name of an interface: ").append(interface, 0, 32);
    return false;
  }
  ifreq request{};
  std::memcpy(request.ifr_name, interface.data(), interface.size());
  const int fd = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    error = std::string("socket: ") + std::strerror(errno);
    return false;
  }
  const int raw = ::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
  if (raw < 0 && (errno == EPERM || errno == EACCES)) {
    ::close(fd);
    why = Code::NoPermission;
    error = interface + ": packet sockets need CAP_NET_RAW and CAP_NET_ADMIN";
    return false;
  }
  if (raw >= 0) ::close(raw);
  const bool has_flags = ::ioctl(fd, SIOCGIFFLAGS, &request) == 0;
  const unsigned flags = static_cast<unsigned short>(request.ifr_flags);
  const bool has_mtu = has_flags && ::ioctl(fd, SIOCGIFMTU, &request) == 0;
  const int actual = request.ifr_mtu;
  ::close(fd);
  if (!has_flags || !has_mtu) {
    error = interface + ": no such interface in this network namespace";
    return false;
  }
  if ((flags & IFF_UP) == 0) {
    error = interface + " is down: ip link set " + interface + " up";
    return false;
  }
  if (actual < 0 || static_cast<std::size_t>(actual) < mtu) {
    error = interface + " has an MTU of " + std::to_string(actual) + ", not " +
            std::to_string(mtu) + ": ip link set " + interface + " mtu " + std::to_string(mtu);
    return false;
  }
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) {
    error = std::string("getifaddrs: ") + std::strerror(errno);
    return false;
  }
  bool own = false;
  for (const ifaddrs* at = list; at != nullptr; at = at->ifa_next) {
    own = own || (at->ifa_addr != nullptr && at->ifa_addr->sa_family == AF_INET &&
                  interface == at->ifa_name);
  }
  ::freeifaddrs(list);
  if (own) {
    why = Code::OwnAddress;
    error = interface +
            " carries an address of this host: give the data plane an interface of "
            "its own (a VLAN, a virtual function, or a veth)";
    return false;
  }
  return true;
}

}  // namespace

DpdkOptions memif_device(int number, const std::string& socket, bool server, std::size_t mtu) {
  DpdkOptions options;
  options.device = "net_memif" + std::to_string(number);
  options.mtu = mtu;
  // Zero-copy stays off: with memory from elsewhere it crashes the peer. One buffer a frame, and
  // no more frames than the second-level cache holds: a deeper ring is slower, not faster. What is
  // sent beyond it waits at the sender, so that credit for twice as much keeps the ring full.
  options.descriptors = 512;
  options.arguments = std::string("role=") + (server ? "server" : "client") +
                      ",socket-abstract=no,socket=" + socket +
                      ",rsize=8,bsize=" + std::to_string((mtu + 14 + 63) & ~std::size_t{63});
  return options;
}

bool af_packet_device(int number, const std::string& interface, std::size_t mtu,
                      DpdkOptions& options, Code& why, std::string& error) {
  // The driver takes frames for adjacent, so blocks have to be whole frames and whole pages.
  const std::size_t frame = (mtu + kFrameExtra + 1023) & ~std::size_t{1023};
  if (frame > kMaxRingFrame) {
    why = Code::PortUnusable;
    error = "a packet buffer holds an MTU of " + std::to_string(kMaxRingFrame - kFrameExtra) +
            " at most";
    return false;
  }
  if (!usable(interface, mtu, why, error)) return false;
  options.interface = interface;
  const std::size_t blocks = std::min<std::size_t>(kKernelRing / (4 * frame), 512);
  options.device = "net_af_packet" + std::to_string(number);
  options.mtu = mtu;
  options.arguments = "iface=" + interface + ",qpairs=1,blocksz=" + std::to_string(4 * frame) +
                      ",framesz=" + std::to_string(frame) +
                      ",framecnt=" + std::to_string(4 * blocks);
  options.buffer_bytes = frame;
  options.receive_bytes = 4 * blocks * mtu;
  return true;
}

bool af_xdp_device(int number, const std::string& interface, std::size_t mtu, DpdkOptions& options,
                   Code& why, std::string& error) {
  if (mtu > kMaxXdpMtu) {
    why = Code::PortUnusable;
    error = "AF_XDP carries an MTU of " + std::to_string(kMaxXdpMtu) + " at most";
    return false;
  }
  if (!usable(interface, mtu, why, error)) return false;
  options.interface = interface;
  options.device = "net_af_xdp" + std::to_string(number);
  options.mtu = mtu;
  options.arguments = "iface=" + interface;
  options.buffer_bytes = 2048;  // the least that the kernel takes
  return true;
}

DpdkOptions ring_device(int number, std::size_t mtu) {
  DpdkOptions options;
  options.device = "net_ring" + std::to_string(number);
  options.mtu = mtu;
  return options;
}

}  // namespace genie::datagram
