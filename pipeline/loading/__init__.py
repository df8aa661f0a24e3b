"""Prepared images as batches: decoding, caching, and train and test geometry."""
