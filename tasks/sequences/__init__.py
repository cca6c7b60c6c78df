"""Sequences to sequences: sentence pairs, tokenizers, decoding, and the task that trains on them."""
