// Ethernet, IPv4 and UDP in front of a datagram. No options, no fragments; UDP's own sum is left
// out, because the datagram carries a better one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "genie/port.h"

namespace genie::datagram {

inline constexpr std::size_t kEthernetBytes = 14;
inline constexpr std::size_t kIpBytes = 20;
inline constexpr std::size_t kUdpBytes = 8;
inline constexpr std::size_t kFrameHead = kEthernetBytes + kIpBytes + kUdpBytes;

constexpr std::uint16_t swapped(std::uint16_t value) {
  return static_cast<std::uint16_t>(value << 8 | value >> 8);
}

inline void write_headers(std::byte* out, const Flow& flow, std::size_t datagram) {
  std::uint8_t head[kFrameHead] = {};
  std::memcpy(head, flow.peer_mac.data(), 6);
  std::memcpy(head + 6, flow.local_mac.data(), 6);
  head[12] = 0x08;  // IPv4
  std::uint8_t* ip = head + kEthernetBytes;
  const auto put16 = [](std::uint8_t* at, std::size_t value) {
    at[0] = static_cast<std::uint8_t>(value >> 8);
    at[1] = static_cast<std::uint8_t>(value);
  };
  ip[0] = 0x45;
  put16(ip + 2, kIpBytes + kUdpBytes + datagram);
  ip[6] = 0x40;  // do not fragment
  ip[8] = 64;
  ip[9] = 17;
  std::memcpy(ip + 12, &flow.local_ip, 4);
  std::memcpy(ip + 16, &flow.peer_ip, 4);
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < kIpBytes; i += 2) sum += ip[i] << 8 | ip[i + 1];
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  put16(ip + 10, ~sum & 0xffff);
  std::uint8_t* udp = ip + kIpBytes;
  std::memcpy(udp, &flow.local_udp, 2);
  std::memcpy(udp + 2, &flow.peer_udp, 2);
  put16(udp + 4, kUdpBytes + datagram);
  std::memcpy(out, head, kFrameHead);
}

// Finds the datagram in a frame; false for what is not UDP over plain IPv4 to this address, and
// for sizes that do not fit each other. Ethernet may have padded the frame: IP's length counts.
inline bool read_headers(const std::byte* frame, std::size_t size, std::uint32_t ip_address,
                         std::uint16_t udp_port, Received& out) {
  if (size < kFrameHead) return false;
  const auto at = [&](std::size_t i) { return std::to_integer<unsigned>(frame[i]); };
  if (at(12) != 0x08 || at(13) != 0x00 || at(14) != 0x45 || at(23) != 17) return false;
  if (((at(20) << 8 | at(21)) & 0x3fff) != 0) return false;  // a fragment
  const std::size_t ip_length = at(16) << 8 | at(17);
  const std::size_t udp_length = at(38) << 8 | at(39);
  if (ip_length > size - kEthernetBytes || ip_length < kIpBytes + kUdpBytes ||
      udp_length != ip_length - kIpBytes) {
    return false;
  }
  std::uint32_t to_ip;
  std::uint16_t to_udp;
  std::memcpy(&to_ip, frame + 30, 4);
  std::memcpy(&to_udp, frame + 36, 2);
  if (to_ip != ip_address || to_udp != udp_port) return false;
  out = {frame + kFrameHead, udp_length - kUdpBytes};
  return true;
}

}  // namespace genie::datagram
