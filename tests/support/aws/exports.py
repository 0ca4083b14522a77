"""Exports of a table to S3, as AWS lays them out."""

from __future__ import annotations

import gzip
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from hashlib import md5
from typing import Any

import orjson

from asyncsync.aws.clients import AwsClients

BUCKET = "exports"
FOLDER = "daily/AWSDynamoDB/01234567890123-abcdef01"


def part_of(numbers: range) -> bytes:
    """Return one data file: gzip, one item per line."""
    lines = [
        orjson.dumps({"Item": {"Number": {"N": str(number)}, "B": {"B": "/w=="}}}) + b"\n"
        for number in numbers
    ]
    return gzip.compress(b"".join(lines))


class Exported:
    """An export of one table, made of these parts."""

    def __init__(
        self, clients: AwsClients, table: str, parts: list[bytes], **summary: Any
    ) -> None:
        self.clients = clients
        self.parts = parts
        self.files = [
            {
                "itemCount": 100,
                "md5Checksum": b64encode(md5(held).digest()).decode(),
                "etag": md5(held).hexdigest() + "-1",
                "dataFileS3Key": f"{FOLDER}/data/part{at}.json.gz",
            }
            for at, held in enumerate(parts)
        ]
        self.summary = {
            "version": "2020-06-30",
            "exportArn": f"arn:aws:dynamodb:us-east-1:1:table/{table}/export/01234567890123-abc",
            "tableArn": f"arn:aws:dynamodb:us-east-1:123456789012:table/{table}",
            "exportTime": (datetime.now(UTC) - timedelta(hours=1)).isoformat()[:23] + "Z",
            "s3Bucket": BUCKET,
            "manifestFilesS3Key": f"{FOLDER}/manifest-files.json",
            "itemCount": 100 * len(parts),
            "outputFormat": "DYNAMODB_JSON",
            "exportType": "FULL_EXPORT",
            **summary,
        }

    async def put(self, bucket: str = BUCKET, above: str = "") -> str:
        """Create the bucket, upload the export, and return its URL."""
        files = [
            {**each, "dataFileS3Key": f"{above}{each['dataFileS3Key']}"} for each in self.files
        ]
        objects = {
            f"{FOLDER}/manifest-summary.json": orjson.dumps(self.summary),
            f"{FOLDER}/manifest-files.json": b"\n".join(orjson.dumps(each) for each in files),
        }
        objects |= {
            str(each["dataFileS3Key"]): held
            for each, held in zip(self.files, self.parts, strict=True)
        }
        async with self.clients.open("s3") as s3:
            await s3.create_bucket(Bucket=bucket)
            for key, held in objects.items():
                await s3.put_object(Bucket=bucket, Key=f"{above}{key}", Body=held)
        return f"s3://{bucket}/{above}{FOLDER}/"


def parts(count: int = 3) -> list[bytes]:
    return [part_of(range(at * 100, at * 100 + 100)) for at in range(count)]
