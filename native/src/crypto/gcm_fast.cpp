#include "gcm_fast.h"

#if GENIE_IPSEC_MB

#include <dlfcn.h>
#include <intel-ipsec-mb.h>
#include <openssl/crypto.h>

namespace genie::datagram {

namespace {

// The library's table of functions for this processor. Kept for the life of the process.
IMB_MGR* manager() {
  static IMB_MGR* const made = []() -> IMB_MGR* {
    // By the name of the interface that the header describes; releases from 1.5 on have another.
    void* library = ::dlopen("libIPSec_MB.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) return nullptr;
    const auto allocate =
        reinterpret_cast<decltype(&alloc_mb_mgr)>(::dlsym(library, "alloc_mb_mgr"));
    const auto init =
        reinterpret_cast<decltype(&init_mb_mgr_auto)>(::dlsym(library, "init_mb_mgr_auto"));
    if (allocate == nullptr || init == nullptr) return nullptr;
    IMB_MGR* table = allocate(0);
    if (table == nullptr) return nullptr;
    init(table, nullptr);
    // Without AES instructions it would be slower than OpenSSL, and not in constant time.
    const bool good = (table->features & IMB_FEATURE_AESNI) != 0 && table->gcm128_init != nullptr;
    return good ? table : nullptr;
  }();
  return made;
}

class IpsecMb final : public Gcm::Fast {
 public:
  IpsecMb(IMB_MGR* functions, const AesKey& key, bool encrypts)
      : functions_(functions), encrypts_(encrypts) {
    IMB_AES128_GCM_PRE(functions_, key.data(), &key_);
  }
  ~IpsecMb() override { OPENSSL_cleanse(&key_, sizeof key_); }

  void begin(const unsigned char* nonce, const std::byte* header, std::size_t bytes) override {
    IMB_AES128_GCM_INIT(functions_, &key_, &context_, nonce,
                        reinterpret_cast<const unsigned char*>(header), bytes);
  }

  void add(std::byte* out, const std::byte* in, std::size_t size) override {
    auto* to = reinterpret_cast<unsigned char*>(out);
    const auto* from = reinterpret_cast<const unsigned char*>(in);
    // The library works ahead of what the processor fetches by itself. What is cold, the source of
    // a sender and the destination of a receiver, is asked for a piece early: that doubles it.
    for (std::size_t done = 0; done < size;) {
      const std::size_t piece = size - done < kPiece ? size - done : kPiece;
      if (encrypts_) {
        if (size >= kPiece) fetch<0>(from + done + piece);
        IMB_AES128_GCM_ENC_UPDATE(functions_, &key_, &context_, to + done, from + done, piece);
      } else {
        if (size >= kPiece) fetch<1>(to + done + piece);
        IMB_AES128_GCM_DEC_UPDATE(functions_, &key_, &context_, to + done, from + done, piece);
      }
      done += piece;
    }
  }

  void finish(std::byte* tag) override {
    auto* to = reinterpret_cast<unsigned char*>(tag);
    if (encrypts_) {
      IMB_AES128_GCM_ENC_FINALIZE(functions_, &key_, &context_, to, 16);
    } else {
      IMB_AES128_GCM_DEC_FINALIZE(functions_, &key_, &context_, to, 16);
    }
  }

 private:
  static constexpr std::size_t kPiece = 4096;

  // Beyond the end too: what follows in memory is most likely what comes next.
  template <int kWrite>
  static void fetch(const unsigned char* at) {
    for (std::size_t i = 0; i < kPiece; i += 64) __builtin_prefetch(at + i, kWrite);
  }

  IMB_MGR* functions_;
  bool encrypts_;
  alignas(64) gcm_key_data key_{};  // the library asks for it, its header does not
  alignas(64) gcm_context_data context_{};
};

}  // namespace

bool Gcm::Fast::there() { return manager() != nullptr; }

std::unique_ptr<Gcm::Fast> Gcm::Fast::create(const AesKey& key, bool encrypts) {
  IMB_MGR* functions = manager();
  if (functions == nullptr) return nullptr;
  return std::make_unique<IpsecMb>(functions, key, encrypts);
}

}  // namespace genie::datagram

#else

namespace genie::datagram {

bool Gcm::Fast::there() { return false; }

std::unique_ptr<Gcm::Fast> Gcm::Fast::create(const AesKey&, bool) { return nullptr; }

}  // namespace genie::datagram

#endif
