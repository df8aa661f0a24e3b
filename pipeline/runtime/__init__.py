"""The machine: devices, precision, processes."""
