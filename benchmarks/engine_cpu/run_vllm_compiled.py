"""vLLM's CPU build with torch.compile."""

import sys

from run_vllm import main

if __name__ == "__main__":
    main(*sys.argv[1:], "compiled")
