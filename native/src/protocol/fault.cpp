#include "genie/fault.h"

namespace genie::datagram {

Faults::Verdict Faults::decide() {
  Verdict verdict;
  if (random_.chance(rates_.drop)) {
    verdict.copies = 0;
    return verdict;
  }
  if (random_.chance(rates_.duplicate)) verdict.copies = 2;
  for (unsigned i = 0; i < verdict.copies; ++i) {
    verdict.late[i] = rates_.delay;
    if (random_.chance(rates_.late)) verdict.late[i] += random_.below(rates_.lateness + 1);
  }
  return verdict;
}

std::size_t Faults::damage(std::span<std::byte> datagram) {
  if (random_.chance(rates_.flip) && !datagram.empty()) {
    for (std::uint64_t n = 1 + random_.below(4); n > 0; --n) {
      datagram[random_.below(datagram.size())] ^= std::byte{1} << random_.below(8);
    }
  }
  return random_.chance(rates_.truncate) ? random_.below(datagram.size()) : datagram.size();
}

bool Faults::changes_nothing() const {
  return rates_.drop == 0 && rates_.duplicate == 0 && rates_.late == 0 && rates_.truncate == 0 &&
         rates_.flip == 0 && rates_.delay == 0;
}

}  // namespace genie::datagram
