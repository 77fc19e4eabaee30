"""How one replica is spread over GPUs.

Knows the degrees and what they divide. It does not know what the division costs.
"""

from dataclasses import dataclass

from workbench.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ParallelConfig:
    """Degrees of parallelism, named as vLLM names them.

    Attributes:
        tensor_parallel_size: GPUs that share every layer.
        pipeline_parallel_size: Stages that the layers are divided into.
        data_parallel_size: Ranks that hold their own attention and share the experts of a
            mixture-of-experts model. A replica of the simulation is one such rank; the others are
            taken to carry the same load. Without experts the ranks are independent.
        enable_expert_parallel: Whole experts on each GPU, in place of a slice of each expert.

    Raises:
        ConfigError: A degree below 1.
    """

    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    data_parallel_size: int = 1
    enable_expert_parallel: bool = False

    def __post_init__(self) -> None:
        for name in ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"parallel.{name}={value!r} must be an integer of at least 1")
        if not isinstance(self.enable_expert_parallel, bool):
            raise ConfigError(
                f"parallel.enable_expert_parallel={self.enable_expert_parallel!r}"
                " must be true or false"
            )

    @property
    def world_size(self) -> int:
        """GPUs of one data-parallel rank."""
        return self.tensor_parallel_size * self.pipeline_parallel_size

    @property
    def expert_group_size(self) -> int:
        """GPUs over which the experts of one layer are spread, in slices or whole."""
        return self.tensor_parallel_size * self.data_parallel_size
