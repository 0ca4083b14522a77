"""Lambda functions in moto."""

from __future__ import annotations

import io
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from asyncsync.aws.clients import AwsClients


@asynccontextmanager
async def function(
    clients: AwsClients, name: str = "mirror", handler: str = "app.handler"
) -> AsyncIterator[Any]:
    """Create a function that nothing invokes; yield Lambda's client."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as written:
        written.writestr("app.py", "def handler(event, context): pass\n")
    trust = '{"Version": "2012-10-17", "Statement": []}'
    async with clients.open("iam") as iam, clients.open("lambda") as functions:
        role = await iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)
        await functions.create_function(
            FunctionName=name,
            Runtime="python3.13",
            Role=role["Role"]["Arn"],
            Handler=handler,
            Code={"ZipFile": archive.getvalue()},
        )
        yield functions
