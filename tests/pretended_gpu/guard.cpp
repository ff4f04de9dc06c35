// torch's guard of CUDA devices, which autograd asks for streams and events: this one answers and does nothing.
#include <c10/core/impl/DeviceGuardImplInterface.h>

using namespace c10;

namespace {

constexpr auto CUDA = DeviceType::CUDA;
thread_local DeviceIndex current = 0;
int cards = 1;

Stream default_stream(Device device) { return Stream(Stream::DEFAULT, device); }

struct Guard final : impl::DeviceGuardImplInterface {
  DeviceType type() const override { return CUDA; }
  Device exchangeDevice(Device device) const override {
    Device before(CUDA, current);
    current = device.index();
    return before;
  }
  Device getDevice() const override { return Device(CUDA, current); }
  void setDevice(Device device) const override { current = device.index(); }
  void uncheckedSetDevice(Device device) const noexcept override { current = device.index(); }
  Stream getStream(Device device) const override { return default_stream(device); }
  Stream getDefaultStream(Device device) const override { return default_stream(device); }
  Stream getNewStream(Device device, int = 0) const override { return default_stream(device); }
  Stream exchangeStream(Stream stream) const override { return stream; }
  DeviceIndex deviceCount() const noexcept override { return static_cast<DeviceIndex>(cards); }
  void record(void **, const Stream &, const DeviceIndex, const EventFlag) const override {}
  void block(void *, const Stream &) const override {}
  bool queryEvent(void *) const override { return true; }
  void destroyEvent(void *, const DeviceIndex) const noexcept override {}
  bool queryStream(const Stream &) const override { return true; }
  void synchronizeStream(const Stream &) const override {}
  void synchronizeEvent(void *) const override {}
  void synchronizeDevice(const DeviceIndex) const override {}
};

Guard guard;
const impl::DeviceGuardImplInterface *before = nullptr;

}  // namespace

extern "C" void install(int number) {
  cards = number;
  before = impl::device_guard_impl_registry[static_cast<size_t>(CUDA)].exchange(&guard);
}

extern "C" void restore() { impl::device_guard_impl_registry[static_cast<size_t>(CUDA)].store(before); }
