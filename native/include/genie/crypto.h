// Integrity of datagrams: AES-128-GCM, or CRC32C alone in a trusted fabric.
//
// AES-128-GCM comes from Intel's multi-buffer library where that is there and the processor has
// AES, because it is several times as fast as OpenSSL 3.0, which is the reference and the rest.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace genie::datagram {

enum class Protection : std::uint8_t {
  Crc32c,  // finds damage, not malice: only for a fabric that is declared trusted
  Aes128Gcm,
};

using AesKey = std::array<std::byte, 16>;

// CRC32C (Castagnoli) of `bytes` behind those that gave `crc`; 0 to begin.
std::uint32_t crc32c(std::uint32_t crc, const std::byte* bytes, std::size_t size);
// The same without SSE4.2; for machines that lack it, and for the tests.
std::uint32_t crc32c_portable(std::uint32_t crc, const std::byte* bytes, std::size_t size);
// Which side of a copy is not in a cache, and goes on past its end.
enum class Cold : std::uint8_t { Neither, Source, Destination };

// Copies and sums in one pass.
std::uint32_t crc32c_copy(std::uint32_t crc, std::byte* out, const std::byte* in, std::size_t size,
                          Cold cold = Cold::Neither);

// Two different keys of one session, made from its secret and a label for the direction.
bool derive_key(std::span<const std::byte> secret, std::span<const std::byte> context, AesKey& out);

// AES-128-GCM under one key, in pieces, so that it reads the source and writes the frame (or
// reads the frame and writes the destination) without a copy between. For one thread.
//
// A nonce is the session's epoch (4 bytes) and the packet number (8): the caller must not use one
// twice with one key. Each direction has a key of its own.
class Gcm {
 public:
  enum class Engine : std::uint8_t { Best, Reference };
  // Null when the library refuses.
  static std::unique_ptr<Gcm> create(const AesKey& key, bool encrypts,
                                     Engine engine = Engine::Best);
  // What Best is here: "ipsec-mb" or "openssl".
  static const char* best();
  ~Gcm();
  Gcm(const Gcm&) = delete;
  Gcm& operator=(const Gcm&) = delete;

  bool begin(std::uint32_t epoch, std::uint64_t number, const std::byte* header,
             std::size_t header_bytes);
  // `out` and `in` may be equal; otherwise they must not overlap.
  bool add(std::byte* out, const std::byte* in, std::size_t size);
  bool seal(std::byte* tag);
  // True when the tag fits; in constant time. Nothing that add() wrote may be believed before.
  bool verify(const std::byte* tag);

  struct Fast;

 private:
  Gcm();
  void* context_ = nullptr;     // of OpenSSL
  std::unique_ptr<Fast> fast_;  // or else
};

}  // namespace genie::datagram
