"""From configuration, keys, catalogue and local servers to the model of a run (contract 8, 9)."""
