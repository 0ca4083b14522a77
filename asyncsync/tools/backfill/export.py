"""An export of a table to S3, read in place of a scan: its parts, streamed, at no read capacity.

Of a part nothing is handed on before its checksum was right: it is kept in a temporary file
meanwhile, so memory stays bounded. A part that is not whole is an error of its own, and the
others go on.
"""

from __future__ import annotations

import gzip
import tempfile
import zlib
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import md5
from typing import IO, Any

import msgspec
import orjson
from msgspec import Raw, Struct

from asyncsync.aws.clients import aws_errors
from asyncsync.aws.items import key_of
from asyncsync.aws.tables import Table
from asyncsync.model import Key
from asyncsync.tools.errors import CommandFailed, CommandRefused
from asyncsync.tools.state import s3_place

# Items handed on at once: about a page of a scan.
PAGE_ITEMS_MAX = 1_000
PAGE_BYTES_MAX = 1_048_576

_READ_BYTES = 262_144


class BrokenPart(CommandFailed):
    """A part of an export is not what the manifest says."""


@dataclass(frozen=True, slots=True)
class Part:
    """One data file of an export."""

    key: str
    items: int
    checksum: str  # base64 of its MD5


@dataclass(frozen=True, slots=True)
class Export:
    """What the manifests say."""

    made_at: datetime  # the table as it was then
    bucket: str
    parts: Sequence[Part]

    @property
    def items(self) -> int:
        """Count the items of all parts."""
        return sum(each.items for each in self.parts)


class _Line(Struct):
    Item: Raw


_LINE = msgspec.json.Decoder(_Line)


async def read_manifests(s3: Any, url: str, table: Table) -> Export:
    """Read what an export consists of, from s3://bucket/prefix/AWSDynamoDB/id.

    Raises CommandRefused where it is not a full export of this table in DynamoDB JSON.
    """
    bucket, prefix = s3_place(url)
    prefix = prefix.rstrip("/").removesuffix("/manifest-summary.json")
    summary = _object(await _read(s3, bucket, f"{prefix}/manifest-summary.json"), url)
    wrong = _why_not(summary, table)
    if wrong:
        raise CommandRefused(f"--from-export {url}: {wrong}")
    files = str(summary.get("manifestFilesS3Key") or f"{prefix}/manifest-files.json")
    lines = (await _read(s3, bucket, files)).splitlines()
    listed = [_object(line, files) for line in lines if line.strip()]
    parts = [
        Part(str(each["dataFileS3Key"]), int(each["itemCount"]), str(each.get("md5Checksum", "")))
        for each in listed
    ]
    return Export(_time(summary["exportTime"]), bucket, parts)


def _why_not(summary: dict[str, Any], table: Table) -> str:
    if summary.get("outputFormat") != "DYNAMODB_JSON":
        return f"its format is {summary.get('outputFormat')}, not DYNAMODB_JSON"
    if summary.get("exportType", "FULL_EXPORT") != "FULL_EXPORT":
        return f"it is an {summary['exportType']}, which holds changes, not a table"
    arn = str(summary.get("tableArn", ""))
    if arn.rpartition("/")[2] != table.name:
        return f"it is of {arn}, not of table {table.name}"
    return "" if "exportTime" in summary else "it does not say when it was made"


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@asynccontextmanager
async def open_part(s3: Any, bucket: str, part: Part) -> AsyncIterator[IO[bytes]]:
    """Bring one part here and hand over its file, once its checksum was right.

    Raises BrokenPart, or CommandFailed where S3 does not give it.
    """
    digest = md5(usedforsecurity=False)
    with tempfile.TemporaryFile(prefix="asyncsync-") as file:
        with aws_errors(f"reading s3://{bucket}/{part.key}", "S3"):
            answer = await s3.get_object(Bucket=bucket, Key=part.key)
            async for chunk in answer["Body"].iter_chunks(_READ_BYTES):
                digest.update(chunk)
                file.write(chunk)
        if part.checksum and b64encode(digest.digest()).decode() != part.checksum:
            raise BrokenPart(f"{part.key}: its checksum is not the manifest's")
        file.seek(0)
        yield file


def pages(
    file: IO[bytes], part: Part, names: Sequence[str], skip: int
) -> Iterator[list[tuple[Key, bytes]]]:
    """Read a part's items as keys and images, a page at a time, after the first so many.

    Raises BrokenPart where it is not gzip, a line is not an item, or items are missing.
    """
    count = size = 0
    page: list[tuple[Key, bytes]] = []
    try:
        with gzip.GzipFile(fileobj=file) as lines:
            for line in lines:
                count += 1
                if count <= skip:
                    continue
                item = _LINE.decode(line).Item
                image = bytes(item)
                page.append((key_of(item, names), image))
                size += len(image)
                if len(page) == PAGE_ITEMS_MAX or size >= PAGE_BYTES_MAX:
                    yield page
                    page, size = [], 0
    except (OSError, EOFError, zlib.error) as exc:
        raise BrokenPart(f"{part.key}: it is not whole ({type(exc).__name__})") from exc
    except (msgspec.DecodeError, LookupError, TypeError, ValueError) as exc:
        raise BrokenPart(f"{part.key}: line {count} is not an item of the table") from exc
    if page:
        yield page
    if count != part.items:
        raise BrokenPart(f"{part.key}: it has {count} items, the manifest says {part.items}")


async def _read(s3: Any, bucket: str, key: str) -> bytes:
    with aws_errors(f"reading s3://{bucket}/{key}", "S3"):
        answer = await s3.get_object(Bucket=bucket, Key=key)
        held = await answer["Body"].read()
    assert isinstance(held, bytes), "an object's body is bytes"
    return held


def _object(text: bytes, where: str) -> dict[str, Any]:
    try:
        read = orjson.loads(text)
    except orjson.JSONDecodeError:
        read = None
    if not isinstance(read, dict):
        raise CommandRefused(f"{where} is not a manifest of an export")
    return read
