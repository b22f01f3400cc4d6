// Ports over DPDK's ethdev: any poll-mode driver. A part of its own, so that a machine without
// DPDK loads everything else.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "genie/port.h"

namespace genie::datagram {

struct EalOptions {
  enum class Pages { Auto, Huge, Ordinary };
  Pages pages = Pages::Auto;
  unsigned memory_mb = 256;
  // PCI devices that DPDK may take, by address; all others are left to the kernel.
  std::vector<std::string> pci;
  unsigned log_level = 4;  // warnings and worse
};

// DPDK's environment, once a process. It cannot be ended and begun again.
class Eal {
 public:
  // False, and `error` names the cause and the remedy. True as well when it runs already.
  static bool start(const EalOptions& options, Code& why, std::string& error);
  static bool running();
  static const char* version();
  // Whether it took huge pages.
  static bool huge();
};

struct DpdkOptions {
  std::string device;     // as hotplug names it: net_memif0, net_af_packet0, 0000:01:00.0
  std::string arguments;  // of a virtual device
  std::size_t mtu = 1500;
  std::uint16_t descriptors = 1024;  // of each direction; the driver may want fewer
  std::size_t buffer_bytes = 0;      // what a packet buffer must hold, beyond the frame: 0, nothing
  std::size_t receive_bytes = 0;     // what waits unread below the driver; 0: its descriptors
  unsigned buffers = 0;              // packets in the port's pool; 0: enough for everything
  std::string interface;             // of the kernel, whose carrier counts; "": the driver's
};

// The options of the drivers that need no card. `number` tells devices of one kind apart. Errors
// name the interface, what is wrong with it, and the remedy.
//
// Shared memory between two processes: the server makes the socket, and must come first.
DpdkOptions memif_device(int number, const std::string& socket, bool server, std::size_t mtu);
// A kernel interface of this network namespace through a packet socket, or through AF_XDP. It
// must be up, its MTU must do, and it must not carry an address: the kernel would answer too.
bool af_packet_device(int number, const std::string& interface, std::size_t mtu,
                      DpdkOptions& options, Code& why, std::string& error);
bool af_xdp_device(int number, const std::string& interface, std::size_t mtu, DpdkOptions& options,
                   Code& why, std::string& error);
// What is sent comes back: both sessions of a pair on one port.
DpdkOptions ring_device(int number, std::size_t mtu);

class DpdkPort final : public Port {
 public:
  // Plugs the device in, configures one queue each way and starts it. Null, and `why` and `error`,
  // when there is no such device, no permission or no memory, or when it cannot carry the MTU.
  static std::unique_ptr<DpdkPort> open(const DpdkOptions& options, Code& why, std::string& error);
  ~DpdkPort() override;

  const PortTraits& traits() const override { return traits_; }
  PortCounters counters() const override;
  void enter() override;
  std::size_t receive(std::span<Received> out) override;
  bool acquire(SendSlot& slot) override;
  void commit(const SendSlot& slot, std::size_t size, const Flow& flow) override;
  void abandon(const SendSlot& slot) override;
  std::size_t flush() override;
  bool up() override;

  const std::array<std::uint8_t, 6>& mac() const { return mac_; }
  // Takes the link down or up, where the driver can.
  bool set_link(bool up);
  static bool set_device_link(const std::string& device, bool up);
  // Only datagrams to this address and UDP port are taken from now on (network byte order).
  void listen(std::uint32_t ip, std::uint16_t udp);

 private:
  DpdkPort() = default;
  bool configure(const DpdkOptions& options, Code& why, std::string& error);
  void watch(bool connected);
  bool accept(const std::byte* frame, std::size_t size, Received& out) const;
  std::size_t burst();

  static constexpr std::size_t kPending = 2 * kBurst;

  PortTraits traits_;
  PortCounters counters_;
  std::array<std::uint8_t, 6> mac_{};
  std::string device_;
  std::string interface_;
  int carrier_fd_ = -1;   // a socket of the interface's namespace
  void* pool_ = nullptr;  // rte_mempool
  std::uint16_t port_ = 0xffff;
  bool started_ = false;
  bool guarded_ = false;   // the driver unmaps memory behind our back
  bool hurrying_ = false;  // waits for its peer
  int owner_pid_ = 0;
  std::uint32_t ip_ = 0;
  std::uint16_t udp_ = 0;
  void* shown_[kBurst] = {};  // what the last receive() handed out
  std::size_t shown_count_ = 0;
  void* pending_[kPending] = {};
  std::size_t pending_count_ = 0;
  void* spare_[kBurst] = {};  // taken from the pool many at a time
  std::size_t spare_count_ = 0;
};

}  // namespace genie::datagram
