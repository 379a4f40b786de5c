"""What executes a head: the protocol and one module per runtime."""
