"""Everything that wants a GPU, as one resumable command: see `experiments.gpu_suite.suite`."""
