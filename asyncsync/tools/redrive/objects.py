"""On-failure objects in S3 or in files, and where they go when they are done.

A move copies, then deletes: a kill in between leaves two objects, never none. A missing object
was moved by another run; that is fine.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from asyncsync.aws.clients import AwsClients, ObjectGone, aws_errors
from asyncsync.tools.errors import CommandFailed, CommandRefused

# Done objects go below this: a folder beside the files, or a prefix of the bucket.
DONE = "redriven"


class Objects(Protocol):
    """Objects of one place, by name."""

    def names(self, after: str = "") -> AsyncIterator[str]:
        """Yield the names of objects that are not done and come after a name, in order."""

    async def read(self, name: str) -> bytes | None:
        """Return an object's content; None if it is gone."""

    async def move(self, name: str) -> None:
        """Move an object to those that are done."""


class Files:
    """One file, or every file below a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder = root if root.is_dir() else root.parent

    async def names(self, after: str = "") -> AsyncIterator[str]:
        """Yield the names of files after a name, in order."""
        paths = sorted(self._root.rglob("*"), key=str) if self._root.is_dir() else [self._root]
        for path in paths:
            is_done = DONE in path.relative_to(self._folder).parts
            if str(path) > after and not is_done and path.is_file():
                yield str(path)

    async def read(self, name: str) -> bytes | None:
        """Return a file's content; None if it is gone.

        Raises CommandFailed if it cannot be read.
        """
        return _content(Path(name))

    async def move(self, name: str) -> None:
        """Move a file below the folder of done files.

        Raises CommandFailed if it cannot be moved.
        """
        _rename(Path(name), self._folder / DONE / Path(name).relative_to(self._folder))


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise CommandFailed(f"cannot read {path}: {exc.strerror}") from exc


def _rename(path: Path, to: Path) -> None:
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        path.replace(to)
    except FileNotFoundError:
        return
    except OSError as exc:
        raise CommandFailed(f"cannot move {path} to {to}: {exc.strerror}") from exc


class Bucket:
    """Objects under a prefix of a bucket."""

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix

    async def names(self, after: str = "") -> AsyncIterator[str]:
        """Yield the names of objects after a name, in the order in which S3 lists them.

        Raises AwsFailed.
        """
        request: dict[str, Any] = {"Bucket": self._bucket, "Prefix": self._prefix}
        if after:
            request["StartAfter"] = self._key(after)
        while True:
            with aws_errors(f"listing {self._url(self._prefix)}", "S3"):
                page = await self._client.list_objects_v2(**request)
            for entry in page.get("Contents", []):
                if not entry["Key"].startswith(f"{DONE}/"):
                    yield self._url(entry["Key"])
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = page["NextContinuationToken"]

    async def read(self, name: str) -> bytes | None:
        """Return an object's content; None if it is gone.

        Raises AwsFailed.
        """
        try:
            with aws_errors(f"reading {name}", "S3"):
                answer = await self._client.get_object(Bucket=self._bucket, Key=self._key(name))
                return bytes(await answer["Body"].read())
        except ObjectGone:
            return None

    async def move(self, name: str) -> None:
        """Copy an object under the prefix of done objects, then delete it.

        Raises AwsFailed.
        """
        key = self._key(name)
        source = {"Bucket": self._bucket, "Key": key}
        try:
            with aws_errors(f"copying {name}", "S3"):
                await self._client.copy_object(
                    Bucket=self._bucket, Key=f"{DONE}/{key}", CopySource=source
                )
            with aws_errors(f"deleting {name}", "S3"):
                await self._client.delete_object(**source)
        except ObjectGone:
            return

    def _url(self, key: str) -> str:
        return f"s3://{self._bucket}/{key}"

    def _key(self, name: str) -> str:
        return name.removeprefix(self._url(""))


def files(root: Path) -> Files:
    """Open a file or a folder as a place.

    Raises CommandRefused if it is neither.
    """
    if not root.exists():
        raise CommandRefused(f"{root} is not a file, a folder, or s3://bucket/prefix")
    return Files(root)


@asynccontextmanager
async def open_objects(place: str, clients: AwsClients) -> AsyncIterator[Objects]:
    """Open a file, a folder or an s3:// prefix.

    Raises CommandRefused if there is no such place.
    """
    if not place.startswith("s3://"):
        yield files(Path(place))
        return
    bucket, _, prefix = place.removeprefix("s3://").partition("/")
    if not bucket or prefix.startswith(f"{DONE}/"):
        raise CommandRefused(f"{place} is not s3://bucket/prefix of objects to redrive")
    async with clients.open("s3") as client:
        yield Bucket(client, bucket, prefix)
