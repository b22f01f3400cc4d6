// The shape cache: what a call gives, by operator, layouts of its tensors, and literals.
//
// Keys are compared word by word, so that two calls share an entry only when they are the same; the
// hash only finds the place. An entry is made by running the operator on meta tensors.
#pragma once

#include <string>
#include <unordered_set>

#include "trace.h"

namespace genie::lazy {

/// What never changes about an operator.
struct OpInfo {
  size_t arguments = 0;
  bool random = false;       ///< draws numbers, or takes a generator
  bool not_tensors = false;  ///< returns something other than tensors
  bool allowed = false;      ///< plans may name it
  bool silent = false;       ///< in place on the layout alone
  bool foreign = false;      ///< takes tensors of the host's with dimensions (indices)
  int device = -1;           ///< place of the argument that says on which device, if there is one
  std::string name;          ///< "aten.add.Tensor"
};

OpInfo& info_of(const c10::OperatorHandle& op);

/// Operators that plans may name, once at start.
void set_allowed(std::unordered_set<std::string> names);

/// The entry of a call, made at the first one with these layouts and literals.
Entry& find_entry(const c10::OperatorHandle& op, OpInfo& info, const Stack& stack, size_t first);

/// Fill a new entry by running the operator on meta tensors; throws what it throws.
void fill(Entry& entry, const OpInfo& info, const Stack& stack, size_t first);

/// The entry of a call that the recorder makes itself.
Entry& internal_entry(const char* name, const char* overload, Stack arguments, size_t inputs,
                      const Layout& made);

Entry& entry_at(uint32_t id);
size_t entry_count();

}  // namespace genie::lazy
