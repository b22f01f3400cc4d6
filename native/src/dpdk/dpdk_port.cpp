#include <dirent.h>
#include <net/if.h>
#include <rte_bus.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <set>

#include "genie/dpdk.h"
#include "headers.h"
#include "interrupt_guard.h"

namespace genie::datagram {

namespace {

rte_mbuf* packet(void* pointer) { return static_cast<rte_mbuf*>(pointer); }
rte_mbuf** packets(void** pointers) { return reinterpret_cast<rte_mbuf**>(pointers); }
rte_mempool* pool_of(void* pointer) { return static_cast<rte_mempool*>(pointer); }

// The AF_PACKET sockets of this process: the driver does not say which one is its own.
std::set<int> packet_sockets() {
  std::set<int> found;
  DIR* folder = ::opendir("/proc/self/fd");
  if (folder == nullptr) return found;
  while (const dirent* entry = ::readdir(folder)) {
    const int fd = std::atoi(entry->d_name);
    int domain = 0;
    socklen_t size = sizeof domain;
    if (fd > 2 && ::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 &&
        domain == AF_PACKET) {
      found.insert(fd);
    }
  }
  ::closedir(folder);
  return found;
}

// A thread that calls DPDK gets a logical core, and with it a cache of every pool.
struct Registration {
  Registration() { mine = rte_lcore_id() == LCORE_ID_ANY && rte_thread_register() == 0; }
  ~Registration() {
    if (mine) rte_thread_unregister();
  }
  bool mine = false;
};

bool virtual_device(const std::string& name) { return name.find(':') == std::string::npos; }

// Packets one behind the other. rte_pktmbuf_pool_create aligns them to pages where there are no
// huge ones, for devices that need to see each in one physical piece: AF_XDP's driver then declares
// less memory to the kernel than the pool spans, and what lies beyond cannot be sent.
rte_mempool* dense_pool(const char* name, unsigned buffers, unsigned cache, std::uint16_t room) {
  rte_mempool* pool = rte_mempool_create_empty(
      name, buffers, static_cast<unsigned>(sizeof(rte_mbuf)) + room, cache,
      sizeof(rte_pktmbuf_pool_private), SOCKET_ID_ANY, RTE_MEMPOOL_F_NO_IOVA_CONTIG);
  if (pool == nullptr) return nullptr;
  rte_pktmbuf_pool_private shape{};
  shape.mbuf_data_room_size = room;
  rte_pktmbuf_pool_init(pool, &shape);
  if (const int code = rte_mempool_populate_default(pool); code < 0) {
    rte_mempool_free(pool);
    rte_errno = -code;
    return nullptr;
  }
  rte_mempool_obj_iter(pool, rte_pktmbuf_init, nullptr);
  return pool;
}

}  // namespace

std::unique_ptr<DpdkPort> DpdkPort::open(const DpdkOptions& options, Code& why,
                                         std::string& error) {
  why = Code::PortUnusable;
  if (!Eal::running()) {
    error = "DPDK has not been started";
    return nullptr;
  }
  if (options.mtu < kMinDatagram + kIpBytes + kUdpBytes || options.mtu > 65535 ||
      options.descriptors < 64) {
    error = "the MTU is 540 to 65535 bytes, and there are at least 64 descriptors";
    return nullptr;
  }
  std::uint16_t taken = 0;
  if (rte_eth_dev_get_port_by_name(options.device.c_str(), &taken) == 0) {
    error = options.device + ": is in use in this process already";
    return nullptr;
  }
  std::unique_ptr<DpdkPort> port(new DpdkPort());
  port->owner_pid_ = ::getpid();
  const std::set<int> before = packet_sockets();
  const int plugged = rte_eal_hotplug_add(virtual_device(options.device) ? "vdev" : "pci",
                                          options.device.c_str(), options.arguments.c_str());
  if (plugged != 0) {
    // Most drivers say -1 for whatever failed: that is no answer about permission.
    const bool vague = plugged == -1;
    error = options.device + ": " + (vague ? "the driver refuses it" : std::strerror(-plugged));
    if (plugged == -EACCES || (vague && ::geteuid() != 0)) why = Code::NoPermission;
    if (plugged == -ENOMEM) why = Code::NoMemory;
    return nullptr;
  }
  port->device_ = options.device;
  if (rte_eth_dev_get_port_by_name(options.device.c_str(), &port->port_) != 0) {
    error = options.device + ": the driver made no port";
    return nullptr;
  }
  if (!port->configure(options, why, error)) return nullptr;
  std::set<int> after = packet_sockets();
  for (const int fd : before) after.erase(fd);
  if (port->traits_.name == "net_af_packet" && after.size() == 1) {
    port->traits_.wake_fd = *after.begin();
  }
  if (!options.interface.empty()) {
    port->interface_ = options.interface;
    port->carrier_fd_ = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  }
  why = Code::Ok;
  return port;
}

bool DpdkPort::configure(const DpdkOptions& options, Code& why, std::string& error) {
  const auto failed = [&](const char* what, int code) {
    error = device_ + ": " + what + ": " + std::strerror(code < 0 ? -code : code);
    if (code == ENOMEM || code == -ENOMEM) why = Code::NoMemory;
    return false;
  };
  rte_eth_dev_info info{};
  if (const int code = rte_eth_dev_info_get(port_, &info)) return failed("info", code);
  traits_.name = info.driver_name;
  // These take frames of any size, or of what the kernel's interface was set to.
  const bool sizeless =
      traits_.name == "net_memif" || traits_.name == "net_ring" || traits_.name == "net_af_packet";
  if (!sizeless && info.max_mtu != 0 && options.mtu > info.max_mtu) {
    error = device_ + ": carries an MTU of " + std::to_string(info.max_mtu) + " at most";
    return false;
  }
  rte_eth_conf conf{};
  if (const int code = rte_eth_dev_configure(port_, 1, 1, &conf)) return failed("configure", code);
  if (!sizeless) {
    const int code = rte_eth_dev_set_mtu(port_, static_cast<std::uint16_t>(options.mtu));
    if (code != 0 && code != -ENOTSUP) return failed("MTU", code);
  }
  std::uint16_t receive = options.descriptors, send = options.descriptors;
  rte_eth_dev_adjust_nb_rx_tx_desc(port_, &receive, &send);
  const std::size_t frame = std::max(options.mtu + kEthernetBytes, options.buffer_bytes);
  if (frame + RTE_PKTMBUF_HEADROOM > 65535) {
    error = device_ + ": frames beyond 65 KB do not fit a buffer";
    return false;
  }
  const std::string name = "genie" + std::to_string(port_);
  // Enough for both rings and everything in hand: then the pool is never what runs out first.
  const unsigned buffers =
      options.buffers != 0 ? options.buffers : 2u * receive + send + 8 * kBurst;
  const unsigned cache = options.buffers != 0 ? 0 : 2 * kBurst;
  const auto room = static_cast<std::uint16_t>(frame + RTE_PKTMBUF_HEADROOM);
  pool_ = virtual_device(device_)
              ? dense_pool(name.c_str(), buffers, cache, room)
              : rte_pktmbuf_pool_create(name.c_str(), buffers, cache, 0, room, SOCKET_ID_ANY);
  if (pool_ == nullptr) return failed("buffers", rte_errno);
  if (const int code =
          rte_eth_rx_queue_setup(port_, 0, receive, SOCKET_ID_ANY, nullptr, pool_of(pool_))) {
    return failed("receive queue", code);
  }
  if (const int code = rte_eth_tx_queue_setup(port_, 0, send, SOCKET_ID_ANY, nullptr)) {
    return failed("send queue", code);
  }
  if (traits_.name == "net_memif") {
    if (!InterruptGuard::begin()) return failed("interrupts", ENOMEM);
    guarded_ = true;
    watch(false);
  }
  const InterruptGuard::Hold apart(guarded_);
  if (const int code = rte_eth_dev_start(port_)) {
    // memif's driver says -1 for every way in which a client finds nobody.
    if (!guarded_ || code != -1) return failed("start", code);
    error = device_ + ": no server listens on the socket";
    return false;
  }
  started_ = true;
  rte_ether_addr address{};
  if (const int code = rte_eth_macaddr_get(port_, &address)) return failed("address", code);
  std::memcpy(mac_.data(), address.addr_bytes, 6);

  traits_.max_datagram = std::min(options.mtu - kIpBytes - kUdpBytes, kMaxDatagram);
  traits_.receive_bytes = options.receive_bytes != 0
                              ? options.receive_bytes
                              : static_cast<std::size_t>(receive) * traits_.max_datagram;
  return true;
}

DpdkPort::~DpdkPort() {
  // A forked child that closes the port would close its parent's.
  if (::getpid() != owner_pid_) return;
  if (guarded_) watch(true);
  {
    // What is closed here may be what the interrupt thread is just connecting or disconnecting.
    const InterruptGuard::Hold apart(guarded_);
    if (shown_count_ != 0)
      rte_pktmbuf_free_bulk(packets(shown_), static_cast<unsigned>(shown_count_));
    if (pending_count_ != 0) {
      rte_pktmbuf_free_bulk(packets(pending_), static_cast<unsigned>(pending_count_));
    }
    if (spare_count_ != 0)
      rte_pktmbuf_free_bulk(packets(spare_), static_cast<unsigned>(spare_count_));
    if (started_) rte_eth_dev_stop(port_);
    if (port_ != 0xffff) rte_eth_dev_close(port_);
    if (!device_.empty()) {
      rte_eal_hotplug_remove(virtual_device(device_) ? "vdev" : "pci", device_.c_str());
    }
    rte_mempool_free(pool_of(pool_));
  }
  if (guarded_) InterruptGuard::settle();
  if (carrier_fd_ >= 0) ::close(carrier_fd_);
}

void DpdkPort::enter() { static thread_local const Registration registration; }

void DpdkPort::listen(std::uint32_t ip, std::uint16_t udp) {
  ip_ = ip;
  udp_ = udp;
}

bool DpdkPort::up() {
  if (carrier_fd_ >= 0) {
    // Drivers over a kernel interface call it up for as long as it exists.
    ifreq request{};
    std::memcpy(request.ifr_name, interface_.data(), interface_.size());
    if (::ioctl(carrier_fd_, SIOCGIFFLAGS, &request) != 0) return false;
    return (request.ifr_flags & IFF_UP) != 0 && (request.ifr_flags & IFF_RUNNING) != 0;
  }
  const InterruptGuard::Hold apart(guarded_);
  rte_eth_link link{};
  const bool connected = rte_eth_link_get_nowait(port_, &link) != 0 || link.link_status != 0;
  if (guarded_) watch(connected);
  return connected;
}

void DpdkPort::watch(bool connected) {
  if (hurrying_ == !connected) return;
  hurrying_ = !connected;
  InterruptGuard::hurry(hurrying_);
}

bool DpdkPort::set_link(bool up) {
  return (up ? rte_eth_dev_set_link_up(port_) : rte_eth_dev_set_link_down(port_)) == 0;
}

bool DpdkPort::set_device_link(const std::string& device, bool up) {
  std::uint16_t port = 0;
  if (rte_eth_dev_get_port_by_name(device.c_str(), &port) != 0) return false;
  return (up ? rte_eth_dev_set_link_up(port) : rte_eth_dev_set_link_down(port)) == 0;
}

PortCounters DpdkPort::counters() const {
  PortCounters out = counters_;
  rte_eth_stats stats{};
  if (rte_eth_stats_get(port_, &stats) == 0) out.missed = stats.imissed + stats.rx_nombuf;
  return out;
}

std::size_t DpdkPort::receive(std::span<Received> out) {
  if (shown_count_ != 0)
    rte_pktmbuf_free_bulk(packets(shown_), static_cast<unsigned>(shown_count_));
  {
    const InterruptGuard::Hold hold(guarded_);
    shown_count_ = rte_eth_rx_burst(port_, 0, packets(shown_),
                                    static_cast<std::uint16_t>(std::min(out.size(), kBurst)));
  }
  std::size_t count = 0;
  for (std::size_t i = 0; i < shown_count_; ++i) {
    const rte_mbuf* m = packet(shown_[i]);
    if (m->nb_segs == 1 &&
        read_headers(rte_pktmbuf_mtod(m, const std::byte*), m->data_len, ip_, udp_, out[count])) {
      ++count;
    } else {
      ++counters_.foreign;
    }
  }
  counters_.received += count;
  return count;
}

bool DpdkPort::acquire(SendSlot& slot) {
  if (pending_count_ == kPending) burst();
  if (pending_count_ < kPending && spare_count_ == 0 &&
      rte_pktmbuf_alloc_bulk(pool_of(pool_), packets(spare_), kBurst) == 0) {
    spare_count_ = kBurst;
  }
  if (pending_count_ == kPending || spare_count_ == 0) {
    ++counters_.exhausted;
    return false;
  }
  slot.token = spare_[--spare_count_];
  slot.data = rte_pktmbuf_mtod(packet(slot.token), std::byte*) + kFrameHead;
  return true;
}

void DpdkPort::abandon(const SendSlot& slot) { spare_[spare_count_++] = slot.token; }

// One buffer a packet, always. Chaining the source behind a header saves no time: the sum has to
// read it first, and doing that while copying is faster. It also sends garbage on AF_XDP.
void DpdkPort::commit(const SendSlot& slot, std::size_t size, const Flow& flow) {
  rte_mbuf* m = packet(slot.token);
  write_headers(rte_pktmbuf_mtod(m, std::byte*), flow, size);
  m->data_len = static_cast<std::uint16_t>(kFrameHead + size);
  m->pkt_len = m->data_len;
  pending_[pending_count_++] = m;
  ++counters_.sent;
  if (pending_count_ % kBurst == 0) burst();
}

std::size_t DpdkPort::burst() {
  const InterruptGuard::Hold hold(guarded_);
  const std::uint16_t sent =
      rte_eth_tx_burst(port_, 0, packets(pending_), static_cast<std::uint16_t>(pending_count_));
  if (sent != 0) {
    std::memmove(pending_, pending_ + sent, (pending_count_ - sent) * sizeof(void*));
    pending_count_ -= sent;
  }
  return pending_count_;
}

std::size_t DpdkPort::flush() { return pending_count_ == 0 ? 0 : burst(); }

}  // namespace genie::datagram
