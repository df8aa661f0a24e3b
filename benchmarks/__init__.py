"""What is claimed of speed, exactness and errors, measured: `python -m benchmarks.<name>`."""

import stages  # noqa: F401  before torch: threads wait for each other as they do in every stage
