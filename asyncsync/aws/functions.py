"""Reads a deployed function: its settings, its event source mappings, and secrets it refers to."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from asyncsync.aws.clients import AwsClients, AwsFailed, aws_errors
from asyncsync.aws.tables import TableArn, parse_table_arn
from asyncsync.config import PREFIX

# A reference that CloudFormation resolves at a deployment; without one it stays as it is.
_DYNAMIC = re.compile(r"\{\{resolve:(secretsmanager|ssm|ssm-secure):(.+)\}\}")
_ARN = re.compile(r"arn:[\w-]+:(secretsmanager|ssm):.+")

_SECRET_ARN_PARTS = 7


@dataclass(frozen=True, slots=True)
class DeployedFunction:
    """A function's settings and the mappings that matter to it, as Lambda's API returns them."""

    name: str
    settings: Mapping[str, str]  # its ASYNCSYNC_ variables
    mappings: Sequence[Mapping[str, Any]]  # of streams, to this function
    other_mappings: Sequence[Mapping[str, Any]]  # of the same streams, to other functions
    arn: str = ""
    handler: str = ""  # empty for a container image

    @property
    def tables(self) -> list[TableArn]:
        """Return the tables whose streams are mapped to it."""
        arns = {parse_table_arn(mapping["EventSourceArn"]) for mapping in self.mappings}
        return sorted((arn for arn in arns if arn is not None), key=str)


async def read_function(clients: AwsClients, name: str) -> DeployedFunction:
    """Read a function and its mappings.

    Raises AwsFailed where Lambda cannot be used, or could not decrypt the function's settings.
    """
    async with clients.open("lambda") as client:
        with aws_errors(f"reading function {name} and its mappings", "Lambda"):
            configuration = await client.get_function_configuration(FunctionName=name)
            mappings = await _mappings(client, FunctionName=name)
            ids = {mapping["UUID"] for mapping in mappings}
            streams = {mapping.get("EventSourceArn", "") for mapping in mappings}
            other_mappings = [
                mapping
                for stream in sorted(streams)
                for mapping in await _mappings(client, EventSourceArn=stream)
                if mapping["UUID"] not in ids
            ]
    environment = configuration.get("Environment", {})
    if "Error" in environment:
        code = environment["Error"].get("ErrorCode", "an error")
        raise AwsFailed(
            f"Lambda could not decrypt the settings of function {name}: {code}. Allow yourself "
            f"kms:Decrypt on {configuration.get('KMSKeyArn', 'its key')}"
        )
    variables = environment.get("Variables", {})
    return DeployedFunction(
        name,
        {key: value for key, value in variables.items() if key.startswith(PREFIX)},
        [mapping for mapping in mappings if _is_stream(mapping)],
        other_mappings,
        configuration.get("FunctionArn", name),
        configuration.get("Handler", ""),
    )


async def _mappings(client: Any, **query: str) -> list[Mapping[str, Any]]:
    pages = client.get_paginator("list_event_source_mappings").paginate(**query)
    return [mapping async for page in pages for mapping in page["EventSourceMappings"]]


def _is_stream(mapping: Mapping[str, Any]) -> bool:
    return ":dynamodb:" in mapping.get("EventSourceArn", "")


# --- secrets ----------------------------------------------------------------------------------


def is_reference(value: str) -> bool:
    """Return whether a setting's value is the name of a secret, not the secret."""
    return bool(_DYNAMIC.fullmatch(value) or _ARN.fullmatch(value))


async def resolve_reference(clients: AwsClients, reference: str) -> str:
    """Read the secret that a reference names.

    Raises AwsFailed, which names the reference and never the secret.
    """
    match = _DYNAMIC.fullmatch(reference) or _ARN.fullmatch(reference)
    assert match, "a reference"
    name = match[2] if match.re is _DYNAMIC else reference
    if match[1] == "secretsmanager":
        return await _read_secret(clients, name)
    if not name.startswith("arn:"):
        name = re.sub(r":\d+$", "", name) if match[1] == "ssm-secure" else name
    async with clients.open("ssm") as client:
        with aws_errors(f"reading parameter {name}", "Systems Manager"):
            answer = await client.get_parameter(Name=name, WithDecryption=True)
    return str(answer["Parameter"]["Value"])


async def _read_secret(clients: AwsClients, name: str) -> str:
    """Read a secret; its name may end in :SecretString:key:stage, or in an ARN's :key:stage."""
    count = _SECRET_ARN_PARTS if name.startswith("arn:") else 1
    parts = name.split(":")
    secret, rest = ":".join(parts[:count]), [p for p in parts[count:] if p != "SecretString"]
    key, stage, version = (*rest, "", "", "")[:3]
    request = {"SecretId": secret, "VersionStage": stage, "VersionId": version}
    async with clients.open("secretsmanager") as client:
        with aws_errors(f"reading secret {secret}", "Secrets Manager"):
            answer = await client.get_secret_value(**{k: v for k, v in request.items() if v})
    text = str(answer.get("SecretString", ""))
    if not key:
        return text
    try:
        return str(json.loads(text)[key])
    except (ValueError, KeyError, TypeError):
        raise AwsFailed(f"secret {secret} has no key {key}") from None
