"""The sparse product, the one hot spot of a run: compiled, or by scipy. `choice` makes one, `base` says what it is."""
