"""What is run: `python -m stages.<name>`. Each reads params, calls the library, writes its outputs whole."""

import os

from stages.early import quiet

quiet()

# Read when torch is loaded. OpenMP's threads wait for each other by spinning; beside any other work on
# the cores (a second experiment, a browser) that makes training four times slower.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
