"""A real vLLM server beside the simulator: start it, load it, watch its steps, compare."""
