"""The process: signals and the watchdog over silent plugins."""
