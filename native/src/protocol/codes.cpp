#include "genie/codes.h"

namespace genie::datagram {

const char* describe(Code code) {
  switch (code) {
    case Code::Ok:
      return "done";
    case Code::BadOption:
      return "an option is out of range";
    case Code::PeerClosed:
      return "the peer closed the connection";
    case Code::Closed:
      return "closed from this side";
    case Code::QueueFull:
      return "too many transfers are outstanding";
    case Code::PeerSilent:
      return "nothing was heard of the peer";
    case Code::BadHandle:
      return "a handle whose sizes cannot be";
    case Code::NoDestination:
      return "the peer has no such destination: it was withdrawn or never was this session's";
    case Code::StaleEpoch:
      return "the destination's epoch is over";
    case Code::OutOfRange:
      return "the range leaves the destination";
    case Code::ReadOnly:
      return "the destination is read-only";
    case Code::Busy:
      return "another unfinished transfer is writing the same destination";
    case Code::Violation:
      return "an authentic datagram that no correct peer sends";
    case Code::KeyExhausted:
      return "the session's key has sealed as many datagrams as it may";
    case Code::PortDown:
      return "the port has lost its carrier";
    case Code::PortUnusable:
      return "the port cannot carry this session";
    case Code::NoMemory:
      return "no memory or descriptors are left";
    case Code::EnvironmentRefused:
      return "DPDK did not start";
    case Code::NoHugePages:
      return "there are too few huge pages";
    case Code::BadInterface:
      return "the interface cannot be used";
    case Code::OwnAddress:
      return "the interface carries an address of this host";
    case Code::NoPermission:
      return "the process may not do that";
  }
  return "unknown";
}

}  // namespace genie::datagram
