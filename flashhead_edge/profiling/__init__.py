"""Where the time, the bytes and the energy of a decode step go: measured here, and shown."""
