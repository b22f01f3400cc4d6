// Frames of the native TCP wire: one codec for each direction of each stream, no I/O.
//
//     8   magic "GN" · version u8 · kind u8 · payload bytes u32
//    40   sequence u64 · message u64 · offset u64 · length u64 · credit u64
//    48   destination (Open and Put)
//    16   clear: CRC32C of the payload u32 · of all before u32 · zero u64
//         sealed: the tag of AES-128-GCM; all but the first 8 bytes are encrypted
//         payload; sealed: encrypted, and its tag (16)
//
// Sequence numbers count the frames of a stream from 0 and are the nonces, so a frame that is
// replayed, reordered, reflected or taken from another stream does not verify. A header is
// verified before its sizes are believed. Every 2^16 frames each side derives the next key from
// the present one, long before a key has sealed more than is safe (at most 2^38 bytes).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "genie/crypto.h"
#include "genie/link_types.h"

namespace genie {

inline constexpr std::size_t kFrameBase = 48;
inline constexpr std::size_t kFrameTrailer = 16;
inline constexpr std::size_t kPlainBytes = 8;  // what a sealed header leaves unencrypted
inline constexpr std::size_t kMaxHeader = kFrameBase + kDestinationBytes + kFrameTrailer;

constexpr std::size_t header_bytes(Kind kind) {
  return kFrameBase + kFrameTrailer + (has_destination(kind) ? kDestinationBytes : 0);
}

// One direction's key, moving on with the sequence numbers. Without a secret: none.
class StreamKey {
 public:
  // False when the crypto library refuses.
  bool start(std::span<const std::byte> secret, bool encrypts);
  bool sealed() const { return gcm_ != nullptr; }
  // The cipher for frame `sequence`, which must not jump; null when the library refuses.
  datagram::Gcm* at(std::uint64_t sequence);

 private:
  datagram::AesKey key_{};
  std::unique_ptr<datagram::Gcm> gcm_;
  std::uint64_t generation_ = 0;
  bool encrypts_ = false;
};

class FrameWriter {
 public:
  bool start(std::span<const std::byte> secret) { return key_.start(secret, true); }
  bool sealed() const { return key_.sealed(); }
  // Writes a header; sealed writers also the payload, encrypted, and its tag. Bytes written, 0
  // when the crypto library refuses. `out` has room for kMaxHeader + payload + kFrameTrailer.
  std::size_t write(std::byte* out, const Header& header, const Destination& dst,
                    const std::byte* payload);

 private:
  StreamKey key_;
  std::uint64_t sequence_ = 0;
};

class FrameReader {
 public:
  bool start(std::span<const std::byte> secret) { return key_.start(secret, false); }
  bool sealed() const { return key_.sealed(); }
  // The size of the header that begins with these 8 bytes, or 0 when no frame does.
  static std::size_t announced(const std::byte* begin);
  // Verifies a whole header (announced() bytes) and counts it.
  Verdict read(const std::byte* bytes, Header& header, Destination& dst);
  // Then, for a payload: what add() is given, in pieces and order, is verified by finish().
  // Sealed: decrypts from `from` to `to`, which may be equal. Clear: `to` holds the bytes.
  bool begin();
  bool add(std::byte* to, const std::byte* from, std::size_t count);
  // `tag`: the 16 bytes behind a sealed payload; unused in clear.
  bool finish(const std::byte* tag);
  std::size_t tag_bytes() const { return sealed() ? kFrameTrailer : 0; }

 private:
  StreamKey key_;
  std::uint64_t sequence_ = 0;
  std::array<std::byte, kPlainBytes> plain_{};  // of the last header
  std::uint32_t expected_ = 0;
  std::uint32_t sum_ = 0;
};

}  // namespace genie
