"""On-failure objects in S3 or in files, and where they go when they are done.

A move copies, then deletes: a kill in between leaves two objects, never none. A missing object
was moved by another run; that is fine. An object that cannot be read or moved stops only itself.
What Lambda cannot have written, by its name or size, is skipped without a look inside.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from asyncsync.aws.clients import AwsClients, ObjectGone, ObjectRefused, aws_errors, member
from asyncsync.tools.errors import CommandFailed, CommandRefused
from asyncsync.tools.state import is_state_document

# Done objects go below this: a folder beside the files, or a prefix of the bucket.
DONE = "redriven"

# An event has at most 6 MB (Lambda quotas). As a string in JSON a quotation mark takes two bytes,
# and a character that takes two bytes in UTF-8 may take six.
OBJECT_BYTES_MAX = 20_000_000

# Lambda's names end in a random UUID. These end like a file of another kind.
_OTHER_KIND = re.compile(r"\.(?!json$)[A-Za-z][A-Za-z0-9]{0,9}$")
_EXPORT = "AWSDynamoDB"  # the folder of DynamoDB's exports


class ObjectLeft(CommandFailed):
    """One object cannot be read or moved; the others can."""


@dataclass(frozen=True, slots=True)
class Listed:
    """An object's name and its size in bytes."""

    name: str
    size: int

    @property
    def may_be_ours(self) -> bool:
        """Whether Lambda may have written it, by its name and its size."""
        *folders, last = self.name.split("/")
        return (
            0 < self.size <= OBJECT_BYTES_MAX
            and not last.startswith(".")
            and last != ""
            and _EXPORT not in folders
            and not _OTHER_KIND.search(last)
            and not is_state_document(last)
        )


class Objects(Protocol):
    """Objects of one place, by name."""

    def listed(self, after: str = "") -> AsyncIterator[Listed]:
        """Yield the objects that are not done and whose names come after a name, in order."""

    async def read(self, name: str) -> bytes | None:
        """Return an object's content; None if it is gone.

        Raises ObjectLeft.
        """

    async def move(self, name: str) -> None:
        """Move an object to those that are done.

        Raises ObjectLeft.
        """


class Files:
    """One file, or every file below a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder = root if root.is_dir() else root.parent

    async def listed(self, after: str = "") -> AsyncIterator[Listed]:
        """Yield the files after a name, in order."""
        paths = sorted(self._root.rglob("*"), key=str) if self._root.is_dir() else [self._root]
        for path in paths:
            is_done = DONE in path.relative_to(self._folder).parts
            if str(path) > after and not is_done and path.is_file():
                yield Listed(str(path), path.stat().st_size)

    async def read(self, name: str) -> bytes | None:
        """Return a file's content; None if it is gone.

        Raises ObjectLeft if it cannot be read.
        """
        return _content(Path(name))

    async def move(self, name: str) -> None:
        """Move a file below the folder of done files.

        Raises ObjectLeft if it cannot be moved.
        """
        _rename(Path(name), self._folder / DONE / Path(name).relative_to(self._folder))


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise ObjectLeft(f"it cannot be read: {exc.strerror}") from exc


def _rename(path: Path, to: Path) -> None:
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        path.replace(to)
    except FileNotFoundError:
        return
    except OSError as exc:
        raise ObjectLeft(f"it cannot be moved to {to}: {exc.strerror}") from exc


class Bucket:
    """Objects under a prefix of a bucket."""

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix

    async def listed(self, after: str = "") -> AsyncIterator[Listed]:
        """Yield the objects after a name, in the order in which S3 lists them.

        Raises AwsFailed.
        """
        request: dict[str, Any] = {"Bucket": self._bucket, "Prefix": self._prefix}
        if after:
            request["StartAfter"] = self._key(after)
        while True:
            work = f"listing {self._url(self._prefix)}"
            with aws_errors(work, "S3"):
                page = await self._client.list_objects_v2(**request)
            for entry in page.get("Contents", []):
                if not entry["Key"].startswith(f"{DONE}/"):
                    yield Listed(self._url(entry["Key"]), member(entry, "Size", work, "S3"))
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = member(page, "NextContinuationToken", work, "S3")

    async def read(self, name: str) -> bytes | None:
        """Return an object's content; None if it is gone.

        Raises ObjectLeft, or AwsFailed where S3 itself is at fault.
        """
        try:
            with aws_errors(f"reading {name}", "S3"):
                answer = await self._client.get_object(Bucket=self._bucket, Key=self._key(name))
                if answer.get("ContentLength", 0) > OBJECT_BYTES_MAX:  # it has grown since
                    raise ObjectLeft("it is too large for an on-failure object")
                return bytes(await answer["Body"].read())
        except ObjectGone:
            return None
        except ObjectRefused as exc:
            raise ObjectLeft(str(exc)) from exc

    async def move(self, name: str) -> None:
        """Copy an object under the prefix of done objects, then delete it.

        Raises ObjectLeft, or AwsFailed where S3 itself is at fault.
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
        except ObjectRefused as exc:
            raise ObjectLeft(str(exc)) from exc

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
