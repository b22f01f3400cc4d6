// The trace: what the program asked for since the last run, in the order in which it did.
//
// It is replayed literally, in-place operators and views included, so that aliasing on the device
// is what it is on a CPU. Values are numbered from 0 in each trace; a tensor that was there before
// enters as a leaf. The words of a trace, together, are the identity of its graph: two traces with
// equal words compute the same from different leaves.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/python_headers.h>

#include <cstdint>
#include <mutex>
#include <vector>

#include "tensor.h"

namespace genie::lazy {

using Stack = std::vector<c10::IValue>;

/// Where an operator's result comes from.
enum class From : uint8_t {
  Fresh,      ///< new memory
  Argument,   ///< tensor argument `source` itself, as in-place operators return it
  View,       ///< other sizes on the memory of tensor argument `source`
  Undefined,  ///< no tensor
};

struct Result {
  From from = From::Fresh;
  int32_t source = -1;
  Layout layout;
  bool compact = false;  ///< the kernel's own strides have gaps: the value is a clone without them
};

enum class Kind : uint8_t { Literal, Tensor, List };

/// One operator with one set of layouts and literals: all that a call of it can tell beforehand.
struct Entry {
  explicit Entry(c10::OperatorHandle handle) : op(std::move(handle)) {}

  uint32_t id = 0;
  c10::OperatorHandle op;
  std::vector<Kind> kinds;
  std::vector<c10::IValue> literals;  ///< by argument; a list's length for Kind::List
  std::vector<Result> results;
  std::vector<int32_t> lists;   ///< by return: -1 a tensor, else the length of a list
  std::vector<int32_t> writes;  ///< flat tensor arguments whose memory is written
  std::vector<std::pair<int32_t, Layout>> moved;  ///< arguments that get another layout
  bool silent = false;                            ///< nothing is computed: only layouts change
  bool on_host = false;                           ///< the device cannot do it (`reason`)
  std::string reason;
};

/// Words that are no operator's number.
enum Mark : uint32_t {
  LEAF = 0xffffffff,    ///< a kept tensor: the number of its layout
  HOST = 0xfffffffe,    ///< a tensor of the host: the number of its layout
  KEEP = 0xfffffffd,    ///< value, number of the layout
  FETCH = 0xfffffffc,   ///< value, number of the layout
  MODULE = 0xfffffffb,  ///< the number of the module that what follows belongs to
};

/// What a run needs beside the words.
struct Taken {
  std::vector<uint32_t> words;
  std::vector<uint64_t> leaves;    ///< handles, in the order of LEAF
  std::vector<at::Tensor> hosts;   ///< in the order of HOST
  std::vector<c10::Storage> kept;  ///< in the order of KEEP
  size_t ops = 0;
};

/// Guards the trace and the cache; never held while a kernel or a session runs.
///
/// Whoever takes it lets go of the interpreter's lock: the last reference to a tensor that Python
/// has seen may go while it is held, and takes that one.
class Hold {
 public:
  Hold();
  ~Hold();
  Hold(const Hold&) = delete;
  Hold& operator=(const Hold&) = delete;

  /// Let others have the lock until a run has ended; the thread holds it once.
  static void wait_for_run();
  static void run_ended();

 private:
  static std::recursive_mutex& lock();
  PyThreadState* interpreter;
};

/// Append a call; the results take their places on the stack's arguments.
void record(Entry& entry, Stack& stack, size_t first);

/// The value that stands for a tensor in the present trace.
int32_t value_of(const at::Tensor& tensor);

/// The present content of a store will be needed after this trace.
void list_store(Store& store);
void unlist(Store& store);

/// The words so far with `fetch` at their end, and what they need; the trace goes on.
Taken peek(const std::vector<at::Tensor>& fetch);

/// Bytes that the trace takes.
size_t trace_bytes();

/// End the trace: everything that a storage still needs is kept, `fetch` comes back to the client.
Taken take(const std::vector<at::Tensor>& fetch);

/// The run of a trace has ended: what it kept has these handles, or, when empty, is lost.
void settle(const std::vector<c10::Storage>& kept, const std::vector<uint64_t>& handles);

/// Whether nothing waits to be computed.
bool idle();

size_t pending_ops();
void set_module(uint32_t number);
const Layout& numbered_layout(uint32_t number);

struct Counts {
  uint64_t ops = 0, hits = 0, misses = 0;
};
extern Counts counts;

}  // namespace genie::lazy
