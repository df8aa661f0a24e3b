"""Where the stages leave things, and how an experiment is called."""

from pathlib import Path

from pipeline.params import CLASS_MAP, Params

INPUTS = Path("data/inputs.json")
RAW = Path("data/raw")
PREPARED = Path("data/prepared")
MODELS = Path("models")
LOCALIZER = Path("localizer")
METRICS = Path("metrics")
ABLATION = METRICS / "ablation"


def run_name(settings: Params) -> str:
    """How people know the experiment: method-backbone-dataset-seed, the method with its localizer if it has one."""
    localizer = "" if settings.localizer == CLASS_MAP else f"+{settings.localizer}"
    return f"{settings.method}{localizer}-{settings.backbone}-{settings.dataset}-s{settings.seed}"
