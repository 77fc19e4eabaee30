"""Sampling of tokens from logits: Gumbel noise, top-k, top-p, min-p, logprobs."""
