"""The same workload on the engine and in the calibrated simulator: see `experiments.validate`."""
