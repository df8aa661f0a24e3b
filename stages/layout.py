"""Where the stages leave things, and how an experiment is called."""

from pathlib import Path

from pipeline.params import Params

INPUTS = Path("data/inputs.json")
RAW = Path("data/raw")
PREPARED = Path("data/prepared")
MODELS = Path("models")
METRICS = Path("metrics")
ABLATION = METRICS / "ablation"


def run_name(settings: Params) -> str:
    """How people know the experiment: method-backbone-dataset-seed."""
    return f"{settings.method}-{settings.backbone}-{settings.dataset}-s{settings.seed}"
