"""How long a pass over activations takes that the last kernel has just written.

Knows that half of the second-level cache still holds them, and is faster than the memory. It does
not know which kernel passes.

The three numbers were fitted on `act_fn` of the layer-wise profiles of the RTX PRO 6000
(LLMServingSim, MIT; Llama-3.1-8B and Qwen3-32B, TP 1 and 2, 20 to 315 MB moved) and tested on that
of the RTX 4090.
"""

from simulator.hardware import HardwareConfig

SOURCE = (
    "act_fn of layer-wise profiles of the RTX PRO 6000 (Llama-3.1-8B, Qwen3-32B); tested on that of"
    " the RTX 4090"
)
HELD = 0.5  # of the cache: the other half holds what else went by
FASTER = 3.5  # than the memory's full rate
REACHED = 0.9  # of the memory's full rate, beyond


class CachedMemory:
    """Memory behind a second-level cache.

    Args:
        hardware: Rate of the memory, size of the cache.
    """

    def __init__(self, hardware: HardwareConfig) -> None:
        self._rate = hardware.memory_bandwidth
        self._held = HELD * hardware.l2_cache_bytes

    def seconds(self, num_bytes: float) -> float:
        """Seconds of a pass that reads and writes `num_bytes` in all."""
        held = min(num_bytes, self._held)
        return (held / FASTER + (num_bytes - held) / REACHED) / self._rate
