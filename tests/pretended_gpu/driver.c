/* What autograd's engine asks of a driver, where there is none: so many devices while a backward pass runs, and no
   context on any of them. Preloaded; it also stands in for libcuda.so.1. */
static signed char devices = 0;

signed char device_count(void) __asm__("_ZN3c104cuda12device_countEv");
signed char device_count(void) { return devices; }

void pretend_count(int number) { devices = (signed char)number; }

int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
  (void)device;
  *flags = 0;
  *active = 0;
  return 0;
}
