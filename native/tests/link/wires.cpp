#include "pairs.h"

namespace genie::test {

std::vector<std::pair<const char*, Make>> wires() {
  return {
      {"shm", [] { return shm_pair(); }},
      {"tcp", [] { return tcp_pair(false); }},
      {"tcp sealed", [] { return tcp_pair(true); }},
      {"tcp, 4 streams", [] { return tcp_pair(false, 4); }},
      {"tcp sealed, 4 streams", [] { return tcp_pair(true, 4); }},
  };
}

}  // namespace genie::test
