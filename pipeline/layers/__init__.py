"""Hiding masks and blocks that several methods share."""
