// AES-128-GCM through Intel's multi-buffer library, which is found when it is first needed: a
// machine without it, or a build without its header, uses OpenSSL.
#pragma once

#include <cstddef>
#include <memory>

#include "genie/crypto.h"

namespace genie::datagram {

struct Gcm::Fast {
  virtual ~Fast() = default;

  static bool there();
  // Null when it is not there.
  static std::unique_ptr<Fast> create(const AesKey& key, bool encrypts);

  virtual void begin(const unsigned char* nonce, const std::byte* header, std::size_t bytes) = 0;
  virtual void add(std::byte* out, const std::byte* in, std::size_t size) = 0;
  virtual void finish(std::byte* tag) = 0;
};

}  // namespace genie::datagram
