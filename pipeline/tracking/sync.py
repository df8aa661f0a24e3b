"""Deliver journals to the MLflow stores they were opened for; say what waits."""

from collections.abc import Callable
from pathlib import Path

from pipeline.errors import UserError
from pipeline.tracking import journal, store
from pipeline.tracking.mirror import Mirror
from pipeline.tracking.store import Store

Say = Callable[[str], None]


def target_of(path: Path, root: Path, to: str | None = None) -> tuple[Store, str]:
    """The store a journal was last opened for, or `to`, and the run's name."""
    opened = [event for event, _ in journal.read(path) if event["event"] == "open"][-1]
    address = opened["store"] if to is None else store.without_credentials(store.absolute(to, root))
    return Store(root, opened["experiment"], address), opened["name"]


def status(root: Path, say: Say) -> None:
    """Say one line per journal that has something to deliver."""
    waiting = 0
    for path in journal.all_journals(root):
        target, name = target_of(path, root)
        if events := journal.left(path, target.key):
            waiting += 1
            with journal.unheld(path) as file:
                running = "" if file else ", still running"
            say(f"{name}: {events} events for MLflow ({target}){running}, in {path}")
    say(f"waiting: {waiting}; to deliver: wsol track sync" if waiting else "every run is in MLflow")


def sync(root: Path, say: Say, *, to: str | None = None, again: bool = False) -> None:
    """Deliver every journal that no living run holds; UserError for each store that does not answer."""
    down: dict[Store, store.StoreError] = {}
    for path in journal.all_journals(root):
        target, name = target_of(path, root, to)
        if not end_killed(path):
            say(f"{name}: still running; it delivers by itself")
            continue
        if again:
            forget(path, target)
        if target in down or not journal.left(path, target.key):
            continue
        mirror = Mirror(path, target, patient=True)
        try:
            delivered = mirror.deliver()
        except Exception as error:
            down[target] = store.unavailable(target, error)
            continue
        say(f"{name}: {delivered} events delivered to MLflow ({target})")
        for refused in mirror.refused:
            say(f"{name}: MLflow refused {refused}")
    if down:
        raise UserError([str(cause) for cause in down.values()])


def end_killed(path: Path) -> bool:
    """End a journal whose process died without a word, at its last word; False if it is alive."""
    with journal.unheld(path) as file:
        if file is None:
            return False
        *_, (last, _) = journal.read(path)
        if last["event"] != "end":
            journal.write(file, {"event": "end", "t": last["t"], "status": "KILLED"})
    return True


def forget(path: Path, target: Store) -> None:
    """Have the whole journal delivered once more."""
    with journal.sent(path) as state:
        if state is not None and target.key in state:
            state[target.key]["offset"] = 0
