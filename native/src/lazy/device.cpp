// The device as torch knows it: one of it, without streams, always there.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include "kernel.h"

namespace genie::lazy {

namespace {

struct Guard final : c10::impl::NoOpDeviceGuardImpl<DEVICE> {
  Guard() = default;
  c10::Device exchangeDevice(c10::Device) const override { return {DEVICE, 0}; }
  c10::Device getDevice() const override { return {DEVICE, 0}; }
  c10::Stream getStream(c10::Device) const noexcept override { return stream(); }
  c10::Stream getDefaultStream(c10::Device) const override { return stream(); }
  c10::Stream getNewStream(c10::Device, int) const override { return stream(); }
  c10::Stream exchangeStream(c10::Stream) const noexcept override { return stream(); }

  // The trace is the only stream, and it is in the program's order: there is nothing to wait for.
  void record(void**, const c10::Stream&, c10::DeviceIndex, c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void synchronizeEvent(void*) const override { python().flush(); }
  void synchronizeStream(const c10::Stream&) const override { python().flush(); }
  void synchronizeDevice(const c10::DeviceIndex) const override { python().flush(); }

 private:
  static c10::Stream stream() { return c10::Stream(c10::Stream::DEFAULT, {DEVICE, 0}); }
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard)

/// Random numbers are drawn on the host, so generators are the host's.
struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  void setCurrentDevice(c10::DeviceIndex) const override {}
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex) const override { return 0; }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex) const override { return 0; }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override {
    static const at::Generator generator =
        at::make_generator<at::CPUGeneratorImpl>(c10::default_rng_seed_val);
    return generator;
  }
  at::Generator getNewGenerator(c10::DeviceIndex) const override {
    return at::make_generator<at::CPUGeneratorImpl>(c10::default_rng_seed_val);
  }
  at::Allocator* getPinnedMemoryAllocator() const override { return c10::GetAllocator(c10::kCPU); }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t size) const override {
    TORCH_CHECK_NOT_IMPLEMENTED(size == storage.nbytes(),
                                "a storage on the genie device cannot be resized by itself");
  }
};

}  // namespace

void register_device() { at::RegisterPrivateUse1HooksInterface(new Hooks); }

}  // namespace genie::lazy
