#include "kernel.h"

#include <optional>
#include <unordered_map>

namespace genie::lazy {

Python& python() {
  static Python instance;
  return instance;
}

namespace {

/// Whether this call of an operator that can draw random numbers draws any.
bool draws(const c10::OperatorHandle& op, const Stack& stack, size_t first) {
  const auto& arguments = op.schema().arguments();
  for (size_t i = 0; i < arguments.size(); i++) {
    const std::string& name = arguments[i].name();
    const c10::IValue& value = stack[first + i];
    if ((name == "train" || name == "training") && value.isBool() && !value.toBool()) {
      return false;
    }
    if ((name == "dropout_p" || name == "dropout") && value.isDouble() && value.toDouble() == 0) {
      return false;
    }
  }
  return true;
}

void check_devices(const c10::OperatorHandle& op, const OpInfo& info, const Stack& stack,
                   size_t first) {
  if (info.foreign) {
    return;
  }
  for (size_t i = 0; i < info.arguments; i++) {
    const c10::IValue& value = stack[first + i];
    if (value.isTensor() && value.toTensor().defined() && !is_lazy(value.toTensor()) &&
        value.toTensor().dim() > 0) {
      TORCH_CHECK(false, "Expected all tensors to be on the same device, but found at least two ",
                  "devices, ", c10::Device(DEVICE, 0), " and ", value.toTensor().device(),
                  "! (when checking argument ", op.schema().arguments()[i].name(), " of ",
                  info.name, ")");
    }
  }
}

/// The same operator without `out=`, found once.
std::optional<c10::OperatorHandle> functional_of(const c10::OperatorHandle& op) {
  static std::unordered_map<std::string, std::vector<c10::OperatorName>> overloads;
  static std::unordered_map<const void*, std::optional<c10::OperatorHandle>> known;
  const Hold hold;
  auto& dispatcher = c10::Dispatcher::singleton();
  if (overloads.empty()) {
    for (const auto& name : dispatcher.getAllOpNames()) {
      overloads[name.name].push_back(name);
    }
  }
  const auto [found, fresh] = known.try_emplace(&op.schema());
  if (!fresh) {
    return found->second;
  }
  std::vector<std::pair<std::string, std::string>> wanted;
  for (const auto& argument : op.schema().arguments()) {
    if (!argument.is_out()) {
      wanted.emplace_back(argument.name(), argument.type()->str());
    }
  }
  for (const auto& name : overloads[op.schema().name()]) {
    const auto other = dispatcher.findSchema(name);
    if (!other || other->schema().returns().size() != op.schema().returns().size()) {
      continue;
    }
    std::vector<std::pair<std::string, std::string>> has;
    for (const auto& argument : other->schema().arguments()) {
      has.emplace_back(argument.name(), argument.type()->str());
    }
    if (has == wanted) {
      found->second = *other;
      break;
    }
  }
  return found->second;
}

bool has_out(const c10::OperatorHandle& op) {
  const auto& arguments = op.schema().arguments();
  return !arguments.empty() && arguments.back().is_out();
}

/// `foo(a, out=b)` as `b.copy_(foo(a))`, b taking the result's size as everywhere in torch.
bool call_out(const c10::OperatorHandle& op, Stack* stack, size_t first) {
  const auto functional = functional_of(op);
  if (!functional) {
    return false;
  }
  const auto& arguments = op.schema().arguments();
  Stack call;
  std::vector<at::Tensor> outs;
  for (size_t i = 0; i < arguments.size(); i++) {
    const c10::IValue& value = (*stack)[first + i];
    if (!arguments[i].is_out()) {
      call.push_back(value);
    } else if (value.isTensor()) {
      outs.push_back(value.toTensor());
    } else {
      return false;
    }
  }
  functional->callBoxed(&call);
  if (call.size() != outs.size()) {
    return false;
  }
  stack->resize(first);
  for (size_t i = 0; i < outs.size(); i++) {
    const at::Tensor made = call[i].toTensor();
    at::Tensor& out = outs[i];
    if (out.sizes() != made.sizes()) {
      out.resize_(made.sizes());
    }
    out.copy_(made);
    stack->emplace_back(out);
  }
  return true;
}

}  // namespace

void check_device(std::optional<c10::Device> device) {
  TORCH_CHECK(!device || device->type() != DEVICE || device->index() <= 0,
              "there is one genie device, genie:0; not ", *device);
}

void call_boxed(const c10::OperatorHandle& op, Stack* stack) {
  OpInfo& info = info_of(op);
  const size_t first = stack->size() - info.arguments;
  counts.ops++;
  if (info.device >= 0) {
    check_device((*stack)[first + static_cast<size_t>(info.device)].toOptional<c10::Device>());
  }
  if (info.random && draws(op, *stack, first)) {
    python().host(op, info, "random", *stack, first);
    return;
  }
  if (!info.allowed && has_out(op) && call_out(op, stack, first)) {
    return;
  }
  check_devices(op, info, *stack, first);
  if (info.not_tensors) {
    python().host(op, info, "it returns something other than tensors", *stack, first);
    return;
  }
  Entry& entry = find_entry(op, info, *stack, first);
  if (entry.on_host) {
    python().host(op, info, entry.reason, *stack, first);
    return;
  }
  bool is_long = false;
  {
    const Hold hold;
    record(entry, *stack, first);
    is_long = pending_ops() >= LONG;
  }
  if (is_long) {
    python().flush();
  }
}

}  // namespace genie::lazy
