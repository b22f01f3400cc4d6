// Two processes, one DPDK port each: a message of 64 MiB and back-and-forth of 64 bytes, checked
// and measured. Prints one JSON object a line.
//
//   dpdk_pair memif|veth [--mtu N] [--aead] [--bytes N] [--rounds N] [--kill] [--flap] [--pin]
//             [--driver af_packet|af_xdp]
//
// memif connects them through shared memory; veth through a pair of interfaces in two network
// namespaces that it makes and removes itself (needs root).
#include <arpa/inet.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "genie/dpdk.h"
#include "genie/fault.h"
#include "genie/poller.h"

using namespace genie;
using namespace genie::datagram;

namespace {

struct Options {
  std::string kind = "memif";
  std::size_t mtu = 9000;
  std::size_t bytes = 64 << 20;
  int rounds = 7;
  bool aead = false;
  bool kill = false;
  bool flap = false;
  bool pin = false;
  std::size_t pings = 20'000;
  std::size_t window = 8 << 20;
  std::uint16_t descriptors = 0;  // 0: what suits the device
  std::string driver = "af_packet";
};

// What a side tells the other over the control channel, here a socket pair.
struct Hello {
  std::uint8_t mac[6];
  std::uint64_t credit;
  Region region;
};

[[noreturn]] void die(const std::string& why) {
  std::fprintf(stderr, "dpdk_pair: %s\n", why.c_str());
  std::_Exit(1);
}

template <typename T>
void tell(int fd, const T& value) {
  if (::write(fd, &value, sizeof value) != sizeof value) die("the control channel broke");
}
template <typename T>
T hear(int fd) {
  T value{};
  if (::recv(fd, &value, sizeof value, MSG_WAITALL) != sizeof value) die("the other side is gone");
  return value;
}

void shell(const std::string& command, bool must = true) {
  if (std::system(command.c_str()) != 0 && must) die(command);
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

double copy_rate(std::byte* out, const std::byte* in, std::size_t bytes) {
  std::vector<double> rates;
  for (int i = 0; i < 5; ++i) {
    const Nanos start = clock_now();
    std::memcpy(out, in, bytes);
    rates.push_back(static_cast<double>(bytes) / static_cast<double>(clock_now() - start));
  }
  return median(rates);
}

std::byte* pages(std::size_t bytes) {
  void* at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (at == MAP_FAILED) die("no memory");
  ::madvise(at, bytes, MADV_HUGEPAGE);
  return static_cast<std::byte*>(at);
}

class Side {
 public:
  Side(const Options& options, int index, int control, const std::string& netns)
      : options_(options), index_(index), control_(control) {
    if (!netns.empty()) {
      const int fd = ::open(("/var/run/netns/" + netns).c_str(), O_RDONLY | O_CLOEXEC);
      if (fd < 0 || ::setns(fd, CLONE_NEWNET) != 0) die("cannot enter " + netns);
      ::close(fd);
    }
    std::string error;
    Code why;
    if (!Eal::start({}, why, error)) die(error);
    DpdkOptions port;
    const std::string interface = "genie" + std::to_string(index);
    if (options.kind == "memif") {
      port = memif_device(0, "/tmp/genie-memif-" + std::to_string(::getppid()) + ".sock",
                          index == 0, options.mtu);
    } else if (!(options.driver == "af_xdp"
                     ? af_xdp_device(0, interface, options.mtu, port, why, error)
                     : af_packet_device(0, interface, options.mtu, port, why, error))) {
      die(error);
    }
    if (options.descriptors != 0) port.descriptors = options.descriptors;
    // A memif client that finds no server fails at once.
    if (index == 1) hear<char>(control);
    auto made = DpdkPort::open(port, why, error);
    if (made == nullptr) die(error);
    if (index == 0) tell(control, 'x');
    hello_.credit = credit_of(made->traits(), made->traits().max_datagram);
    std::memcpy(hello_.mac, made->mac().data(), 6);
    made->listen(address(index), htons(4000));
    name_ = made->traits().name;
    datagram_ = made->traits().max_datagram;
    for (int i = 0; i < 5000 && !made->up(); ++i) ::usleep(1000);
    if (!made->up()) die("no carrier");
    poller_ = Poller::start(std::move(made), error);
    if (poller_ == nullptr) die(error);
  }

  void connect() {
    memory_ = pages(options_.bytes);
    Random random(static_cast<std::uint64_t>(index_) + 1);
    for (std::size_t i = 0; i + 8 <= options_.bytes; i += 8) {
      store<std::uint64_t>(memory_ + i, random.next());
    }
    inbox_ = pages(options_.bytes);
    region_.base = inbox_;
    region_.arena = 1;
    region_.length = options_.bytes;
    region_.epoch = 1;
    region_.key = Key{static_cast<std::uint64_t>(index_) + 5, 6};
    region_.writable = true;
    small_ = region_;
    small_.arena = 2;
    small_.length = 64;
    small_.key.high = 7;
    hello_.region = region_;
    tell(control_, hello_);
    peer_ = hear<Hello>(control_);

    SessionOptions session;
    session.protection = options_.aead ? Protection::Aes128Gcm : Protection::Crc32c;
    session.send_key.fill(static_cast<std::byte>(index_ + 1));
    session.receive_key.fill(static_cast<std::byte>(2 - index_));
    session.local_connection = static_cast<std::uint32_t>(100 + index_);
    session.peer_connection = static_cast<std::uint32_t>(101 - index_);
    session.max_datagram = datagram_;
    session.window = options_.window;
    session.shared_path = false;
    session.peer_window = std::min<std::uint64_t>(options_.window, peer_.credit);
    session.stall_timeout = options_.kill ? kSecond : 10 * kSecond;
    Flow flow;
    std::memcpy(flow.local_mac.data(), hello_.mac, 6);
    std::memcpy(flow.peer_mac.data(), peer_.mac, 6);
    flow.local_ip = address(index_);
    flow.peer_ip = address(1 - index_);
    flow.local_udp = flow.peer_udp = htons(4000);
    Code why;
    channel_ = poller_->open(session, flow, why);
    if (channel_ == nullptr) die(describe(why));
    if (!channel_->add(region_) || !channel_->add(small_)) die("cannot register");
    tell(control_, 1);
    hear<int>(control_);
  }

  void post(std::uint64_t op, const Region& region, std::size_t bytes, int priority) {
    Order order;
    order.op = op;
    order.source = memory_;
    order.dst = {region.arena, 0, bytes, region.epoch, region.key};
    order.priority = priority;
    const Code code = channel_->post(order);
    if (code != Code::Ok) die(describe(code));
  }

  // Until `op` has ended, or with op 0 until something has arrived.
  void wait(std::uint64_t op) {
    for (;;) {
      events_.clear();
      channel_->poll(events_, 1'000'000'000);
      for (const Event& event : events_) {
        if (event.type == EventType::Lost)
          die(std::string("lost: ") + channel_->events().lost_text());
        if (event.type == EventType::Failed) die(describe(static_cast<Code>(event.code)));
        if (op == 0 ? event.type == EventType::Arrived
                    : event.type == EventType::Completed && event.a == op) {
          return;
        }
      }
    }
  }

  void first() {
    std::vector<double> rates, copies;
    std::byte* scratch = pages(options_.bytes);
    for (int i = 0; i < options_.rounds; ++i) {
      copies.push_back(copy_rate(scratch, memory_, options_.bytes));
      const Nanos start = clock_now();
      post(1 + static_cast<std::uint64_t>(i), peer_.region, options_.bytes, 1);
      wait(1 + static_cast<std::uint64_t>(i));
      const double rate =
          static_cast<double>(options_.bytes) / static_cast<double>(clock_now() - start);
      rates.push_back(rate);
      tell(control_, crc32c(0, memory_, options_.bytes));
      if (hear<int>(control_) != 1) die("the bytes differ");
      memory_[static_cast<std::size_t>(i)] ^= std::byte{1};
    }
    const SessionCounters c = channel_->counters();
    std::printf(
        "{\"case\": \"%s/%zu%s\", \"mtu\": %zu, \"GB/s\": %.3f, \"best\": %.3f, \"memcpy\": %.3f, "
        "\"ratio\": %.3f, \"lost_bytes\": %lu, \"probes\": %lu, \"rtt_us\": %.1f, \"base_us\": "
        "%.1f, \"window\": %lu}\n",
        name_.c_str(), options_.bytes, options_.aead ? "/aead" : "", options_.mtu, median(rates),
        *std::max_element(rates.begin(), rates.end()), median(copies),
        median(rates) / median(copies), c.bytes_lost, c.probes, static_cast<double>(c.rtt) / 1e3,
        static_cast<double>(c.base_rtt) / 1e3, c.window);
    std::vector<double> trips;
    Region to = peer_.region;
    to.arena = 2;
    to.key.high = 7;
    std::uint64_t op = 1000;
    for (std::size_t i = 0; i < options_.pings; ++i) {
      const Nanos start = clock_now();
      post(++op, to, 64, 0);
      wait(0);
      trips.push_back(static_cast<double>(clock_now() - start) / 1e3);
    }
    std::sort(trips.begin(), trips.end());
    std::printf("{\"case\": \"%s/64B%s\", \"p50_us\": %.2f, \"p90_us\": %.2f, \"p99_us\": %.2f}\n",
                name_.c_str(), options_.aead ? "/aead" : "", trips[trips.size() / 2],
                trips[trips.size() * 9 / 10], trips[trips.size() * 99 / 100]);
    std::fflush(stdout);
  }

  void second() {
    for (int i = 0; i < options_.rounds; ++i) {
      wait(0);
      const auto expected = hear<std::uint32_t>(control_);
      const int same = crc32c(0, inbox_, options_.bytes) == expected ? 1 : 0;
      std::memset(inbox_, 0, options_.bytes);
      tell(control_, same);
    }
    Region to = peer_.region;
    to.arena = 2;
    to.key.high = 7;
    for (std::uint64_t i = 0; i < options_.pings; ++i) {
      wait(0);
      post(i + 1, to, 64, 0);
    }
    wait(options_.pings);
  }

  // The peer is killed in the middle of a message: the post must fail, typed and in time.
  void outlive() {
    post(1, peer_.region, options_.bytes, 1);
    tell(control_, 1);
    const Nanos start = clock_now();
    for (;;) {
      events_.clear();
      channel_->poll(events_, 1'000'000'000);
      for (const Event& event : events_) {
        if (event.type == EventType::Completed) die("completed, but its receiver is dead");
        if (event.type == EventType::Lost) {
          std::printf("{\"case\": \"%s/killed peer\", \"code\": %u, \"seconds\": %.3f}\n",
                      name_.c_str(), event.code, static_cast<double>(clock_now() - start) / 1e9);
          return;
        }
      }
    }
  }

  void finish() { channel_.reset(); }

 private:
  static std::uint32_t address(int index) {
    return htonl(0x0a630001u + static_cast<unsigned>(index));
  }

  Options options_;
  int index_;
  int control_;
  std::string name_;
  std::size_t datagram_ = 0;
  std::unique_ptr<Poller> poller_;
  std::unique_ptr<Channel> channel_;
  Hello hello_{};
  Hello peer_{};
  Region region_{}, small_{};
  std::byte* memory_ = nullptr;
  std::byte* inbox_ = nullptr;
  std::vector<Event> events_;
};

Options parse(int count, char** words) {
  Options options;
  if (count > 1) options.kind = words[1];
  for (int i = 2; i < count; ++i) {
    const std::string word = words[i];
    const auto number = [&] { return i + 1 < count ? std::strtoul(words[++i], nullptr, 10) : 0; };
    if (word == "--mtu")
      options.mtu = number();
    else if (word == "--bytes")
      options.bytes = number();
    else if (word == "--rounds")
      options.rounds = static_cast<int>(number());
    else if (word == "--window")
      options.window = number();
    else if (word == "--descriptors")
      options.descriptors = static_cast<std::uint16_t>(number());
    else if (word == "--driver" && i + 1 < count)
      options.driver = words[++i];
    else if (word == "--aead")
      options.aead = true;
    else if (word == "--kill")
      options.kill = true;
    else if (word == "--flap")
      options.flap = true;
    else if (word == "--pin")
      options.pin = true;
    else if (word == "--pings")
      options.pings = number();
    else
      die("unknown option " + word);
  }
  if (options.kind != "memif" && options.kind != "veth") die("memif or veth");
  return options;
}

}  // namespace

int main(int count, char** words) {
  const Options options = parse(count, words);
  const std::string base = "genie-" + std::to_string(::getpid());
  std::string spaces[2];
  if (options.kind == "veth") {
    if (::geteuid() != 0) {
      std::fprintf(stderr, "dpdk_pair: veth needs root\n");
      return 77;
    }
    for (int i = 0; i < 2; ++i) {
      spaces[i] = base + "-" + std::to_string(i);
      shell("ip netns add " + spaces[i]);
    }
    shell("ip -n " + spaces[0] + " link add genie0 type veth peer name genie1 netns " + spaces[1]);
    for (int i = 0; i < 2; ++i) {
      const std::string at = "ip -n " + spaces[i] + " link set genie" + std::to_string(i);
      shell(at + " mtu " + std::to_string(options.mtu));
      shell(at + " up");
    }
  }
  int control[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM, 0, control) != 0) die("socketpair");
  pid_t children[2];
  for (int i = 0; i < 2; ++i) {
    children[i] = ::fork();
    if (children[i] != 0) continue;
    ::close(control[1 - i]);
    if (options.pin) {
      cpu_set_t set;
      CPU_ZERO(&set);
      CPU_SET(static_cast<unsigned>(i), &set);
      if (::sched_setaffinity(0, sizeof set, &set) != 0) die("cannot pin");
    }
    Side side(options, i, control[i], spaces[i]);
    side.connect();
    if (options.kill) {
      if (i == 0) {
        side.outlive();
      } else {
        hear<int>(control[1]);
        ::kill(::getpid(), SIGKILL);
      }
    } else if (i == 0) {
      side.first();
    } else {
      side.second();
    }
    side.finish();
    std::fflush(stdout);
    std::_Exit(0);
  }
  ::close(control[0]);
  ::close(control[1]);
  int failed = 0;
  // Half a second without a carrier, twice, while messages are under way.
  for (int i = 0; options.flap && i < 2; ++i) {
    const std::string link = "ip -n " + spaces[i] + " link set genie" + std::to_string(i);
    ::usleep(1'500'000);
    shell(link + " down");
    ::usleep(500'000);
    shell(link + " up");
  }
  for (int i = 0; i < 2; ++i) {
    int status = 0;
    ::waitpid(children[i], &status, 0);
    const bool killed = options.kill && i == 1 && WIFSIGNALED(status);
    if (!killed && (!WIFEXITED(status) || WEXITSTATUS(status) != 0)) failed = 1;
  }
  for (const std::string& space : spaces) {
    if (!space.empty()) shell("ip netns del " + space, false);
  }
  ::unlink(("/tmp/genie-memif-" + std::to_string(::getpid()) + ".sock").c_str());
  return failed;
}
