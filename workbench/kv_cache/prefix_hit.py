"""What a look-up in the prefix cache found for one request."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PrefixHit:
    """Cached blocks that a request may adopt, as long as the cache has not changed since.

    Attributes:
        blocks: One list a group; null blocks in front of a sliding window.
        num_tokens: Tokens they spare; a multiple of the block size.
    """

    blocks: tuple[list[int], ...]
    num_tokens: int
