// The datagram protocol on the wire. Everything is little-endian.
//
//     header   48 bytes
//        0  u16 magic          8  u64 packet number      24 u32 number - lowest open number
//        2  u8  version       16  u32 session epoch      28 u32 zero
//        3  u8  flags         20  u16 body bytes         32 integrity, 16 bytes
//        4  u32 connection    22  u16 zero
//     body     records, each a multiple of 16 bytes
//
// Integrity is the tag of AES-128-GCM (the first 32 bytes are its associated data, the body is
// encrypted), or in a trusted fabric CRC32C over those 32 bytes and the body, and twelve zeros.
// A packet number is used once in a session and direction: it makes the nonce, and a
// retransmission travels under a new one. Round trips are therefore measured without ambiguity
// from the sender's own note of when it sent a number, and no timestamp is echoed; the
// acknowledgement says how long it was held back.
//
//     record   0 u8 type · 1 u8 zero · 2 u16 payload bytes · 4 u32 aux · 8 u64 message
//     Data     + u64 offset · u64 message length · payload, padded to 16
//     Open     Data with the destination between: u64 arena · u64 offset · u64 epoch · key[16] · 8
//              reserved bytes. Sent until the peer has acknowledged something of the message.
//     Ack      aux: nanoseconds it was delayed · message: credit, the bytes that may be in flight
//              + u64 all below are received · u64 largest received · 256 bits, bit i: largest - 255
//              + i
//     Refuse   aux: code · message · + u64 detail · u64 zero
//     Cancel   message
//     Ping     message: credit
//     Bye      aux: code
//
// A message number is `generation << 10 | slot`. A slot carries one message at a time, so that
// both sides keep a table of fixed size, and what is left of an old message is known by its
// generation.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "genie/bytes.h"
#include "genie/link_types.h"

namespace genie::datagram {

inline constexpr std::uint16_t kMagic = 0x4e47;
inline constexpr std::uint8_t kVersion = 1;
inline constexpr std::size_t kHeaderBytes = 48;
inline constexpr std::size_t kSealedHeaderBytes = 32;  // what the integrity field covers of it
inline constexpr std::size_t kTagBytes = 16;
inline constexpr std::size_t kMaxDatagram = 65504;  // UDP over IPv4, rounded down to 16
inline constexpr std::size_t kMinDatagram = 512;

inline constexpr std::size_t kRecordBytes = 16;
inline constexpr std::size_t kDataBytes = 32;
inline constexpr std::size_t kOpenBytes = 80;
inline constexpr std::size_t kAckBytes = 64;
inline constexpr std::size_t kRefuseBytes = 32;
inline constexpr std::size_t kAckWords = 4;
inline constexpr std::size_t kAckBits = 64 * kAckWords;

inline constexpr unsigned kSlotBits = 10;
inline constexpr std::size_t kSlots = std::size_t{1} << kSlotBits;

enum Flags : std::uint8_t {
  kEliciting = 1,  // its receiver owes an acknowledgement
  kSealed = 2,     // AES-128-GCM, not CRC32C
};

enum class RecordType : std::uint8_t {
  Data = 1,
  Open = 2,
  Ack = 3,
  Refuse = 4,
  Cancel = 5,
  Ping = 6,
  Bye = 7,
};

struct Header {
  std::uint8_t flags = 0;
  std::uint16_t body = 0;
  std::uint32_t connection = 0;
  std::uint32_t epoch = 0;
  std::uint32_t floor_gap = 0;
  std::uint64_t number = 0;
};

struct Record {
  RecordType type = RecordType::Ping;
  std::uint16_t size = 0;
  std::uint32_t aux = 0;
  std::uint64_t message = 0;
  // Data, Open
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  Destination destination{};
  const std::byte* payload = nullptr;
  // Ack
  std::uint64_t cumulative = 0;
  std::uint64_t largest = 0;
  std::array<std::uint64_t, kAckWords> bits{};
  // Refuse
  std::uint64_t detail = 0;
};

constexpr std::size_t padded(std::size_t bytes) { return (bytes + 15) & ~std::size_t{15}; }

// The bytes of a message that travel in one record: fixed for a session, so that a retransmission
// is the same piece again and the receiver can keep one bit for each.
constexpr std::size_t chunk_bytes(std::size_t max_datagram) {
  return (max_datagram - kHeaderBytes - kOpenBytes) & ~std::size_t{63};
}

constexpr std::uint64_t message_number(std::uint64_t generation, std::size_t slot) {
  return generation << kSlotBits | slot;
}
constexpr std::size_t slot_of(std::uint64_t message) { return message & (kSlots - 1); }
constexpr std::uint64_t generation_of(std::uint64_t message) { return message >> kSlotBits; }

// Writes the first 32 bytes; the integrity field is left alone.
void encode_header(const Header& header, std::byte* out);

// False for what is no datagram of this protocol and version, or whose size is not what it says.
bool decode_header(std::span<const std::byte> datagram, Header& header);

// Writes everything of a record but its payload; returns how many bytes that is.
std::size_t encode_record(const Record& record, std::byte* out);

// The bytes of a record before its payload, or 0 for an unknown type.
std::size_t record_head_bytes(RecordType type);

enum class Parsed { Record, End, Malformed };

// Takes the record at the front of `body`, and `body` beyond it. Every size is checked.
Parsed next_record(std::span<const std::byte>& body, Record& record);

// Parses only the part before the payload, of which `head` need not hold more. False: malformed.
bool decode_record_head(std::span<const std::byte> head, Record& record);

}  // namespace genie::datagram
