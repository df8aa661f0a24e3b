"""The files that an evaluation leaves: each is named, written and read by one module."""
