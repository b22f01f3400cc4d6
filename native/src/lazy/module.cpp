// `_lazy`: the recorder's face to Python. What it returns is plain data; sessions are Python's.
#include <torch/csrc/jit/python/pybind_utils.h>
#include <torch/csrc/utils/pybind.h>

#include <chrono>

#include "kernel.h"

namespace py = pybind11;

namespace genie::lazy {

namespace {

/// Kept for the life of the process: it may end after the interpreter has.
struct Callbacks {
  py::object fetch, upload, host, flush;
};

Callbacks* callbacks = nullptr;

py::list objects(const Stack& stack, size_t first) {
  py::list list;
  for (size_t i = first; i < stack.size(); i++) {
    list.append(torch::jit::toPyObject(stack[i]));
  }
  return list;
}

void host(const c10::OperatorHandle& op, const OpInfo& info, const std::string& why, Stack& stack,
          size_t first) {
  const py::gil_scoped_acquire gil;
  const auto& returns = op.schema().returns();
  const py::tuple results = callbacks->host(info.name, why, objects(stack, first));
  TORCH_CHECK(results.size() == returns.size(), info.name, " returned ", results.size(),
              " values on the host");
  Stack made;
  for (size_t i = 0; i < returns.size(); i++) {
    made.push_back(torch::jit::toIValue(results[i], returns[i].real_type()));
  }
  stack.resize(first);
  stack.insert(stack.end(), made.begin(), made.end());
}

py::tuple describe_layout(const Layout& layout) {
  return py::make_tuple(
      static_cast<int>(layout.dtype),
      py::cast(std::vector<int64_t>(layout.sizes.begin(), layout.sizes.end())),
      py::cast(std::vector<int64_t>(layout.strides.begin(), layout.strides.end())), layout.offset);
}

/// (operator, kinds, literals, results, lengths of lists): what the plan's builder needs.
py::tuple describe(uint32_t id) {
  const Entry& entry = entry_at(id);
  py::list kinds, literals, results, writes;
  for (size_t i = 0; i < entry.kinds.size(); i++) {
    kinds.append(static_cast<int>(entry.kinds[i]));
    literals.append(torch::jit::toPyObject(entry.literals[i]));
  }
  for (const Result& result : entry.results) {
    results.append(py::make_tuple(static_cast<int>(result.from), result.source,
                                  describe_layout(result.layout), result.compact));
  }
  for (const int32_t at : entry.writes) {
    writes.append(at);
  }
  return py::make_tuple(info_of(entry.op).name, kinds, literals, results, py::cast(entry.lists),
                        writes);
}

struct Pending {
  Taken taken;
};

double chain(at::Tensor tensor, int count) {
  const at::NoGradGuard no_grad;
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("aten::relu", "")
                             .typed<at::Tensor(const at::Tensor&)>();
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < count; i++) {
    tensor = op.call(tensor);
  }
  const std::chrono::duration<double, std::micro> spent = std::chrono::steady_clock::now() - start;
  return spent.count() / count;
}

void start(py::object fetch, py::object upload, py::object host_, py::object flush,
           std::unordered_set<std::string> allowed) {
  callbacks =
      new Callbacks{std::move(fetch), std::move(upload), std::move(host_), std::move(flush)};
  python().fetch = [](const std::vector<at::Tensor>& tensors, const std::string& why) {
    const py::gil_scoped_acquire gil;
    return callbacks->fetch(tensors, why).cast<std::vector<at::Tensor>>();
  };
  python().upload = [](const at::Tensor& tensor) {
    const py::gil_scoped_acquire gil;
    return callbacks->upload(tensor).cast<uint64_t>();
  };
  python().host = &host;
  python().flush = [] {
    const py::gil_scoped_acquire gil;
    callbacks->flush();
  };
  set_allowed(std::move(allowed));
  register_device();
}

}  // namespace

PYBIND11_MODULE(_lazy, m) {
  m.doc() = "Records what programs ask of the genie device.";
  py::class_<Pending>(m, "Taken")
      .def_property_readonly("words",
                             [](const Pending& p) {
                               return py::bytes(reinterpret_cast<const char*>(p.taken.words.data()),
                                                p.taken.words.size() * sizeof(uint32_t));
                             })
      .def_property_readonly("leaves", [](const Pending& p) { return p.taken.leaves; })
      .def_property_readonly("hosts", [](const Pending& p) { return p.taken.hosts; })
      .def_property_readonly("kept", [](const Pending& p) { return p.taken.kept.size(); })
      .def_property_readonly("ops", [](const Pending& p) { return p.taken.ops; })
      .def("settle", [](const Pending& p, const std::vector<uint64_t>& handles) {
        settle(p.taken.kept, handles);
      });
  m.def("start", &start);
  m.def("register_operators", &register_operators);
  m.def("take", [](const std::vector<at::Tensor>& fetch) {
    const Hold hold;
    return Pending{take(fetch)};
  });
  m.def("peek", [](const std::vector<at::Tensor>& fetch) {
    const Hold hold;
    return Pending{peek(fetch)};
  });
  m.def("trace_bytes", &trace_bytes);
  m.def("describe", &describe);
  m.def("layout", [](uint32_t number) { return describe_layout(numbered_layout(number)); });
  m.def("take_dropped", &take_dropped);
  m.def("idle", &idle);
  m.def("pending_ops", &pending_ops);
  m.def("set_module", &set_module);
  m.def("counts", [] {
    py::dict found;
    found["ops_intercepted"] = counts.ops;
    found["shape_cache_hits"] = counts.hits;
    found["shape_cache_misses"] = counts.misses;
    found["shape_cache_entries"] = entry_count();
    return found;
  });
  m.def("chain", &chain);
  m.def("handle", [](const at::Tensor& tensor) {
    const Hold hold;
    return is_lazy(tensor) ? store_of(tensor).handle : uint64_t{0};
  });
  m.def("client_bytes", [](const at::Tensor& tensor) {
    const Store& store = store_of(tensor);
    return store.host.defined() ? store.host.nbytes() : size_t{0};
  });
}

}  // namespace genie::lazy
