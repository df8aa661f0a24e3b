"""Building blocks that several methods share; each file is named after what it holds."""
