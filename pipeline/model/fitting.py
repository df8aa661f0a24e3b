"""Fitting a localizer to a trained model: once per model and settings, however often it is asked for."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pipeline import backbones, cache, code, localizers
from pipeline.localizers.base import Localizer, Training
from pipeline.methods.base import Method
from pipeline.model import features
from pipeline.model.features import Source
from pipeline.model.localizer import SETTINGS, save
from pipeline.params import Params
from pipeline.training import frozen
from pipeline.training.checkpoint import environment

KEPT_MIB = 512
"""Fitted localizers kept, so that the same fit asked for twice is done once."""


def fit(
    method: Method,
    model_sha256: str,
    prepared: Path,
    params: Params,
    *,
    say: Callable[[str], None],
    progress: features.Progress = lambda done, total: None,
) -> Path | None:
    """The folder of the localizer that `params` choose, fitted to `method`; None for the class map.

    It is taken from an earlier fit of the same where there is one. The feature maps that it needs are
    written in one pass of the trained network, and one of the trunk as it was loaded where that is another
    network and the localizer looks at it.
    """
    name, sections = params.localizer, params.localizers
    localizer = localizers.build(name, method.backbone, method.num_classes, sections)
    if localizer is None:
        return None
    what = {
        "localizer": name,
        "localizers": {key: section.model_dump(mode="json") for key, section in sections.items()},
        "model": model_sha256,
        "weights": features.weights_identity(params),
        "trunk": params.train.trunk,
        "features_mib": params.localize.features_mib,
        "precision": params.train.precision,
        "input": params.input.model_dump(mode="json"),
        "seed": params.seed,
        "device": str(next(method.parameters()).device),
    }
    modules = [f"pipeline.localizers.{key}" for key in sections]
    contents = [
        (prepared / "meta.json").read_bytes(),
        *code.fingerprints(__name__, *modules, *_modules(method)),
        *environment(),
    ]
    with cache.held("localizers", cache.fingerprint(what, contents), say) as folder:
        if (folder / "fitted" / SETTINGS).exists():
            say("the same localizer is fitted already; it is taken")
        else:
            localizer.to(next(method.parameters()).device)
            if localizer.needs_fit:
                with _training(
                    localizer, method, model_sha256, prepared, params, say, progress
                ) as data:
                    for line in localizer.fit(data):
                        say(line)
            save(folder / "fitted", name, sections, localizer)
        cache.keep_latest(folder.parent, KEPT_MIB * 2**20, folder)
        return folder / "fitted"


def _modules(method: Method) -> list[str]:
    return [type(method).__module__, backbones.module(method.backbone.name)]


@contextmanager
def _training(
    localizer: Localizer,
    method: Method,
    model_sha256: str,
    prepared: Path,
    params: Params,
    say: Callable[[str], None],
    progress: features.Progress,
) -> Iterator[Training]:
    """The feature maps of training images by the trained network and by the trunk as it was loaded."""
    depths, before = localizer.needed()
    own = Source(method.backbone, method, {"model": model_sha256}, _modules(method))
    loaded = features.as_loaded(params, next(method.parameters()).device) if before else None
    if loaded is None or (params.train.trunk == "frozen" and frozen.is_linear(method)):
        # One network: the trained one, or the trunk that training left alone.
        one = own if loaded is None else features.of_trunk(method.backbone, params)
        wanted = [(one, tuple(dict.fromkeys((*depths, *before))))]
    else:
        wanted = [(own, depths), (loaded, before)]
    images = features.chosen(wanted, prepared, params)
    with ExitStack() as stack:
        maps = [
            stack.enter_context(
                features.collected(source, at, images, prepared, params, say=say, progress=progress)
            )
            for source, at in wanted
        ]
        yield Training(maps[0].labels, method.num_classes, maps[0], maps[-1], params.seed)
