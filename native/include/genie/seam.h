// How a port that was made in one extension module reaches another.
//
// _dpdk makes ports and _core drives them. Neither links the other: what crosses is a PyCapsule
// of this name with a PortSeam inside, which the taker checks before it believes anything.
#pragma once

#include <cstdint>
#include <utility>

#include "genie/port.h"

namespace genie::datagram {

struct PortSeam {
  static constexpr const char* kName = "genie_transport.port";
  // Raised whenever Port, or anything that its methods pass, changes.
  static constexpr std::uint32_t kAbi = 1;

  std::uint32_t abi = kAbi;
  std::uint32_t size = sizeof(PortSeam);
  std::uint32_t traits_size = sizeof(PortTraits);
  std::uint32_t counters_size = sizeof(PortCounters);
  Port* port = nullptr;  // the taker's; null when it was taken already
  void (*destroy)(Port*) = nullptr;

  // Null when the two modules were not built together, or the port is gone.
  static Port* take(PortSeam* seam) {
    if (seam == nullptr || seam->abi != kAbi || seam->size != sizeof(PortSeam) ||
        seam->traits_size != sizeof(PortTraits) || seam->counters_size != sizeof(PortCounters)) {
      return nullptr;
    }
    return std::exchange(seam->port, nullptr);
  }
};

}  // namespace genie::datagram
