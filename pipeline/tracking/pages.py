"""MLflow's pages for the user of this machine: one process, and no writes from other pages."""

import os
import warnings
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from pipeline.tracking.store import Store

HOST = "127.0.0.1"
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


def serve(target: Store, experiment: str, port: int, ready: Callable[[], None]) -> None:
    """Serve the runs of `target` until Ctrl-C or SIGTERM; `ready` is called when pages can be opened."""
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, *args: Any, **options: Any) -> None:
            await super().startup(*args, **options)
            if self.started:
                ready()

    pages = Guard(_mlflow(target), port, f"/experiments/{experiment}/runs")
    config = uvicorn.Config(pages, host=HOST, port=port, log_level="warning", lifespan="off")
    Server(config).run()


def _mlflow(target: Store) -> App:
    """MLflow's own server as an application in this process, without its job queues and their processes."""
    os.environ |= {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }
    from mlflow.server import constants

    artifacts = (target.root / "mlartifacts").as_uri()
    os.environ |= {
        constants.BACKEND_STORE_URI_ENV_VAR: target.uri,
        constants.REGISTRY_STORE_URI_ENV_VAR: target.uri,
        constants.ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/",
        constants.ARTIFACTS_DESTINATION_ENV_VAR: artifacts,
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations between its own dependencies
        from mlflow.server.fastapi_app import app

    application: App = app
    return application


class Guard:
    """Refuses what another page asks for, whichever port it comes from; MLflow lets any local page write.

    A browser names the page in the header Origin of every request that can change something; programs
    send none. The bare address leads to the table of runs.
    """

    def __init__(self, inner: App, port: int, runs: str) -> None:
        self._inner = inner
        self._origins = {f"http://{host}:{port}".encode() for host in (HOST, "localhost")}
        # The query keeps the redirected address from being redirected again.
        self._runs = f"/?wsol#{runs}?workflowType=machine_learning".encode()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        origin = next((v for k, v in scope.get("headers", []) if k == b"origin"), None)
        if origin is not None and origin not in self._origins:
            await _answer(send, 403, b"refused: another page than MLflow's own asks", {})
        elif scope.get("path") == "/" and not scope.get("query_string"):
            await _answer(send, 302, b"", {b"location": self._runs})
        else:
            await self._inner(scope, receive, send)


async def _answer(send: Send, status: int, body: bytes, headers: dict[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers.items())})
    await send({"type": "http.response.body", "body": body})
