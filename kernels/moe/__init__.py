"""Mixture of experts: which experts a token goes to, and tokens in the order of experts."""
