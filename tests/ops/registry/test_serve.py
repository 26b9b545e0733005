"""The registry over HTTP: what the log says now, the broker's absence, and a client that sends nonsense."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from ops.registry import serve
from ops.registry.schema_log import register_schemas
from ops.registry.serve import Registry, Schemas
from schemas.errors import OperatorError
from schemas.settings import Settings

pytestmark = pytest.mark.kafka


@contextmanager
def served(bootstrap: str, timeout_s: float = 30.0) -> Iterator[str]:
    with Registry(Schemas(bootstrap, timeout_s), 0) as registry:
        thread = threading.Thread(target=registry.serve_forever)
        thread.start()
        try:
            yield registry.url
        finally:
            registry.shutdown()
            thread.join()


async def test_it_tells_what_the_log_says_also_what_came_later(installed: Settings) -> None:
    bootstrap = installed.kafka.bootstrap_servers
    with served(bootstrap) as url:
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            latest = (await client.get("/subjects/tasks.requests-value/versions/latest")).json()
            by_id = await client.get(f"/schemas/ids/{latest['id']}")
            assert by_id.json() == {"schema": latest["schema"]}
            assert by_id.headers["content-type"] == "application/vnd.schemaregistry.v1+json"
            schema = {"type": "record", "name": "Late", "fields": [{"name": "text", "type": "string"}]}
            assert (await client.get("/subjects/late-value/versions/1")).status_code == 404
            await register_schemas(bootstrap, {"late-value": schema}, 30.0)
            for _ in range(300):
                if (found := await client.get("/subjects/late-value/versions/1/schema")).status_code == 200:
                    break
                await asyncio.sleep(0.05)
            assert found.json() == schema


async def test_a_broker_that_is_away_is_an_answer_too() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with served(address, timeout_s=0.5) as url:
            async with httpx.AsyncClient(timeout=30) as client:
                told = await client.get(f"{url}/subjects")
    assert (told.status_code, told.json()["error_code"]) == (503, 50301)
    assert address in told.json()["message"]


async def test_a_body_without_a_length_or_over_the_limit_is_refused(
    installed: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "_BODY_BYTES_MAX", 10)
    with served(installed.kafka.bootstrap_servers) as url:
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            told = await client.post("/subjects/x", content=b"0123456789a")
            assert told.status_code == 413
            assert (await client.post("/subjects/x", content=b"0123456789")).status_code == 422
            assert (await client.put("/config", json={"compatibility": "NONE"})).status_code == 405
            assert (await client.get("/config")).status_code == 200


def test_a_port_that_is_taken_is_named() -> None:
    with served("127.0.0.1:1") as url, pytest.raises(OperatorError, match="cannot be used") as caught:
        Registry(Schemas("127.0.0.1:1", 1.0), int(url.rpartition(":")[2]))
    assert "--port 0" in caught.value.hint
