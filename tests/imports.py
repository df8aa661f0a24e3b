"""Which files of ours a module imports."""

from pipeline.code import ROOT, imported

__all__ = ["ROOT", "imported"]
