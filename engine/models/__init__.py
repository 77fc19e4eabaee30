"""Decoder-only language models with the layouts of Hugging Face checkpoints."""
