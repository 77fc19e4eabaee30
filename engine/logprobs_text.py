"""Log probabilities as users get them: by token id, with rank and text.

Knows how positions become dicts. Where the numbers come from, `logprobs` knows.
"""

from collections.abc import Sequence
from typing import Any

from engine.outputs import Logprob, PositionLogprobs
from workbench.token_logprobs import TokenLogprobs


def describe_logprobs(
    positions: Sequence[TokenLogprobs], tokenizer: Any = None
) -> list[PositionLogprobs]:
    """One dict a position: its own token first, then the most likely ones in order.

    Args:
        positions: As the model runner gave them.
        tokenizer: Of transformers, for the text of each token by itself; None: without text.
    """
    texts: dict[int, str | None] = {}
    if tokenizer is not None:
        wanted = {token_id for position in positions for token_id in position.token_ids}
        texts = {token_id: str(tokenizer.decode([token_id])) for token_id in wanted}
    described = []
    for position in positions:
        ranks = (position.rank, *range(1, len(position.token_ids)))
        columns = zip(position.token_ids, position.logprobs, ranks, strict=True)
        described.append(
            {
                token_id: Logprob(logprob, rank, texts.get(token_id))
                for token_id, logprob, rank in columns
            }
        )
    return described
