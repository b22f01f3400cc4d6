#include "ucx_port.h"

#include <sys/mman.h>

#include <array>
#include <chrono>
#include <utility>

namespace genie {
namespace {

constexpr unsigned kMessageId = 1;
constexpr int kSteps = 16;  // calls of UCX in one progress()
constexpr std::chrono::milliseconds kPatience{250};

struct Config {
  ucp_config_t* config = nullptr;
  ~Config() {
    if (config != nullptr) ucp_config_release(config);
  }
};

std::string failed(const char* what, ucs_status_t status) {
  return std::string(what) + ": " + ucs_status_string(status);
}

// What stays as the environment says (UCX_...) is the choice of network transports and devices.
bool configure(const Config& config, const UcxOptions& options) {
  const auto set = [&](const char* name, const char* value) {
    return ucp_config_modify(config.config, name, value) == UCS_OK;
  };
  if (options.network) return !options.loopback || set("NET_DEVICES", "lo");
  // Only what processes of one user, and nobody else, can reach. Not sysv: a process that is
  // killed leaves its segments behind.
  return set("TLS", "posix,cma,self");
}

}  // namespace

UcxPort* make_ucx_port(const UcxOptions& options, std::string& error) {
  auto* port = new UcpPort;
  if (port->open(options, error)) return port;
  port->release();
  return nullptr;
}

bool UcpPort::open(const UcxOptions& options, std::string& error) {
  Config config;
  ucs_status_t status = ucp_config_read(nullptr, nullptr, &config.config);
  if (status != UCS_OK || !configure(config, options)) {
    error = "UCX's configuration, in the UCX_ variables of the environment, is not usable";
    return false;
  }
  ucp_params_t params{};
  params.field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_ESTIMATED_NUM_EPS;
  params.features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
  params.estimated_num_eps = 1;
  status = ucp_init(&params, config.config, &context_);
  if (status != UCS_OK) {
    error = failed("UCX found no transport that it may use", status);
    return false;
  }
  ucp_worker_params_t wanted{};
  wanted.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  wanted.thread_mode = UCS_THREAD_MODE_SERIALIZED;
  status = ucp_worker_create(context_, &wanted, &worker_);
  if (status == UCS_OK) status = ucp_worker_get_efd(worker_, &fd_);
  if (status != UCS_OK) {
    error = failed("UCX could not start a worker", status);
    return false;
  }
  ucp_am_handler_param_t handler{};
  handler.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS |
                       UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG;
  handler.id = kMessageId;
  handler.flags = UCP_AM_FLAG_WHOLE_MSG;
  handler.cb = &UcpPort::on_message;
  handler.arg = this;
  status = ucp_worker_set_am_recv_handler(worker_, &handler);
  ucp_address_t* address = nullptr;
  std::size_t length = 0;
  if (status == UCS_OK) status = ucp_worker_get_address(worker_, &address, &length);
  if (status != UCS_OK) {
    error = failed("UCX could not start a worker", status);
    return false;
  }
  const auto* bytes = reinterpret_cast<const std::byte*>(address);
  address_.assign(bytes, bytes + length);
  ucp_worker_release_address(worker_, address);
  return reserve(options.memory, error);
}

bool UcpPort::reserve(std::size_t size, std::string& error) {
  void* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    error = "there is not enough memory";
    return false;
  }
  memory_ = static_cast<std::byte*>(memory);
  size_ = size;
  // A child process would otherwise write its own copy while the device reads the parent's.
  (void)::madvise(memory, size, MADV_DONTFORK);
  ucp_mem_map_params_t params{};
  params.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH;
  params.address = memory;
  params.length = size;
  const ucs_status_t status = ucp_mem_map(context_, &params, &registration_);
  if (status == UCS_OK) return true;
  registration_ = nullptr;
  error = failed("UCX could not register memory", status);
  return false;
}

// UCX is given time to end its calls. It cannot when a peer dies with its queue in shared memory
// full: closing waits for room there, also when forced, and what the peer had not fetched waits for
// the closing. The worker is then destroyed around them, which no call of UCX's outlives; so it
// goes before the memory that they name.
void UcpPort::release() {
  sink_ = nullptr;
  close();
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (worker_ != nullptr && under_way_ > 0 && std::chrono::steady_clock::now() < deadline) {
    ucp_worker_progress(worker_);
  }
  if (worker_ != nullptr) ucp_worker_destroy(worker_);
  if (registration_ != nullptr) ucp_mem_unmap(context_, registration_);
  if (context_ != nullptr) ucp_cleanup(context_);
  if (memory_ != nullptr) ::munmap(memory_, size_);
  delete this;
}

bool UcpPort::connect(std::span<const std::byte> address, std::string& error) {
  ucp_ep_params_t params{};
  params.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                      UCP_EP_PARAM_FIELD_ERR_HANDLER;
  params.address = reinterpret_cast<const ucp_address_t*>(address.data());
  params.err_mode = UCP_ERR_HANDLING_MODE_PEER;
  params.err_handler.cb = &UcpPort::on_failure;
  params.err_handler.arg = this;
  const ucs_status_t status = ucp_ep_create(worker_, &params, &endpoint_);
  if (status == UCS_OK) return true;
  endpoint_ = nullptr;
  error = failed("UCX cannot reach the peer", status);
  return false;
}

// -- messages ---------------------------------------------------------------------------------

UcpPort::Call* UcpPort::take(std::uint64_t cookie) {
  if (idle_.empty()) idle_.push_back(&calls_.emplace_back());
  Call* call = idle_.back();
  idle_.pop_back();
  *call = Call{this, cookie};
  ++under_way_;
  return call;
}

UcxStatus UcpPort::begun(ucs_status_ptr_t request, Call* call) {
  if (UCS_PTR_IS_PTR(request)) return UcxStatus::Going;
  const ucs_status_t status = UCS_PTR_STATUS(request);
  done(call);
  if (status == UCS_OK) return UcxStatus::Done;
  fail(status);
  return UcxStatus::Failed;
}

void UcpPort::done(Call* call) {
  --under_way_;
  idle_.push_back(call);
}

UcxStatus UcpPort::send(const UcxTag* tag, const std::byte* data, std::size_t size, bool push,
                        std::uint64_t cookie) {
  if (endpoint_ == nullptr || failure_ != nullptr) return UcxStatus::Failed;
  Call* call = take(cookie);
  ucp_request_param_t param{};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA |
                       UCP_OP_ATTR_FIELD_FLAGS | UCP_OP_ATTR_FIELD_MEMORY_TYPE;
  param.flags = push ? UCP_AM_SEND_FLAG_EAGER : UCP_AM_SEND_FLAG_RNDV;
  param.memory_type = UCS_MEMORY_TYPE_HOST;
  param.cb.send = &UcpPort::on_sent;
  param.user_data = call;
  out_ = false;
  return begun(ucp_am_send_nbx(endpoint_, kMessageId, tag, sizeof *tag, data, size, &param), call);
}

UcxStatus UcpPort::fetch(void* ticket, std::byte* to, std::size_t size, std::uint64_t cookie) {
  Call* call = take(cookie);
  ucp_request_param_t param{};
  param.op_attr_mask =
      UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_MEMORY_TYPE;
  param.memory_type = UCS_MEMORY_TYPE_HOST;
  param.cb.recv_am = &UcpPort::on_fetched;
  param.user_data = call;
  return begun(ucp_am_recv_data_nbx(worker_, ticket, to, size, &param), call);
}

void UcpPort::drop(void* ticket) { ucp_am_data_release(worker_, ticket); }

bool UcpPort::progress(UcxSink& sink) {
  sink_ = &sink;
  bool any = false;
  for (int i = 0; i < kSteps && ucp_worker_progress(worker_) != 0; ++i) any = true;
  sink_ = nullptr;
  return any;
}

bool UcpPort::arm() {
  if (failure_ != nullptr) return true;  // there is nothing left to wake up for
  return ucp_worker_arm(worker_) == UCS_OK;
}

bool UcpPort::flushed() {
  if (out_ || endpoint_ == nullptr || failure_ != nullptr) return true;
  if (flushing_) return false;
  Call* call = take(0);
  ucp_request_param_t param{};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
  param.cb.send = &UcpPort::on_flushed;
  param.user_data = call;
  flushing_ = begun(ucp_ep_flush_nbx(endpoint_, &param), call) == UcxStatus::Going;
  out_ = !flushing_;
  return out_;
}

void UcpPort::close() {
  if (endpoint_ == nullptr) return;
  Call* call = take(0);
  ucp_request_param_t param{};
  param.op_attr_mask =
      UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_FLAGS;
  param.flags = UCP_EP_CLOSE_FLAG_FORCE;
  param.cb.send = &UcpPort::on_flushed;
  param.user_data = call;
  (void)begun(ucp_ep_close_nbx(std::exchange(endpoint_, nullptr), &param), call);
}

void UcpPort::fail(ucs_status_t status) {
  if (failure_ == nullptr) failure_ = ucs_status_string(status);
}

// -- what UCX calls, from within progress() or close() ----------------------------------------

ucs_status_t UcpPort::on_message(void* self, const void* header, std::size_t header_bytes,
                                 void* data, std::size_t size, const ucp_am_recv_param_t* param) {
  auto* port = static_cast<UcpPort*>(self);
  UcxTag tag;
  // UCS_OK for an announced message drops it.
  if (port->sink_ == nullptr || header_bytes != sizeof tag) return UCS_OK;
  std::memcpy(&tag, header, sizeof tag);
  if ((param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0) {
    return port->sink_->announced(tag, size, data) ? UCS_INPROGRESS : UCS_OK;
  }
  port->sink_->pushed(tag, static_cast<const std::byte*>(data), size);
  return UCS_OK;
}

void UcpPort::on_sent(void* request, ucs_status_t status, void* user_data) {
  auto* call = static_cast<Call*>(user_data);
  UcpPort* port = call->port;
  const std::uint64_t cookie = call->cookie;
  port->done(call);
  ucp_request_free(request);
  if (status != UCS_OK) port->fail(status);
  if (port->sink_ != nullptr) port->sink_->sent(cookie);
}

void UcpPort::on_fetched(void* request, ucs_status_t status, std::size_t, void* user_data) {
  auto* call = static_cast<Call*>(user_data);
  UcpPort* port = call->port;
  const std::uint64_t cookie = call->cookie;
  port->done(call);
  ucp_request_free(request);
  if (status != UCS_OK) port->fail(status);
  if (port->sink_ != nullptr) port->sink_->fetched(cookie, status == UCS_OK);
}

void UcpPort::on_flushed(void* request, ucs_status_t, void* user_data) {
  auto* call = static_cast<Call*>(user_data);
  UcpPort* port = call->port;
  port->done(call);
  ucp_request_free(request);
  port->flushing_ = false;
  port->out_ = true;
}

void UcpPort::on_failure(void* self, ucp_ep_h, ucs_status_t status) {
  static_cast<UcpPort*>(self)->fail(status);
}

}  // namespace genie
