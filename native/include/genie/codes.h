// Why an operation, a session or a port failed. The numbers are those of the GENnnnn errors that
// Python raises, so nothing is translated on the way up.
#pragma once

#include <cstdint>

namespace genie::datagram {

enum class Code : std::uint16_t {
  Ok = 0,
  BadOption = 602,
  PeerClosed = 610,     // the peer said goodbye
  Closed = 611,         // this side closed
  QueueFull = 614,      // too many operations are outstanding
  PeerSilent = 615,     // nothing was heard of the peer for the stall timeout
  BadHandle = 622,      // sizes that cannot be
  NoDestination = 623,  // withdrawn, or never this session's
  StaleEpoch = 624,
  OutOfRange = 625,
  ReadOnly = 626,
  Busy = 627,          // another unfinished transfer writes the same bytes
  Violation = 631,     // an authentic datagram that no correct peer sends
  KeyExhausted = 640,  // as many datagrams as one key may seal
  PortDown = 641,
  PortUnusable = 642,  // no such device, no permission, too small a frame; the text says which
  NoMemory = 643,
  EnvironmentRefused = 645,  // DPDK did not start, or runs with other options
  NoHugePages = 646,
  BadInterface = 647,  // not there, down, or too small an MTU
  OwnAddress = 648,    // the interface carries an address of this host
  NoPermission = 649,
};

// What happened, in words for a log or an error's message.
const char* describe(Code code);

}  // namespace genie::datagram
