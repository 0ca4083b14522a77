"""Reads a table's export from S3 instead of scanning the table, without read capacity.

A part goes to a temporary file first and is read only if its checksum is right: so memory stays
bounded. A part that is broken ends itself; the others go on.
"""

from __future__ import annotations

import gzip
import tempfile
import zlib
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import md5
from typing import IO, Any

import msgspec
import orjson
from msgspec import Raw, Struct

from asyncsync.aws.clients import AwsFailed, ObjectGone, ObjectRefused, aws_errors
from asyncsync.aws.items import key_of
from asyncsync.aws.tables import Table
from asyncsync.model import Key
from asyncsync.tools.errors import CommandFailed, CommandRefused
from asyncsync.tools.state import s3_place
from asyncsync.tools.table_scan import SourcePage

# Items in a page: about as many as a scan's page has.
PAGE_ITEMS_MAX = 1_000
PAGE_BYTES_MAX = 1_048_576

_READ_BYTES = 262_144


class BrokenPart(CommandFailed):
    """A part of an export does not match the manifest."""


@dataclass(frozen=True, slots=True)
class Part:
    """One data file of an export."""

    key: str
    items: int
    checksum: str  # base64 of its MD5


@dataclass(frozen=True, slots=True)
class Export:
    """The manifests of an export."""

    made_at: datetime  # the items are as they were then
    bucket: str
    parts: Sequence[Part]


class _Line(Struct):
    Item: Raw


_LINE = msgspec.json.Decoder(_Line)


async def read_manifests(s3: Any, url: str, table: Table) -> Export:
    """Read an export's manifests from s3://bucket/prefix/AWSDynamoDB/id.

    Raises CommandRefused if it is not a full export of this table in DynamoDB JSON.
    """
    bucket, prefix = s3_place(url)
    prefix = prefix.rstrip("/").removesuffix("/manifest-summary.json")
    summary = _object(await _read(s3, bucket, f"{prefix}/manifest-summary.json"), url)
    where = f"--from-export {url}"
    wrong = _why_not(summary, table)
    if wrong:
        raise CommandRefused(f"--from-export {url}: {wrong}")
    files = str(summary.get("manifestFilesS3Key") or f"{prefix}/manifest-files.json")
    lines = (await _read(s3, bucket, files)).splitlines()
    listed = [_object(line, files) for line in lines if line.strip()]
    parts = [_part(each, where) for each in listed]
    expected = summary.get("itemCount")
    if isinstance(expected, int) and expected != sum(part.items for part in parts):
        raise CommandRefused(f"{where}: its two manifests do not count the same items")
    return Export(_time(summary["exportTime"], where), bucket, parts)


def _part(listed: dict[str, Any], where: str) -> Part:
    key, items = listed.get("dataFileS3Key"), listed.get("itemCount")
    if not isinstance(key, str) or not isinstance(items, int) or isinstance(items, bool):
        raise CommandRefused(
            f"{where}: its manifest lists a file without dataFileS3Key or itemCount"
        )
    return Part(key, items, str(listed.get("md5Checksum") or ""))


def _why_not(summary: dict[str, Any], table: Table) -> str:
    if summary.get("outputFormat") != "DYNAMODB_JSON":
        return f"its format is {summary.get('outputFormat')}, not DYNAMODB_JSON"
    if summary.get("exportType", "FULL_EXPORT") != "FULL_EXPORT":
        return f"it is an {summary['exportType']}, which holds changes, not a table"
    arn = summary.get("tableArn")
    if arn != str(table.arn):
        return f"it is of {arn or 'a table that it does not name'}, not of table {table.arn}"
    return "" if "exportTime" in summary else "it has no exportTime"


def _time(text: object, where: str) -> datetime:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        raise CommandRefused(f"{where}: its exportTime {text!r} is not a time") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class ExportParts:
    """The data files of one export, read like the segments of a table."""

    def __init__(self, s3: Any, export: Export, table: Table) -> None:
        self.parts = len(export.parts)
        self.items = sum(part.items for part in export.parts)
        self._s3 = s3
        self._export = export
        self._key_names = sorted(table.key)  # in the order that records have them

    async def pages(self, part: int, cursor: Any) -> AsyncGenerator[SourcePage, None]:
        """Yield a part's pages; the cursor counts the items that were read before.

        Raises BrokenPart, or AwsFailed if S3 refuses.
        """
        export = self._export
        made_s = export.made_at.timestamp()
        async with open_part(self._s3, export.bucket, export.parts[part]) as file:
            for items, after in read_items(file, export.parts[part], self._key_names, cursor or 0):
                yield SourcePage(items, after, made_s)


@asynccontextmanager
async def open_part(s3: Any, bucket: str, part: Part) -> AsyncIterator[IO[bytes]]:
    """Download one part, check its checksum, and yield its file.

    Raises BrokenPart, or AwsFailed if S3 refuses.
    """
    digest = md5(usedforsecurity=False)
    with tempfile.TemporaryFile(prefix="asyncsync-") as file:
        try:
            with aws_errors(f"reading s3://{bucket}/{part.key}", "S3"):
                answer = await s3.get_object(Bucket=bucket, Key=part.key)
                async for chunk in answer["Body"].iter_chunks(_READ_BYTES):
                    digest.update(chunk)
                    file.write(chunk)
        except (ObjectGone, ObjectRefused) as exc:
            raise BrokenPart(f"{part.key}: {exc}") from exc
        if part.checksum and b64encode(digest.digest()).decode() != part.checksum:
            raise BrokenPart(f"{part.key}: its checksum is not the manifest's")
        file.seek(0)
        yield file


def read_items(
    file: IO[bytes], part: Part, key_names: Sequence[str], skip: int
) -> Iterator[tuple[list[tuple[Key, bytes]], int | None]]:
    """Yield a part's items as keys and images, page by page, after the first `skip` items.

    With each page comes how many items the part had until its end; None with the last page.
    Raises BrokenPart if the file is not gzip, a line is not an item, or items are missing.
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
                page.append((key_of(item, key_names), image))
                size += len(image)
                if len(page) == PAGE_ITEMS_MAX or size >= PAGE_BYTES_MAX:
                    yield page, count
                    page, size = [], 0
    except (OSError, EOFError, zlib.error) as exc:
        raise BrokenPart(f"{part.key}: it is not whole ({type(exc).__name__})") from exc
    except (msgspec.DecodeError, AwsFailed, LookupError, TypeError, ValueError) as exc:
        raise BrokenPart(f"{part.key}: line {count} is not an item of the table") from exc
    if count != part.items:
        raise BrokenPart(f"{part.key}: it has {count} items, the manifest says {part.items}")
    yield page, None


async def _read(s3: Any, bucket: str, key: str) -> bytes:
    with aws_errors(f"reading s3://{bucket}/{key}", "S3"):
        answer = await s3.get_object(Bucket=bucket, Key=key)
        body = await answer["Body"].read()
    assert isinstance(body, bytes), "an object's body is bytes"
    return body


def _object(text: bytes, where: str) -> dict[str, Any]:
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        raise CommandRefused(f"{where} is not a manifest of an export")
    return document
