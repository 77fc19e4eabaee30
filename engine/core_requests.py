"""How one request with n answers becomes n requests of the core that share their prompt's blocks.

Both fronts, the one that drives a core itself and the one that talks to a core elsewhere, make
their requests here. Knows no text, no queue and no socket.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from engine.input_processor import ProcessedInput
from workbench.config import CacheConfig
from workbench.kv_cache.block_hash import TokenBlockHashes
from workbench.request import Request
from workbench.sampling_params import SamplingParams

RequestT = TypeVar("RequestT")


@dataclass(frozen=True, slots=True)
class PreparedRequest(Generic[RequestT]):
    """A request that has been checked and not been added.

    Attributes:
        request_id: The user's.
        source: What was asked.
        requests: One an answer.
    """

    request_id: str
    source: ProcessedInput
    requests: list[RequestT]

    @property
    def prompt_token_ids(self) -> list[int]:
        """The prompt."""
        return self.source.prompt_token_ids

    @property
    def params(self) -> SamplingParams:
        """As the user gave them."""
        return self.source.params


def answers_of(request_id: str, source: ProcessedInput) -> Iterator[tuple[str, SamplingParams]]:
    """(the core's id, sampling parameters for the device) of each answer."""
    params, device_params = source.params, source.device_params
    if params.n == 1:
        yield request_id, device_params
        return
    for index in range(params.n):
        seed = None if params.seed is None else params.seed + index
        told = params.prompt_logprobs if index == 0 else None
        yield f"{index}_{request_id}", replace(device_params, seed=seed, prompt_logprobs=told)


def add_block_hashes(
    request: Request, prompt_token_ids: Sequence[int], cache_config: CacheConfig
) -> None:
    """Give a request of the core its keys for prefix caching, where it takes part in it."""
    params = request.sampling_params
    # Logits of tokens found in the cache would never be computed.
    if params is not None and params.prompt_logprobs is not None:
        return
    if cache_config.enable_prefix_caching:
        request.block_hashes = TokenBlockHashes(
            prompt_token_ids,
            request.output_token_ids,
            cache_config.block_size,
            cache_config.prefix_caching_hash_algo,
        )
