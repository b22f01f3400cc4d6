// UcxPort over UCP. Only this half of the wire knows UCX.
#pragma once

#include <ucp/api/ucp.h>

#include <cstdint>
#include <cstring>
#include <deque>
#include <span>
#include <string>
#include <vector>

#include "genie/ucx.h"

namespace genie {

class UcpPort final : public UcxPort {
 public:
  UcpPort() = default;
  ~UcpPort() = default;
  UcpPort(const UcpPort&) = delete;
  UcpPort& operator=(const UcpPort&) = delete;

  // False, and `error` says why; the port is then only good for destruction.
  bool open(const UcxOptions& options, std::string& error);

  void release() override;
  std::span<const std::byte> address() const override { return address_; }
  std::byte* memory() override { return memory_; }
  bool connect(std::span<const std::byte> address, std::string& error) override;
  UcxStatus send(const UcxTag* tag, const std::byte* data, std::size_t size, bool push,
                 std::uint64_t cookie) override;
  UcxStatus fetch(void* ticket, std::byte* to, std::size_t size, std::uint64_t cookie) override;
  void drop(void* ticket) override;
  bool progress(UcxSink& sink) override;
  const char* failure() const override { return failure_; }
  bool flushed() override;
  int fd() const override { return fd_; }
  bool arm() override;
  void close() override;

 private:
  // One call of UCX that has not ended.
  struct Call {
    UcpPort* port = nullptr;
    std::uint64_t cookie = 0;
  };

  bool reserve(std::size_t size, std::string& error);
  Call* take(std::uint64_t cookie);
  UcxStatus begun(ucs_status_ptr_t request, Call* call);
  void done(Call* call);
  void fail(ucs_status_t status);

  static ucs_status_t on_message(void* self, const void* header, std::size_t header_bytes,
                                 void* data, std::size_t size, const ucp_am_recv_param_t* param);
  static void on_sent(void* request, ucs_status_t status, void* user_data);
  static void on_fetched(void* request, ucs_status_t status, std::size_t size, void* user_data);
  static void on_flushed(void* request, ucs_status_t status, void* user_data);
  static void on_failure(void* self, ucp_ep_h endpoint, ucs_status_t status);

  ucp_context_h context_ = nullptr;
  ucp_worker_h worker_ = nullptr;
  ucp_ep_h endpoint_ = nullptr;
  ucp_mem_h registration_ = nullptr;
  std::vector<std::byte> address_;
  std::byte* memory_ = nullptr;
  std::size_t size_ = 0;
  int fd_ = -1;

  UcxSink* sink_ = nullptr;  // during progress()
  const char* failure_ = nullptr;
  std::deque<Call> calls_;  // a deque: UCX keeps pointers into it
  std::vector<Call*> idle_;
  std::size_t under_way_ = 0;
  bool flushing_ = false;
  bool out_ = true;  // nothing was sent since the last flush
};

UcxPort* make_ucx_port(const UcxOptions& options, std::string& error);

}  // namespace genie
