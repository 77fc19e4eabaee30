"""A step that is as large as a step can be and reads and writes no cache.

For measuring memory: its rows attend to the null block and its tokens are written nowhere.
"""

import numpy as np
import torch

from engine.attention.backend import AttentionBatch


def profile_batch(num_tokens: int, max_rows: int, device: torch.device) -> AttentionBatch:
    """`num_tokens` tokens spread evenly over as many rows as there may be.

    Every token has position 0 and every row as many keys as queries, so tables of null blocks do.
    """
    num_rows = min(max_rows, num_tokens)
    lengths = np.full(num_rows, num_tokens // num_rows, dtype=np.int32)
    lengths[: num_tokens % num_rows] += 1
    lengths = lengths[np.argsort(lengths != 1, kind="stable")]
    longest = int(lengths.max())
    starts = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    seq_lens = torch.from_numpy(lengths).to(device)
    tables = torch.zeros(num_rows, longest, dtype=torch.int32, device=device)
    slots = torch.full((num_tokens,), -1, dtype=torch.int64, device=device)
    groups = 2  # as many as there may be; the model's layers name the group they use
    return AttentionBatch(
        num_tokens=num_tokens,
        num_rows=num_rows,
        num_decode_rows=int((lengths == 1).sum()),
        max_query_len=longest,
        max_seq_len=longest,
        positions=torch.zeros(num_tokens, dtype=torch.int64, device=device),
        query_start_loc=torch.from_numpy(starts).to(device),
        seq_lens=seq_lens,
        block_tables=(tables,) * groups,
        slot_mappings=(slots,) * groups,
        query_lens_cpu=lengths,
        seq_lens_cpu=lengths,
    )
