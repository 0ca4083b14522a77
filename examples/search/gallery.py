"""A gallery: DynamoDB holds the pictures, Redis answers by tag, date, owner and words.

The table `Pictures` has the key `Id` (S). A picture has an owner (S), a title (S), tags (SS, may
be missing) and the second it was made (created, N). Deploy `lambda_handler` with
ASYNCSYNC_REDIS_URL and ASYNCSYNC_VALUE=hash. Then make the index once:

    asyncsync index owner:tag tags:tag created:numeric:sortable title:text \\
        --mirror gallery:mirror --table Pictures --create
"""

from __future__ import annotations

import os
from typing import Any

import redis
from redis.commands.search.aggregation import AggregateRequest, Desc
from redis.commands.search.query import Query
from redis.commands.search.reducers import count

from asyncsync import Config, Mirror

INDEX = "idx:Pictures"


def picture(item: dict[str, Any]) -> dict[str, Any]:
    """Join the tags with commas, as Search reads them from a hash."""
    if "tags" not in item:
        return item
    return {**item, "tags": ",".join(item["tags"])}


mirror = Mirror(Config.from_env(os.environ), transform=picture)
lambda_handler = mirror.lambda_handler


class Gallery:
    """Five questions; the values are parameters, so no character of theirs needs an escape."""

    def __init__(self, client: redis.Redis) -> None:
        """Take a client made with protocol=2 and decode_responses=True."""
        self._search = client.ft(INDEX)

    def with_tag(self, tag: str) -> set[str]:
        """Return the ids of the pictures with a tag."""
        return self._ids(Query("@tags:{$tag}").paging(0, 10_000), tag=tag)

    def newest_of(self, owner: str, most: int) -> list[str]:
        """Return an owner's newest pictures, the newest first."""
        query = Query("@owner:{$owner}").sort_by("created", asc=False).paging(0, most)
        return [found.Id for found in self._found(query, owner=owner)]

    def made_between(self, first: int, last: int) -> set[str]:
        """Return the ids of the pictures made in a time, both ends included."""
        query = Query("@created:[$first $last]").paging(0, 10_000)
        return self._ids(query, first=first, last=last)

    def titled(self, word: str) -> set[str]:
        """Return the ids of the pictures with a word in the title."""
        return self._ids(Query("@title:($word)").verbatim().paging(0, 10_000), word=word)

    def busiest_owners(self, tag: str, most: int) -> list[tuple[str, int]]:
        """Return the owners with most pictures of a tag, and their counts."""
        request = (
            AggregateRequest("@tags:{$tag}")
            .group_by("@owner", count().alias("pictures"))
            .sort_by(Desc("@pictures"), max=most)
            .dialect(2)
        )
        rows = self._search.aggregate(request, query_params={"tag": tag}).rows
        return [(row[1], int(row[3])) for row in rows]

    def _ids(self, query: Query, **values: str | int) -> set[str]:
        return {found.Id for found in self._found(query, **values)}

    def _found(self, query: Query, **values: str | int) -> list[Any]:
        answer: Any = self._search.search(query.dialect(2), query_params={**values})
        return list(answer.docs)
