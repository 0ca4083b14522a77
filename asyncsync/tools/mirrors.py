"""The mirror that a command works for: the user's, or one made from the settings."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from traceback import FrameSummary, StackSummary, TracebackException
from typing import Any, TypeVar

from msgspec import structs

from asyncsync.config import Config
from asyncsync.errors import AsyncsyncError, RecordError
from asyncsync.formats import WRITERS, Writer
from asyncsync.iam import Credentials
from asyncsync.keys import AttributeValue, KeyFunction, from_function
from asyncsync.mirror import Mirror, print_line
from asyncsync.tools.errors import CommandRefused, UserCodeFailed
from asyncsync.values import Item, Result, Transform, transformed

A = TypeVar("A")
R = TypeVar("R")

_PACKAGE = str(Path(__file__).parents[1])
_IMPORT = ("<frozen importlib", str(Path(functools.__file__).parent / "importlib"))


def load_mirror(name: str) -> Mirror:
    """Import the user's mirror, named module:name.

    Raises CommandRefused, or UserCodeFailed where the module raises.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise CommandRefused(f"--mirror {name} is not of the form module:name")
    try:
        loaded = import_module(module)
    except AsyncsyncError:
        raise
    except Exception as exc:
        is_absent = isinstance(exc, ModuleNotFoundError) and f"{module}.".startswith(
            f"{exc.name}."
        )
        if is_absent:
            raise CommandRefused(f"--mirror {name} cannot be loaded: {exc}") from exc
        raise UserCodeFailed(user_traceback(exc)) from exc
    try:
        mirror = getattr(loaded, attribute)
    except AttributeError as exc:
        raise CommandRefused(f"--mirror {name} cannot be loaded: {exc}") from exc
    if not isinstance(mirror, Mirror):
        raise CommandRefused(
            f"--mirror {name} is {type(mirror).__name__}, not an asyncsync.Mirror"
        )
    return mirror


def make_mirror(config: Config, credentials: Credentials | None = None) -> Mirror:
    """Make a mirror of the settings that prints nothing; credentials sign in with IAM."""
    return Mirror(config, credentials=credentials, emit=_print_nothing)


def server_name(mirror: Mirror) -> str:
    """Return the words that tell a mirror's server from another, without credentials."""
    server = mirror.config.server
    return f"{server.address}, database {server.database}" if server.database else server.address


def name_rule(mirror: Mirror) -> str:
    """Return what names a mirror's keys: the template, or the user's function."""
    function = mirror.rules.key
    return mirror.config.key if function is None else f"by {_name(function)}"


def value_rule(mirror: Mirror) -> str:
    """Return what makes a mirror's values: the format, and the fields or the user's transform."""
    config, function = mirror.config, mirror.rules.transform
    if function is None:
        return config.value if config.fields is None else f"{config.value} of {config.fields}"
    made = f"by {_name(function)}"
    return made if config.value == "json" else f"{config.value} {made}"


def _name(function: Callable[..., object]) -> str:
    name = getattr(function, "__qualname__", type(function).__qualname__)
    name = f"{getattr(function, '__module__', '?')}.{name}"
    if not name.endswith("<lambda>"):
        return name
    return f"{name} of line {function.__code__.co_firstlineno}"


def _print_nothing(_line: bytes) -> None:
    """Take a log line and leave it."""


def observe(mirror: Mirror, emit: Callable[[bytes], None]) -> None:
    """Make a mirror's log lines go to `emit`, and end at the first fault of the user's code.

    A key function or transform that raises, or returns what the handler cannot use, then raises
    UserCodeFailed out of the mirror; else its record would be a reject, as in Lambda. A mirror
    that the user gave an `emit` keeps that.
    """
    rules = mirror.rules
    mirror.rules = structs.replace(
        rules,
        key=rules.key and _guarded_key(rules.key),
        transform=rules.transform
        and _guarded_transform(rules.transform, WRITERS[rules.config.value]),
    )
    if mirror._emit in (print_line, _print_nothing):  # noqa: SLF001 (no public name changes it)
        mirror._emit = emit  # noqa: SLF001


def _guarded_key(function: KeyFunction) -> KeyFunction:
    def guarded(keys: Mapping[str, AttributeValue]) -> str:
        name = _called(function, keys)
        return _checked(function, name, lambda: from_function(lambda _: name, ()).decode())

    return guarded


def _guarded_transform(function: Transform, write: Writer) -> Transform:
    def guarded(item: Item) -> Result | None:
        value = _called(function, item)
        _checked(function, value, lambda: transformed(lambda _: value, {}, write))
        return value

    return guarded


def _called(function: Callable[[A], R], argument: A) -> R:
    try:
        return function(argument)
    except Exception as exc:
        raise UserCodeFailed(user_traceback(exc)) from exc


def _checked(function: Callable[..., object], returned: object, check: Callable[[], R]) -> R:
    """Return what the handler makes of a return value."""
    try:
        return check()
    except RecordError as exc:
        hint = ""
        if inspect.iscoroutine(returned):
            returned.close()
            hint = ": define it with def, not async def"
        raise UserCodeFailed(f"{_place_of(function)}{exc}{hint}") from exc


def _place_of(function: Callable[..., object]) -> str:
    """Return where the user's function begins, as a traceback's lines."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    code: Any = getattr(function, "__code__", None)
    code = code or getattr(getattr(function, "__call__", None), "__code__", None)  # noqa: B004
    if code is None:  # not written in Python
        return f"{function!r}: "
    frame = FrameSummary(code.co_filename, code.co_firstlineno, code.co_qualname)
    return "".join(StackSummary.from_list([frame]).format())


def user_traceback(error: Exception) -> str:
    """Return the traceback of an error in the user's code, without our frames."""
    report = TracebackException.from_exception(error)
    part: TracebackException | None = report
    while part is not None:
        frames = [frame for frame in part.stack if not frame.filename.startswith(_HIDDEN)]
        part.stack = StackSummary.from_list(frames)
        part = part.__cause__ or part.__context__
    return "".join(report.format()).rstrip()


_HIDDEN = (_PACKAGE, *_IMPORT)
