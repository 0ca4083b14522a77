"""What an index holds, from words such as `score:numeric:sortable` to FT.CREATE's arguments. Pure.

A word is ATTRIBUTE:TYPE, then :sortable and :as=NAME in any order. An attribute's name may hold
colons. A field's options are FT.CREATE's defaults, so that FT.INFO's answer is known in advance.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from asyncsync.keys import TABLE, Template
from asyncsync.tools.errors import CommandRefused

TYPES = ("text", "numeric", "tag")
KINDS: Mapping[str, str] = {"hash": "HASH", "redis-json": "JSON"}  # by the format of values

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NEEDS_NO_QUOTES = re.compile(r"[^\s\"'\\]+")


@dataclass(frozen=True, slots=True)
class IndexField:
    """One attribute of the items, and how Search indexes it."""

    attribute: str
    kind: str  # one of TYPES
    name: str  # in queries
    is_sortable: bool = False


@dataclass(frozen=True, slots=True)
class Index:
    """An index over one copy."""

    name: str
    kind: str  # HASH or JSON
    prefix: str
    fields: Sequence[IndexField]


def parse_fields(words: Iterable[str]) -> list[IndexField]:
    """Read a declaration; a word may hold several, with spaces between them.

    Raises CommandRefused.
    """
    fields = [_field(word) for each in words for word in each.split()]
    if not fields:
        raise CommandRefused("no field is declared: give one at least, such as name:text")
    names = [field.name for field in fields]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise CommandRefused(f"two fields have the name {twice}: rename one with :as=NAME")
    return fields


def _field(word: str) -> IndexField:
    parts = word.split(":")
    name, is_sortable = "", False
    while parts and (parts[-1] == "sortable" or parts[-1].startswith("as=")):
        option = parts.pop()
        if option == "sortable":
            is_sortable = True
        else:
            name = option.removeprefix("as=")
    kind = parts.pop() if len(parts) > 1 else ""
    attribute = ":".join(parts)
    if not attribute or kind not in TYPES:
        raise CommandRefused(
            f"{word} declares no field: write ATTRIBUTE:TYPE, then :sortable or :as=NAME; "
            f"TYPE is {', '.join(TYPES)}"
        )
    return IndexField(attribute, kind, name or attribute, is_sortable)


def prefix_of(template: Template) -> str:
    """Return what begins every name; empty where a name begins with a key attribute.

    Raises CommandRefused where only a table's name would tell.
    """
    prefix = ""
    for part in template:
        if isinstance(part, str):
            prefix += part
        elif part.name == TABLE:
            raise CommandRefused(f"the key template has {{{TABLE}}}: give --table or --function")
        else:
            break
    return prefix


def fences_match(template: Template) -> bool:
    """Return whether fences can begin with the prefix, too.

    A fence's name begins with a brace, except where the value's name has a hash tag.
    """
    return any("{" in part for part in template if isinstance(part, str))


def create_command(index: Index) -> list[str]:
    """Return FT.CREATE with its arguments."""
    command = ["FT.CREATE", index.name, "ON", index.kind, "PREFIX", "1", index.prefix, "SCHEMA"]
    for field in index.fields:
        identifier = identifier_of(index, field)
        command += [identifier] if identifier == field.name else [identifier, "AS", field.name]
        command += [field.kind.upper(), *(["SORTABLE"] if field.is_sortable else [])]
    return command


def identifier_of(index: Index, field: IndexField) -> str:
    """Return where Search finds an attribute: a hash's field, or a path into a document."""
    if index.kind == "HASH":
        return field.attribute
    if _IDENTIFIER.fullmatch(field.attribute):
        return f"$.{field.attribute}"
    return f'$["{_escaped(field.attribute)}"]'


def command_line(command: Sequence[str]) -> str:
    """Return a command as one line for redis-cli's prompt."""
    words = [
        word if _NEEDS_NO_QUOTES.fullmatch(word) else f'"{_escaped(word)}"' for word in command
    ]
    return " ".join(words)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def is_same(index: Index, info: object) -> bool:
    """Return whether FT.INFO describes exactly this index; unsure is no."""
    answer = _pairs(info)
    definition = _pairs(answer.get("index_definition"))
    attributes = answer.get("attributes")
    if answer.get("index_options") != [] or not isinstance(attributes, list):
        return False
    is_of_copy = definition.pop("key_type", "") == index.kind and definition.pop(
        "prefixes", []
    ) == [index.prefix]
    rest = {name: value for name, value in definition.items() if name != "indexes_all"}
    wanted = sorted(_attribute_of(index, field) for field in index.fields)
    there = sorted([str(word) for word in each] for each in attributes)
    return is_of_copy and rest == {"default_score": "1"} and wanted == there


def _attribute_of(index: Index, field: IndexField) -> list[str]:
    """Return a field as FT.INFO lists it."""
    words = ["identifier", identifier_of(index, field), "attribute", field.name]
    words += ["type", field.kind.upper()]
    if field.kind == "text":
        words += ["WEIGHT", "1"]
    elif field.kind == "tag":
        words += ["SEPARATOR", "," if index.kind == "HASH" else ""]
    if field.is_sortable:
        is_unnormalized = index.kind == "JSON" or field.kind == "numeric"
        words += ["SORTABLE", *(["UNF"] if is_unnormalized else [])]
    return words


def _pairs(reply: object) -> dict[str, object]:
    words = as_text(reply)
    if not isinstance(words, list) or len(words) % 2:
        return {}
    return {str(name): value for name, value in zip(words[::2], words[1::2], strict=True)}


def as_text(reply: object) -> object:
    """Return a reply with its bytes and simple strings as text."""
    if isinstance(reply, list):
        return [as_text(each) for each in reply]
    return reply.decode(errors="backslashreplace") if isinstance(reply, bytes) else reply
