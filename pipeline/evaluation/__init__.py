"""Boxes against true boxes: evaluation, metrics, and every file of results."""
