"""Saved progress: lets an interrupted command resume. Named JSON documents, in a file or in S3.

A document is written whole or not at all. The first, "run", describes the run that the others
belong to; a state of another run is refused, because its cursors would skip keys. The run has
an id, and so has each of its documents. A document with another id is ignored: a run that has
ended saved it, or one that began at the same moment. So two runs with the same arguments may do
work twice but never skip any.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any, Protocol, TypeAlias

import anyio
import orjson

from asyncsync.aws.clients import AwsClients, aws_errors
from asyncsync.aws.tables import Table
from asyncsync.mirror import Mirror
from asyncsync.tools.errors import CommandRefused
from asyncsync.tools.mirrors import name_rule, server_name, value_rule

RUN = "run"

# Every document that a command saves; redrive must not take one for a failed batch.
_DOCUMENTS = re.compile(r"(?:run|parts|progress|segment-[0-9]{6})\.json")

# Raised where the documents' content gets another meaning.
FORMAT = 5

# How often a document is saved that changes all the time: the work that a kill repeats, against
# a request to S3 each time.
SAVE_INTERVAL_S = 5.0

# How long the last save may delay a command that was interrupted.
LAST_SAVE_WITHIN_S = 10.0

Document: TypeAlias = dict[str, Any]


class State(Protocol):
    """A place that keeps documents."""

    async def load(self) -> dict[str, Document]:
        """Return every document by name; none where there is no state."""

    async def save(self, name: str, document: Document) -> None:
        """Write one document."""

    async def remove(self) -> None:
        """Remove every document."""


class NoState:
    """Keeps nothing: an interrupted command starts over."""

    async def load(self) -> dict[str, Document]:
        """Return nothing."""
        return {}

    async def save(self, name: str, document: Document) -> None:
        """Write nothing."""

    async def remove(self) -> None:
        """Remove nothing."""


class FileState:
    """All documents in one file, which each save replaces."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._documents: dict[str, Document] = {}

    async def load(self) -> dict[str, Document]:
        """Return every document by name.

        Raises CommandRefused where the file is not a state.
        """
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as exc:
            raise CommandRefused(f"--state {self._path}: {exc.strerror}") from exc
        self._documents = _parse(content, str(self._path))
        return dict(self._documents)

    async def save(self, name: str, document: Document) -> None:
        """Write one document; a kill leaves the file as it was before or after.

        Raises CommandRefused where the file cannot be written.
        """
        self._documents[name] = document
        new_path = self._path.with_name(self._path.name + ".new")
        try:
            new_path.write_bytes(orjson.dumps(self._documents))
            os.replace(new_path, self._path)
        except OSError as exc:
            raise CommandRefused(f"--state {self._path}: {exc.strerror}") from exc

    async def remove(self) -> None:
        """Remove the file."""
        self._documents = {}
        self._path.unlink(missing_ok=True)


class S3State:
    """One object per document, under a prefix."""

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix

    async def load(self) -> dict[str, Document]:
        """Return every document by name.

        Raises AwsFailed, or CommandRefused where an object is not a document.
        """
        documents: dict[str, Document] = {}
        for key in await self._keys():
            with aws_errors(f"reading s3://{self._bucket}/{key}", "S3"):
                answer = await self._client.get_object(Bucket=self._bucket, Key=key)
                content = await answer["Body"].read()
            name = key.removeprefix(self._prefix).removesuffix(".json")
            named = b'{"%b":%b}' % (name.encode(), content)
            documents |= _parse(named, f"s3://{self._bucket}/{key}")
        return documents

    async def save(self, name: str, document: Document) -> None:
        """Write one object.

        Raises AwsFailed.
        """
        key = f"{self._prefix}{name}.json"
        with aws_errors(f"writing s3://{self._bucket}/{key}", "S3"):
            await self._client.put_object(
                Bucket=self._bucket, Key=key, Body=orjson.dumps(document)
            )

    async def remove(self) -> None:
        """Remove every document under the prefix.

        Raises AwsFailed.
        """
        for key in await self._keys():
            with aws_errors(f"removing s3://{self._bucket}/{key}", "S3"):
                await self._client.delete_object(Bucket=self._bucket, Key=key)

    async def _keys(self) -> list[str]:
        keys: list[str] = []
        with aws_errors(f"listing s3://{self._bucket}/{self._prefix}", "S3"):
            pages = self._client.get_paginator("list_objects_v2")
            async for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix):
                keys += [listed["Key"] for listed in page.get("Contents", [])]
        return [key for key in keys if key.endswith(".json")]


def identity_of(command: str, table: Table, mirror: Mirror, **options: Any) -> Document:
    """Return what a saved run belongs to: with anything else, its cursors would skip keys."""
    config = mirror.config
    return {
        "command": command,
        "table": str(table.arn),
        "table_id": table.table_id,
        **options,
        "redis": server_name(mirror),
        "key": name_rule(mirror),
        "value": value_rule(mirror),
        "mode": config.mode,
        "expiry": [config.ttl_s, config.ttl_attribute],
    }


def is_state_document(name: str) -> bool:
    """Return whether an object of this name, without its folders, may be a saved document."""
    return bool(_DOCUMENTS.fullmatch(name))


def resume_hint(place: str) -> str:
    """Return the line that tells how to resume a run."""
    return f"  resume with the same arguments and --state {place}"


@asynccontextmanager
async def open_state(place: str | None, clients: AwsClients) -> AsyncIterator[State]:
    """Open the state at a path or an s3:// prefix; None keeps nothing.

    Raises CommandRefused.
    """
    if place is None:
        yield NoState()
    elif place.startswith("s3://"):
        bucket, prefix = s3_place(place)
        async with clients.open("s3") as client:
            yield S3State(client, bucket, prefix.rstrip("/") + "/")
    else:
        yield FileState(Path(place))


class SavedRun:
    """One run's documents, loaded and saved."""

    def __init__(self, state: State, run_id: str, documents: Mapping[str, Document]) -> None:
        self._state = state
        self._run_id = run_id
        self._documents = {
            name: document
            for name, document in documents.items()
            if document.get("run_id") == run_id
        }

    @property
    def is_resumed(self) -> bool:
        """Whether this run has saved anything."""
        return bool(self._documents)

    def document(self, name: str) -> Document:
        """Return one document; an empty one where it was not saved."""
        return self._documents.get(name, {})

    async def save(self, name: str, document: Document) -> None:
        """Save one document.

        Raises CommandRefused or AwsFailed.
        """
        self._documents[name] = document
        await self._state.save(name, {**document, "run_id": self._run_id})

    async def remove(self) -> None:
        """Remove every document: the work is done.

        Raises AwsFailed.
        """
        await self._state.remove()


async def resume_or_begin(
    state: State,
    documents: Mapping[str, Document],
    identity: Document,
    make_id: Callable[[], str] = lambda: token_hex(8),
) -> SavedRun:
    """Resume the run that the documents belong to, or begin one where there are none.

    Raises CommandRefused where they belong to a run of another identity, and what saving raises.
    """
    identity = {"format": FORMAT, **identity}
    saved = dict(documents.get(RUN, {}))
    run_id = str(saved.pop("run_id", "")) or make_id()
    if saved:
        _refuse_another_run(identity, saved)
    await state.save(RUN, {**identity, "run_id": run_id})
    others = {name: document for name, document in documents.items() if name != RUN}
    return SavedRun(state, run_id, others)


@asynccontextmanager
async def autosave(
    saved_run: SavedRun, name: str, document: Callable[[], Document]
) -> AsyncIterator[None]:
    """Save a document every few seconds, and when the block ends, however it ends."""

    async def save_regularly() -> None:
        while True:
            await anyio.sleep(SAVE_INTERVAL_S)
            await saved_run.save(name, document())

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(save_regularly)
            yield
            tasks.cancel_scope.cancel()
    finally:
        with anyio.move_on_after(LAST_SAVE_WITHIN_S, shield=True):
            await saved_run.save(name, document())


def s3_place(url: str) -> tuple[str, str]:
    """Return the bucket and the key or prefix of an s3:// URL.

    Raises CommandRefused.
    """
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not url.startswith("s3://") or not bucket or not key.strip("/"):
        raise CommandRefused(f"{url} is not of the form s3://bucket/prefix")
    return bucket, key


def _refuse_another_run(identity: Document, saved: Document) -> None:
    if saved == identity:
        return
    different = [name for name in identity if saved.get(name) != identity[name]] or ["its form"]
    name = different[0]
    raise CommandRefused(
        f"--state is of another run: {name} was {saved.get(name)!r} and is now "
        f"{identity.get(name)!r}; give the same arguments, or another --state"
    )


def _parse(content: bytes, place: str) -> dict[str, Document]:
    try:
        documents = orjson.loads(content)
    except orjson.JSONDecodeError:
        documents = None
    if not isinstance(documents, dict) or not all(
        isinstance(document, dict) for document in documents.values()
    ):
        raise CommandRefused(f"--state {place} is not a state that asyncsync has written")
    return documents
