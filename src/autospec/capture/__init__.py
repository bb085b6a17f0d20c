"""Taking activations and adjoints out of reverse-mode differentiation without disturbing it."""
