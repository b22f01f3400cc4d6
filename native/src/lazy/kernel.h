// What the dispatcher calls for tensors of this device, and the way from there to Python.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <unordered_set>

#include "cache.h"

namespace genie::lazy {

/// The parts that Python does, because they talk to a session. Each takes the GIL itself.
struct Python {
  /// Compute everything that is pending; the tensors' content, as tensors of the host.
  std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>&, const std::string& why)>
      fetch;
  /// Send a dense tensor of the host's; the handle under which the device keeps it.
  std::function<uint64_t(const at::Tensor&)> upload;
  /// Run an operator on the host: the stack's arguments become its results.
  std::function<void(const c10::OperatorHandle&, const OpInfo&, const std::string& why, Stack&,
                     size_t first)>
      host;
  /// The trace has become long.
  std::function<void()> flush;
};

Python& python();

/// Tensors of up to this many bytes travel with the next run instead of in one of their own.
constexpr int64_t SMALL = 4096;

/// Operators in a trace at which it is run without anybody having asked for a result.
constexpr size_t LONG = 20000;

/// Register a kernel on every operator but those in `left`; returns how many there are.
size_t register_operators(const std::unordered_set<std::string>& left);

void register_device();

/// Throws unless nothing is named, or a device that there is.
void check_device(std::optional<c10::Device> device);

void call_boxed(const c10::OperatorHandle& op, Stack* stack);

}  // namespace genie::lazy
