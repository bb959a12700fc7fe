"""Progress, tables, pictures and log lines of one flow run as artifacts in Prefect's UI.

A thread sends them, so that a slow or dead server never delays the run; events that cannot be delivered are dropped.
"""

from __future__ import annotations

import base64
import html
import json
import queue
import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from uuid import UUID

from quoin.pipeline.core.events import Event

PROGRESS_INTERVAL_SECONDS = 5.0  # between two updates of one progress artifact
LOG_INTERVAL_SECONDS = 10.0  # between two lines of one block, except warnings; all are in logs/events.jsonl
SERVER_RETRY_SECONDS = 30.0  # until the next try, after the server did not respond
QUEUE_LENGTH = 1000
SHARED_NAME_PATTERN = re.compile(
    r"(?P<whole>.+) (?P<k>\d+)/(?P<n>\d+)"
)  # task names of shared steps, as "priors/search 1 2/6"


class ArtifactSink:
    """Sink that turns events into Prefect artifacts and log lines. ``close`` delivers the remaining ones.

    ``send(kind, key, data, description, update=None) -> id`` creates an artifact, or updates the one whose id is given
    (see ``prefect_sender``). There is one artifact for each name, which later events update; all tasks of a shared step
    have one together. Beside the events of ``pipeline.core.events`` it takes a ``page`` (markdown).
    """

    def __init__(self, send: Callable[..., UUID], log: Callable[[str, str, str], None]) -> None:
        self._send, self._log = send, log
        self._queue: queue.Queue[Event | None] = queue.Queue(QUEUE_LENGTH)
        self._artifact_ids: dict[str, UUID] = {}  # by artifact key
        self._last_sent: dict[str, float] = {}
        self._percent: dict[str, float] = {}
        self._paused_until = 0.0
        self._thread = threading.Thread(target=self._deliver, name="prefect-artifacts", daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        kind, name = event["kind"], event["name"]
        previous = self._percent.get(name, 0.0)
        if kind == "start":
            self._percent[name] = 0.0
        elif kind == "advance":
            self._percent[name] = min(100.0, 100.0 * event["done"] / max(event["total"], 1e-9))
        elif kind == "end" and not event["failed"]:
            self._percent[name] = 100.0
        if kind in ("start", "advance", "end") and (share := SHARED_NAME_PATTERN.fullmatch(name)):
            increment = (self._percent.get(name, 0.0) - previous) / int(share["n"])
            kind, name = "advance", share["whole"]
            done = self._percent[name] = min(100.0, self._percent.get(name, 0.0) + increment)
            event = event | {"kind": kind, "name": name, "done": round(done, 6), "total": 100.0}
        if kind in ("metrics", "place") or (kind in ("advance", "log") and not self._is_due(event)):
            return
        with suppress(queue.Full):
            self._queue.put_nowait(event | {"percent": self._percent.get(name)})

    def close(self, timeout_seconds: float = 20.0) -> None:
        """Deliver queued events, within the timeout."""
        try:
            self._queue.put(None, timeout=1.0)
        except queue.Full:
            return
        self._thread.join(timeout_seconds)

    def _is_due(self, event: Event) -> bool:
        """Whether to send this progress or log line: throttled, except for the last step and warnings."""
        name, now = event["name"], event["time"]
        if event["kind"] == "log":
            key, pause = f"log {name}", LOG_INTERVAL_SECONDS
            always = event["level"] == "warning" or not name.startswith("train/")
        else:
            key, pause, always = name, PROGRESS_INTERVAL_SECONDS, event["done"] >= event["total"]
        if not always and now - self._last_sent.get(key, 0.0) < pause:
            return False
        self._last_sent[key] = now
        return True

    def _deliver(self) -> None:
        while (event := self._queue.get()) is not None:
            if time.monotonic() < self._paused_until:
                continue
            try:
                self._publish(event)
            except Exception:  # without a server the run goes on
                self._paused_until = time.monotonic() + SERVER_RETRY_SECONDS

    def _publish(self, event: Event) -> None:
        name = event["name"]
        match event["kind"]:
            case "start" | "advance" | "end":
                self._put("progress", f"progress-{name}", event["percent"], f"{name}: {event['percent']:.0f} %")
            case "log":
                self._log(name, event["message"], event["level"])
            case "table":
                self._put("table", f"table-{name}", json.dumps(event["rows"], default=str), name)
            case "page":
                self._put("markdown", name, event["markdown"], name)
            case "picture":
                self._put("markdown", f"picture-{name}", image_markdown(event), event["caption"])

    def _put(self, kind: str, name: str, data: Any, description: str) -> None:
        key = artifact_key(name)
        self._artifact_ids[key] = self._send(kind, key, data, description, update=self._artifact_ids.get(key))


def artifact_key(name: str) -> str:
    """An artifact key: lowercase letters, numbers and dashes. ``train/b0_1`` -> ``train-b0-1``."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def image_markdown(event: Mapping[str, Any]) -> str:
    """The picture in Markdown, as a data URI: no file has to be served."""
    data = base64.b64encode(event["jpeg"]).decode()
    return f"{html.escape(event['caption'])}\n\n![{event['name']}](data:image/jpeg;base64,{data})"


def prefect_sender(flow_run_id: UUID) -> Callable[..., UUID]:
    """``send`` for ``ArtifactSink``: creates or updates artifacts through Prefect's own client."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate

    client = get_client(sync_client=True, httpx_settings={"timeout": 20.0})

    def send(kind: str, key: str, data: Any, description: str, update: UUID | None = None) -> UUID:
        if update is not None:
            client.update_artifact(update, ArtifactUpdate(data=data, description=description))
            return update
        created = ArtifactCreate(type=kind, key=key, data=data, description=description, flow_run_id=flow_run_id)
        return client.create_artifact(created).id

    return send
