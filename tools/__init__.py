"""The commands of `wsol`, one a module: its docstring is the help, `arguments` and `main` the rest."""

from stages.early import quiet

quiet()

__version__ = "0.1.0"
