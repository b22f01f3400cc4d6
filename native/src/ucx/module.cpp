// _ucx: what _core needs to speak UCX. Imported on demand only: it loads libucp.

#include <nanobind/nanobind.h>

#include <string>

#include "ucx_port.h"

namespace nb = nanobind;

namespace {

const genie::UcxFactory factory{genie::kUcxAbi, sizeof(genie::UcxFactory), &genie::make_ucx_port};

}  // namespace

NB_MODULE(_ucx, m) {
  m.doc() = "UCX for the native transports.";
  m.attr("factory") = nb::capsule(&factory, genie::kUcxCapsule);
  m.def("version", [] {
    unsigned major = 0;
    unsigned minor = 0;
    unsigned release = 0;
    ucp_get_version(&major, &minor, &release);
    return std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(release);
  });
}
