"""The mirror of a table of players: its key function and its transform."""

from collections.abc import Mapping

from asyncsync import AttributeValue, Config, Mirror


def player_key(keys: Mapping[str, AttributeValue]) -> str:
    return "player-" + keys["Number"]["N"]


def public(item: dict[str, object]) -> dict[str, object] | None:
    if item.get("Hidden"):
        return None  # not in the copy
    return {name: value for name, value in item.items() if name != "Email"}


mirror = Mirror(Config(redis_url="redis://127.0.0.1:6379"), key=player_key, transform=public)
lambda_handler = mirror.lambda_handler
