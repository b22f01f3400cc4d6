// _ucx: what _core needs to speak UCX. Imported on demand only: it loads libucp.

#include <nanobind/nanobind.h>

#include "ucx_port.h"

namespace nb = nanobind;

namespace {

const genie::UcxFactory factory{genie::kUcxAbi, sizeof(genie::UcxFactory), &genie::make_ucx_port};

}  // namespace

NB_MODULE(_ucx, m) {
  m.doc() = "UCX for the native transports.";
  m.attr("factory") = nb::capsule(&factory, genie::kUcxCapsule);
}
