#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>

#include <cstring>

#include "gcm_fast.h"
#include "genie/crypto.h"

namespace genie::datagram {

namespace {

EVP_CIPHER_CTX* of(void* context) { return static_cast<EVP_CIPHER_CTX*>(context); }

const unsigned char* raw(const std::byte* bytes) {
  return reinterpret_cast<const unsigned char*>(bytes);
}
unsigned char* raw(std::byte* bytes) { return reinterpret_cast<unsigned char*>(bytes); }

}  // namespace

bool derive_key(std::span<const std::byte> secret, std::span<const std::byte> context,
                AesKey& out) {
  EVP_PKEY_CTX* kdf = EVP_PKEY_CTX_new_id(EVP_PKEY_HKDF, nullptr);
  if (kdf == nullptr) return false;
  static constexpr char kSalt[] = "genie datagram 1";
  std::size_t size = out.size();
  const bool ok =
      EVP_PKEY_derive_init(kdf) == 1 && EVP_PKEY_CTX_set_hkdf_md(kdf, EVP_sha256()) == 1 &&
      EVP_PKEY_CTX_set1_hkdf_salt(kdf, reinterpret_cast<const unsigned char*>(kSalt),
                                  sizeof(kSalt) - 1) == 1 &&
      EVP_PKEY_CTX_set1_hkdf_key(kdf, raw(secret.data()), static_cast<int>(secret.size())) == 1 &&
      EVP_PKEY_CTX_add1_hkdf_info(kdf, raw(context.data()), static_cast<int>(context.size())) ==
          1 &&
      EVP_PKEY_derive(kdf, raw(out.data()), &size) == 1 && size == out.size();
  EVP_PKEY_CTX_free(kdf);
  return ok;
}

Gcm::Gcm() = default;

const char* Gcm::best() { return Fast::there() ? "ipsec-mb" : "openssl"; }

std::unique_ptr<Gcm> Gcm::create(const AesKey& key, bool encrypts, Engine engine) {
  std::unique_ptr<Gcm> gcm(new Gcm());
  if (engine == Engine::Best && (gcm->fast_ = Fast::create(key, encrypts)) != nullptr) return gcm;
  EVP_CIPHER_CTX* context = EVP_CIPHER_CTX_new();
  if (context == nullptr) return nullptr;
  gcm->context_ = context;
  if (EVP_CipherInit_ex(context, EVP_aes_128_gcm(), nullptr, raw(key.data()), nullptr,
                        encrypts ? 1 : 0) != 1) {
    return nullptr;
  }
  return gcm;
}

Gcm::~Gcm() { EVP_CIPHER_CTX_free(of(context_)); }

bool Gcm::begin(std::uint32_t epoch, std::uint64_t number, const std::byte* header,
                std::size_t header_bytes) {
  unsigned char nonce[12];
  std::memcpy(nonce, &epoch, 4);
  std::memcpy(nonce + 4, &number, 8);
  if (fast_ != nullptr) {
    fast_->begin(nonce, header, header_bytes);
    return true;
  }
  int done = 0;
  return EVP_CipherInit_ex(of(context_), nullptr, nullptr, nullptr, nonce, -1) == 1 &&
         EVP_CipherUpdate(of(context_), nullptr, &done, raw(header),
                          static_cast<int>(header_bytes)) == 1;
}

bool Gcm::add(std::byte* out, const std::byte* in, std::size_t size) {
  if (size == 0) return true;
  if (fast_ != nullptr) {
    fast_->add(out, in, size);
    return true;
  }
  int done = 0;
  return EVP_CipherUpdate(of(context_), raw(out), &done, raw(in), static_cast<int>(size)) == 1;
}

bool Gcm::seal(std::byte* tag) {
  if (fast_ != nullptr) {
    fast_->finish(tag);
    return true;
  }
  unsigned char rest[16];
  int done = 0;
  return EVP_CipherFinal_ex(of(context_), rest, &done) == 1 &&
         EVP_CIPHER_CTX_ctrl(of(context_), EVP_CTRL_AEAD_GET_TAG, 16, tag) == 1;
}

bool Gcm::verify(const std::byte* tag) {
  if (fast_ != nullptr) {
    std::byte own[16];
    fast_->finish(own);
    return CRYPTO_memcmp(own, tag, sizeof own) == 0;
  }
  unsigned char expected[16];
  std::memcpy(expected, tag, sizeof(expected));
  unsigned char rest[16];
  int done = 0;
  return EVP_CIPHER_CTX_ctrl(of(context_), EVP_CTRL_AEAD_SET_TAG, 16, expected) == 1 &&
         EVP_CipherFinal_ex(of(context_), rest, &done) == 1;
}

}  // namespace genie::datagram
