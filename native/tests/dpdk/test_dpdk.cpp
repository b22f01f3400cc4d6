// DPDK ports within one process. DPDK starts once, so these cases share it and run in order.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "genie/dpdk.h"
#include "genie/fault.h"
#include "genie/fault_port.h"
#include "genie/poller.h"

using namespace genie;
using namespace genie::datagram;

namespace {

constexpr std::uint32_t kIp = 0x0100007f;
constexpr std::uint16_t kUdp = 0x1234;

// Both sessions on one port that gives back what it is given.
struct Loop {
  Loop(int number, Protection protection, const FaultRates& rates, unsigned buffers = 0,
       Nanos stall = 10 * kSecond) {
    DpdkOptions options = ring_device(number, 9000);
    options.buffers = buffers;
    Code why;
    std::string error;
    auto made = DpdkPort::open(options, why, error);
    REQUIRE_MESSAGE(made, error);
    device = made.get();
    made->listen(kIp, kUdp);
    Flow flow;
    flow.local_mac = flow.peer_mac = made->mac();
    flow.local_ip = flow.peer_ip = kIp;
    flow.local_udp = flow.peer_udp = kUdp;
    const std::size_t datagram = made->traits().max_datagram;
    // Half of the ring for each direction.
    const std::uint64_t credit = credit_of(made->traits(), datagram) / 2;
    std::unique_ptr<Port> port = std::move(made);
    if (rates.drop != 0 || rates.flip != 0) {
      port = std::make_unique<FaultPort>(std::move(port), rates, 3);
    }
    poller = Poller::start(std::move(port), error);
    REQUIRE_MESSAGE(poller, error);
    for (int i = 0; i < 2; ++i) {
      SessionOptions session;
      session.protection = protection;
      session.send_key.fill(static_cast<std::byte>(i + 1));
      session.receive_key.fill(static_cast<std::byte>(2 - i));
      session.local_connection = static_cast<std::uint32_t>(10 + i);
      session.peer_connection = static_cast<std::uint32_t>(11 - i);
      session.max_datagram = datagram;
      session.window = session.peer_window = credit;
      session.shared_path = false;
      session.stall_timeout = stall;
      channel[i] = poller->open(session, flow, why);
      REQUIRE_MESSAGE(channel[i], describe(why));
    }
  }
  ~Loop() {
    for (auto& c : channel) c.reset();
  }

  DpdkPort* device = nullptr;
  std::unique_ptr<Poller> poller;
  std::unique_ptr<Channel> channel[2];
};

struct Memory {
  explicit Memory(std::size_t size) : source(size), target(size) {
    Random random(1);
    for (std::size_t i = 0; i + 8 <= size; i += 8) store(source.data() + i, random.next());
    region.base = target.data();
    region.arena = 1;
    region.length = size;
    region.epoch = 1;
    region.key = Key{1, 2};
    region.writable = true;
  }
  Order order(std::uint64_t op) const {
    Order out;
    out.op = op;
    out.source = source.data();
    out.dst = {1, 0, source.size(), 1, region.key};
    return out;
  }

  std::vector<std::byte> source, target;
  Region region;
};

Code wait_for(Channel& channel, std::uint64_t op) {
  std::vector<Event> events;
  const Nanos limit = clock_now() + 60 * kSecond;
  while (clock_now() < limit) {
    events.clear();
    channel.poll(events, 100'000'000);
    for (const Event& event : events) {
      if (event.type == EventType::Completed && event.a == op) return Code::Ok;
      if (event.type == EventType::Failed && event.a == op) return static_cast<Code>(event.code);
    }
  }
  return Code::PeerSilent;
}

}  // namespace

TEST_CASE("what DPDK cannot be started with is said, and nothing is started") {
  std::string error;
  Code why;
  EalOptions options;
  options.pci = {"eth0"};
  CHECK_FALSE(Eal::start(options, why, error));
  CHECK(error.find("PCI address") != std::string::npos);
  options.pci.clear();
  options.memory_mb = 1;
  CHECK_FALSE(Eal::start(options, why, error));
  options.memory_mb = 1u << 20;
  options.pages = EalOptions::Pages::Huge;
  CHECK_FALSE(Eal::start(options, why, error));
  CHECK(error.find("vm.nr_hugepages") != std::string::npos);
  CHECK_FALSE(Eal::running());
  CHECK_FALSE(DpdkPort::open(ring_device(0, 9000), why, error));
  CHECK(why == Code::PortUnusable);
}

TEST_CASE("DPDK starts once, and leaves the calling thread where it was") {
  std::string error;
  cpu_set_t before, after;
  sched_getaffinity(0, sizeof before, &before);
  EalOptions options;
  options.memory_mb = 512;
  Code why;
  REQUIRE_MESSAGE(Eal::start(options, why, error), error);
  CHECK(Eal::start(options, why, error));
  sched_getaffinity(0, sizeof after, &after);
  CHECK(CPU_EQUAL(&before, &after));
  MESSAGE(Eal::version() << (Eal::huge() ? ", huge pages" : ", ordinary pages"));
}

TEST_CASE("devices that cannot be used: a cause and a remedy each") {
  Code why;
  std::string error;
  DpdkOptions options;
  options.device = "net_nonsense0";
  CHECK_FALSE(DpdkPort::open(options, why, error));
  CHECK(why == Code::PortUnusable);
  CHECK(error.find("net_nonsense0") != std::string::npos);
  CHECK_FALSE(af_packet_device(0, "nosuch0", 1500, options, why, error));
  CHECK(error.find("no such interface") != std::string::npos);
  CHECK_FALSE(af_packet_device(0, "lo", 1500, options, why, error));
  CHECK(error.find("carries an address") != std::string::npos);
  CHECK_FALSE(af_packet_device(0, "lo,qpairs=9", 1500, options, why, error));
  CHECK_FALSE(af_packet_device(0, "lo", 65000, options, why, error));
  CHECK_FALSE(af_xdp_device(0, "lo", 9000, options, why, error));
  CHECK(error.find("MTU of") != std::string::npos);
  options = ring_device(1, 100);
  CHECK_FALSE(DpdkPort::open(options, why, error));
  options = memif_device(1, "/nonexistent/folder/x.sock", false, 9000);
  CHECK_FALSE(DpdkPort::open(options, why, error));
}

TEST_CASE("64 MiB through a ring, without loss and with one percent") {
  double rates[2] = {};
  for (const int lossy : {0, 1}) {
    FaultRates faults;
    faults.drop = lossy ? 0.01 : 1e-12;  // the shim copies: it has to be in both
    Loop loop(2 + lossy, Protection::Crc32c, faults);
    Memory memory(64 << 20);
    REQUIRE(loop.channel[1]->add(memory.region));
    std::vector<double> times;
    for (std::uint64_t op = 1; op <= 5; ++op) {
      std::fill(memory.target.begin(), memory.target.end(), std::byte{0});
      const Nanos start = clock_now();
      REQUIRE(loop.channel[0]->post(memory.order(op)) == Code::Ok);
      REQUIRE(wait_for(*loop.channel[0], op) == Code::Ok);
      times.push_back(static_cast<double>(clock_now() - start));
      CHECK(memory.target == memory.source);
    }
    std::sort(times.begin(), times.end());
    rates[lossy] = static_cast<double>(64 << 20) / times[2];
  }
  MESSAGE(rates[0] << " GB/s, with 1 % loss " << rates[1] << ": " << rates[1] / rates[0]);
  CHECK(rates[1] / rates[0] > 0.5);
}

TEST_CASE("encrypted, and damaged on the way") {
  FaultRates faults;
  faults.drop = faults.flip = faults.truncate = faults.duplicate = faults.late = 0.01;
  faults.lateness = 200 * kMicro;
  Loop loop(4, Protection::Aes128Gcm, faults);
  Memory memory(16 << 20);
  REQUIRE(loop.channel[1]->add(memory.region));
  REQUIRE(loop.channel[0]->post(memory.order(1)) == Code::Ok);
  REQUIRE(wait_for(*loop.channel[0], 1) == Code::Ok);
  CHECK(memory.target == memory.source);
  CHECK(loop.channel[1]->counters().rejected > 0);
}

TEST_CASE("packet buffers that run out hold transfers up, and fail none") {
  Loop loop(5, Protection::Crc32c, {}, 100);
  Memory memory(16 << 20);
  REQUIRE(loop.channel[1]->add(memory.region));
  REQUIRE(loop.channel[0]->post(memory.order(1)) == Code::Ok);
  REQUIRE(wait_for(*loop.channel[0], 1) == Code::Ok);
  CHECK(memory.target == memory.source);
  CHECK(loop.poller->counters().exhausted > 0);
}

TEST_CASE("a link that comes back in time is forgiven; one that stays away ends the session") {
  Loop loop(6, Protection::Crc32c, {}, 0, 60 * kSecond);
  Memory memory(1 << 20);
  REQUIRE(loop.channel[1]->add(memory.region));
  REQUIRE(loop.device->set_link(false));
  std::vector<Event> events;
  const Nanos back = clock_now() + kSecond;
  while (clock_now() < back) loop.channel[0]->poll(events, 10'000'000);
  REQUIRE(loop.device->set_link(true));
  REQUIRE(loop.channel[0]->post(memory.order(1)) == Code::Ok);
  REQUIRE(wait_for(*loop.channel[0], 1) == Code::Ok);
  REQUIRE(loop.device->set_link(false));
  const Nanos start = clock_now();
  for (bool lost = false; !lost && clock_now() - start < 10 * kSecond;) {
    events.clear();
    loop.channel[0]->poll(events, 100'000'000);
    for (const Event& event : events) lost = lost || event.type == EventType::Lost;
  }
  CHECK(clock_now() - start < 8 * kSecond);
  CHECK(loop.channel[0]->post(memory.order(2)) == Code::PortDown);
}
