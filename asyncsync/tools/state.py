"""What a command that was cut short goes on from: named JSON documents, in a file or in S3.

A document is written whole or not at all. The first, "run", says what the others belong to; a
state of another run is refused, because its cursors would leave keys out. It bears a mark, and
so does each document: one of another mark was left by a run that has ended, or is written by
one that began at the same moment, and is passed over. So two runs of the same arguments may
do work twice, and never leave any out.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any, Protocol, TypeAlias

import anyio
import orjson

from asyncsync.aws.clients import AwsClients, aws_errors
from asyncsync.tools.errors import CommandRefused

RUN = "run"

# Raised where what the documents hold has another meaning.
FORMAT = 2

# How often a document is written that changes all the time: what a kill repeats, against a
# request to S3 each time.
KEEP_INTERVAL_S = 5.0

# How long the last writing of it may hold up whoever has cut a command short.
KEEP_WITHIN_S = 10.0

Document: TypeAlias = dict[str, Any]


class State(Protocol):
    """Where documents are kept."""

    async def load(self) -> dict[str, Document]:
        """Return every document by its name; none where there is no state."""

    async def save(self, name: str, document: Document) -> None:
        """Write one document."""

    async def remove(self) -> None:
        """Remove them all: the work is done."""


class NoState:
    """Keeps nothing: a command that is cut short begins again."""

    async def load(self) -> dict[str, Document]:
        """Return nothing."""
        return {}

    async def save(self, name: str, document: Document) -> None:
        """Write nothing."""

    async def remove(self) -> None:
        """Remove nothing."""


class FileState:
    """All documents in one file, which is replaced at each change."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._documents: dict[str, Document] = {}

    async def load(self) -> dict[str, Document]:
        """Return every document by its name.

        Raises CommandRefused where the file is not a state.
        """
        try:
            held = self._path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as exc:
            raise CommandRefused(f"--state {self._path}: {exc.strerror}") from exc
        self._documents = _documents(held, str(self._path))
        return dict(self._documents)

    async def save(self, name: str, document: Document) -> None:
        """Write one document; a reader, or a kill, sees the file before or after.

        Raises CommandRefused where it cannot be written.
        """
        self._documents[name] = document
        beside = self._path.with_name(self._path.name + ".new")
        try:
            beside.write_bytes(orjson.dumps(self._documents))
            os.replace(beside, self._path)
        except OSError as exc:
            raise CommandRefused(f"--state {self._path}: {exc.strerror}") from exc

    async def remove(self) -> None:
        """Remove the file."""
        self._documents = {}
        self._path.unlink(missing_ok=True)


class S3State:
    """One object for each document, under a prefix."""

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix

    async def load(self) -> dict[str, Document]:
        """Return every document by its name.

        Raises CommandFailed, or CommandRefused where an object is not a document.
        """
        found: dict[str, Document] = {}
        for key in await self._keys():
            with aws_errors(f"reading s3://{self._bucket}/{key}", "S3"):
                answer = await self._client.get_object(Bucket=self._bucket, Key=key)
                held = await answer["Body"].read()
            name = key.removeprefix(self._prefix).removesuffix(".json")
            found |= _documents(b'{"%b":%b}' % (name.encode(), held), f"s3://{self._bucket}/{key}")
        return found

    async def save(self, name: str, document: Document) -> None:
        """Write one object.

        Raises CommandFailed.
        """
        key = f"{self._prefix}{name}.json"
        with aws_errors(f"writing s3://{self._bucket}/{key}", "S3"):
            await self._client.put_object(
                Bucket=self._bucket, Key=key, Body=orjson.dumps(document)
            )

    async def remove(self) -> None:
        """Remove every object under the prefix that is a document."""
        for key in await self._keys():
            with aws_errors(f"removing s3://{self._bucket}/{key}", "S3"):
                await self._client.delete_object(Bucket=self._bucket, Key=key)

    async def _keys(self) -> list[str]:
        keys: list[str] = []
        with aws_errors(f"listing s3://{self._bucket}/{self._prefix}", "S3"):
            pages = self._client.get_paginator("list_objects_v2")
            async for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix):
                keys += [each["Key"] for each in page.get("Contents", [])]
        return [key for key in keys if key.endswith(".json")]


@asynccontextmanager
async def open_state(where: str | None, dynamo: AwsClients) -> AsyncIterator[State]:
    """Open the state of a path or an s3:// prefix; without either nothing is kept."""
    if where is None:
        yield NoState()
    elif where.startswith("s3://"):
        bucket, prefix = s3_place(where)
        async with dynamo.open("s3") as client:
            yield S3State(client, bucket, prefix.rstrip("/") + "/")
    else:
        yield FileState(Path(where))


class SavedRun:
    """What one run has kept so far, and keeps."""

    def __init__(self, state: State, mark: str, documents: Mapping[str, Document]) -> None:
        self._state = state
        self._mark = mark
        self._documents = {n: each for n, each in documents.items() if each.get("mark") == mark}

    @property
    def is_resumed(self) -> bool:
        """Whether anything was kept."""
        return bool(self._documents)

    def document(self, name: str) -> Document:
        """Return one document; an empty one where none was kept."""
        return self._documents.get(name, {})

    async def save(self, name: str, document: Document) -> None:
        """Keep one document.

        Raises CommandRefused or CommandFailed.
        """
        self._documents[name] = document
        await self._state.save(name, {**document, "mark": self._mark})

    async def remove(self) -> None:
        """Forget all: the work is done."""
        await self._state.remove()


async def keep(
    state: State,
    documents: Mapping[str, Document],
    run: Document,
    make_mark: Callable[[], str] = lambda: token_hex(8),
) -> SavedRun:
    """Go on with the run that documents are of, or begin one, if they are of this one.

    Raises CommandRefused where they are of another, or what saving raises.
    """
    this = {"format": FORMAT, **run}
    held = dict(documents.get(RUN, {}))
    mark = str(held.pop("mark", "")) or make_mark()
    if held:
        refuse_another_run(this, held)
    await state.save(RUN, {**this, "mark": mark})
    others = {name: document for name, document in documents.items() if name != RUN}
    return SavedRun(state, mark, others)


@asynccontextmanager
async def autosave(
    kept: SavedRun, name: str, document: Callable[[], Document]
) -> AsyncIterator[None]:
    """Keep a document of the moment now and then, and at the end however that comes."""

    async def now_and_then() -> None:
        while True:
            await anyio.sleep(KEEP_INTERVAL_S)
            await kept.save(name, document())

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(now_and_then)
            yield
            tasks.cancel_scope.cancel()
    finally:
        with anyio.move_on_after(KEEP_WITHIN_S, shield=True):
            await kept.save(name, document())


def s3_place(url: str) -> tuple[str, str]:
    """Return the bucket and the key or prefix of an s3:// URL.

    Raises CommandRefused.
    """
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not url.startswith("s3://") or not bucket or not key.strip("/"):
        raise CommandRefused(f"{url} is not of the form s3://bucket/prefix")
    return bucket, key


def refuse_another_run(run: Mapping[str, Any], held: Mapping[str, Any]) -> None:
    """Refuse what was kept of another run than this one.

    Raises CommandRefused naming what differs.
    """
    if held == run:
        return
    differ = [name for name in run if held.get(name) != run[name]] or ["its form"]
    raise CommandRefused(
        f"--state is of another run: {differ[0]} was {held.get(differ[0])!r} and is now "
        f"{run.get(differ[0])!r}; give the same arguments, or another --state"
    )


def _documents(held: bytes, where: str) -> dict[str, Document]:
    try:
        documents = orjson.loads(held)
    except orjson.JSONDecodeError:
        documents = None
    if not isinstance(documents, dict) or not all(
        isinstance(each, dict) for each in documents.values()
    ):
        raise CommandRefused(f"--state {where} is not a state that asyncsync has written")
    return documents
