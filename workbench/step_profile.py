"""The shape of one step: what a cost model needs to know to price it, and nothing else.

It does not know which requests run, nor what a token costs.
"""

from dataclasses import dataclass, field


@dataclass(slots=True)
class StepShape:
    """Token and context counts of the rows of one batch.

    Attributes:
        num_decodes: Rows with exactly one query token.
        decode_context: Sum over those rows of the KV tokens read, the new token included.
        prefills: (query_len, context_len before the step), in tokens, of every other row:
            prompt chunks and verifications of draft tokens.
        num_samples: Rows of logits computed (language-model head and sampler).
        num_swap_blocks: KV blocks copied between device and host before the step.
    """

    num_decodes: int = 0
    decode_context: int = 0
    prefills: list[tuple[int, int]] = field(default_factory=list)
    num_samples: int = 0
    num_swap_blocks: int = 0

    @property
    def num_tokens(self) -> int:
        """Query tokens of the step."""
        num_tokens = self.num_decodes
        for query_len, _ in self.prefills:
            num_tokens += query_len
        return num_tokens

    @property
    def num_requests(self) -> int:
        """Rows of the batch."""
        return self.num_decodes + len(self.prefills)
