"""Grammars for answers, compiled and matched by llguidance.

Grammars are compiled for a tokenizer and cached; each request gets its own state. What the core
asks of a grammar is workbench.structured_output.Grammar. Nothing here needs torch.
"""

from engine.structured_output.compiler import GrammarCompiler

__all__ = ["GrammarCompiler"]
