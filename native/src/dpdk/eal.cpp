#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_version.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <mutex>
#include <regex>
#include <system_error>
#include <thread>

#include "genie/dpdk.h"

namespace genie::datagram {

namespace {

std::atomic<bool> running_{false};
bool tried_ = false;
bool huge_ = false;
std::vector<std::string> pci_;
std::mutex lock_;

unsigned free_huge_mb() {
  std::ifstream file("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
  unsigned pages = 0;
  return file >> pages ? 2 * pages : 0;
}

// DPDK pins the thread that starts it; one logical core over all that we may use undoes that.
std::string cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return "0@(0)";
  std::string list = "0@(";
  bool first = true;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &set)) continue;
    if (!first) list.push_back(',');
    first = false;
    list.append(std::to_string(cpu));
  }
  list.push_back(')');
  return list;
}

}  // namespace

bool Eal::running() { return running_; }
const char* Eal::version() { return rte_version(); }
bool Eal::huge() { return huge_; }

bool Eal::start(const EalOptions& options, Code& why, std::string& error) {
  const std::lock_guard hold(lock_);
  why = Code::EnvironmentRefused;
  if (running_) {
    if (options.pages == EalOptions::Pages::Huge && !huge_) {
      error = "DPDK runs already in this process, on ordinary pages";
      return false;
    }
    for (const std::string& pci : options.pci) {
      if (std::find(pci_.begin(), pci_.end(), pci) == pci_.end()) {
        error = "DPDK runs already in this process, and may not take " + pci;
        return false;
      }
    }
    why = Code::Ok;
    return true;
  }
  if (tried_) {
    error = "DPDK failed to start before, and cannot be started twice in one process";
    return false;
  }
  // A bad argument makes DPDK print its whole usage on standard output: none gets that far.
  static const std::regex address("[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\\.[0-7]");
  for (const std::string& pci : options.pci) {
    if (!std::regex_match(pci, address)) {
      error = "not a PCI address: " + pci;
      return false;
    }
  }
  if (options.memory_mb < 64 || options.memory_mb > 1u << 20 || options.log_level > 8) {
    error = "memory is 64 MB to 1 TB, the log level 0 to 8";
    return false;
  }
  const bool enough = free_huge_mb() >= options.memory_mb;
  if (options.pages == EalOptions::Pages::Huge && !enough) {
    why = Code::NoHugePages;
    error = "needs " + std::to_string(options.memory_mb) + " MB of free huge pages, has " +
            std::to_string(free_huge_mb()) + ": raise vm.nr_hugepages, or allow ordinary pages";
    return false;
  }
  huge_ = options.pages == EalOptions::Pages::Huge ||
          (options.pages == EalOptions::Pages::Auto && enough);

  // DPDK keeps pointers to its arguments.
  static std::vector<std::string> arguments;
  arguments = {"genie", "--no-telemetry", "--lcores",
               cores(), "--log-level",    std::to_string(options.log_level)};
  if (huge_) {
    arguments.push_back("--in-memory");
  } else {
    arguments.insert(arguments.end(),
                     {"--no-huge", "--no-shconf", "-m", std::to_string(options.memory_mb)});
  }
  if (options.pci.empty()) arguments.push_back("--no-pci");
  for (const std::string& pci : options.pci) arguments.insert(arguments.end(), {"-a", pci});
  static std::vector<char*> pointers;
  pointers.clear();
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  pointers.push_back(nullptr);

  tried_ = true;
  int result = -1;
  int problem = 0;
  try {
    // In a thread of its own, because DPDK changes the affinity of the one that calls it.
    std::thread([&] {
      result = rte_eal_init(static_cast<int>(arguments.size()), pointers.data());
      problem = rte_errno;
    }).join();
  } catch (const std::system_error& failure) {
    error = failure.what();
    tried_ = false;
    return false;
  }
  if (result < 0) {
    error = std::string("rte_eal_init: ") + rte_strerror(problem);
    return false;
  }
  pci_ = options.pci;
  running_ = true;
  why = Code::Ok;
  return true;
}

}  // namespace genie::datagram
