"""Put one bug at a time into a copy of the package and see its check report it.

Run by `make bugs`, in as many copies as there are cores. Unit tests take no part: a bug's row says
whether random seeds catch it, seeds whose server runs the scripts' text in Lua, the small scope,
or a suite on real servers. Seeds stop after 2,000. A bug whose text is no longer in the source
ends the run, and so does a check that fails without any bug. docs/guarantees.md shows the table.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from tests.support.project.patches import Patch, PatchLost, applied, in_copies, jobs_and_words, run

SEEDS = 2_000

Area: TypeAlias = Literal["order", "loss", "deadline", "connection", "formats", "tools", "readers"]

# A check is "seeds", "lua", "scope", or a suite on real servers.
SEEDS_CHECK = "seeds"
LUA_CHECK = "lua"
SCOPE_CHECK = "scope"
READER_CHECK = "reader/test_protocol.py"


@dataclass(frozen=True)
class Bug:
    """One bug: what is wrong, the patches that put it in, the check that must report it."""

    area: Area
    wrong: str
    patches: tuple[Patch, ...]
    check: str = SEEDS_CHECK
    combination: bool = False  # wrong only where a fault meets a replay


def bug(
    area: Area,
    wrong: str,
    file: str,
    old: str,
    new: str,
    check: str = SEEDS_CHECK,
    *,
    combination: bool = False,
) -> Bug:
    """Return a bug of one patch."""
    return Bug(area, wrong, (Patch(file, old, new),), check, combination)


BUGS = (
    # --- order --------------------------------------------------------------------------------
    bug(
        "order",
        "a batch's first record of a key wins, not its latest",
        "collapse.py",
        "if other is None or record.sequence_number >= other.sequence_number:",
        "if other is None:",
    ),
    bug(
        "order",
        "versions sort as text, without the count of their digits",
        "fence.py",
        "return _label(label_ms) + _COUNTS[len(digits)] + digits",
        "return _label(label_ms) + b'26' + digits.ljust(26, b'0')",
    ),
    bug(
        "order",
        "a stream made anew does not beat the old one",
        "fence.py",
        "(FENCE_FORMAT, LABEL_DIGITS, label_ms)",
        "(FENCE_FORMAT, LABEL_DIGITS, 1_767_225_540_000)",
    ),
    bug(
        "order",
        "the script lets an older record over a newer one",
        "fence.lua",
        "version < current[i]",
        "false",
        SCOPE_CHECK,
        combination=True,
    ),
    bug(
        "order",
        "a removal takes its fence along, so no tombstone is left",
        "fence.lua",
        "reply = redis.pcall('SET', fences[i], version, 'EX', fence_ttl)",
        "reply = redis.pcall(expiry == '-' and 'DEL' or 'SET', fences[i],"
        " unpack(expiry == '-' and {} or {version, 'EX', fence_ttl}))",
        SCOPE_CHECK,
        combination=True,
    ),
    bug(
        "order",
        "a rejected record's removal outranks the same record written well",
        "fence.py",
        'RANK_REJECT = b"0"',
        'RANK_REJECT = b"3"',
        combination=True,
    ),
    bug(
        "order",
        "a rejected record's removal ranks as high as the record written well",
        "fence.py",
        'RANK_REJECT = b"0"',
        'RANK_REJECT = b"1"',
        combination=True,
    ),
    bug(
        "order",
        "the script lets an old removal take a newer value",
        "fence.lua",
        "version < current[i]",
        "version < current[i] and expiry ~= '-'",
        SCOPE_CHECK,
        combination=True,
    ),
    bug(
        "order",
        "fences live a minute",
        "plan.py",
        'b"%d" % config.fence_ttl_s',
        'b"60"',
    ),
    # --- loss ---------------------------------------------------------------------------------
    bug(
        "loss",
        "what has no answer counts as written",
        "store.py",
        '    failed = Outcome("failed", error, reason)\n',
        "    failed = APPLIED\n",
    ),
    bug(
        "loss",
        "what the server refuses counts as written",
        "store.py",
        'return Outcome("failed", reply.word, reply.reason(call.arguments[not call.fenced :]))',
        "return APPLIED",
    ),
    bug(
        "loss",
        "the highest failed record is reported, not the lowest",
        "report.py",
        '{"itemIdentifier": min(reported)[1]}',
        '{"itemIdentifier": max(reported)[1]}',
    ),
    bug(
        "loss",
        "the lowest failed record is found by its text",
        "report.py",
        '{"itemIdentifier": min(reported)[1]}',
        '{"itemIdentifier": min(text for _, text in reported)}',
    ),
    bug(
        "loss",
        "a key's value stays where its record cannot be encoded",
        "encode.py",
        "                rank = RANK_REJECT\n",
        "                name, fence, rank = b'x', b'{x}!f', RANK_REJECT\n",
    ),
    bug(
        "loss",
        "a record that cannot be encoded is never reported",
        "report.py",
        'if config.rejects == "report":',
        "if False:",
    ),
    bug(
        "loss",
        "outcomes are told in the wrong order",
        "store.py",
        "for at, entry_reply in zip(call.entries, replies, strict=True):",
        "for at, entry_reply in zip(reversed(call.entries), replies, strict=True):",
    ),
    bug(
        "loss",
        "a request id that was seen before is answered without a write",
        "mirror.py",
        "        decoded = decode(to_bytes(event))\n",
        "        if request_id in vars(self).setdefault('_seen', set()):\n"
        "            return {'batchItemFailures': []}\n"
        "        vars(self)['_seen'].add(request_id)\n"
        "        decoded = decode(to_bytes(event))\n",
        combination=True,
    ),
    # --- deadline -----------------------------------------------------------------------------
    bug(
        "deadline",
        "a write is sent however little time is left",
        "store.py",
        "return (end_s - self._clock()) * 1_000 < SEND_LEFT_MS_MIN",
        "return False",
    ),
    bug(
        "deadline",
        "after a slow connect a write is sent with too little time left",
        "store.py",
        "            self._check_time(end_s)\n        return",
        "        return",
    ),
    bug(
        "deadline",
        "the script is sent again with too little time left",
        "store.py",
        "                    self._check_time(job.end_s)\n",
        "",
        "edges/test_conservation.py",
    ),
    bug(
        "deadline",
        "a wait may be longer than what the invocation has left",
        "store.py",
        "min(self._clock() + self._timeout_s, end_s - ANSWER_RESERVE_MS / 1_000)",
        "self._clock() + self._timeout_s",
    ),
    bug(
        "deadline",
        "no time is kept back for the answer",
        "limits.py",
        "ANSWER_RESERVE_MS = 200",
        "ANSWER_RESERVE_MS = 0",
    ),
    # --- connection ---------------------------------------------------------------------------
    bug(
        "connection",
        "the socket that gave no answer is used again, and its late reply is believed",
        "store.py",
        "        except BaseException:\n            self.close()\n",
        "        except BaseException:\n",
        combination=True,
    ),
    bug(
        "connection",
        "the end of the stream is taken for a reply",
        "connection.py",
        "            if not received:\n                raise ConnectionResetError\n",
        "            if not received:\n                return [1]\n",
    ),
    bug(
        "connection",
        "a connection that died since the last invocation costs the batch",
        "store.py",
        "reconnected = error is not None and reused and",
        "reconnected = error is not None and False and",
    ),
    bug(
        "connection",
        "a connection is thrown away after every batch",
        "store.py",
        "        out_of_time = isinstance(error, OutOfTime)\n",
        "        out_of_time = isinstance(error, OutOfTime)\n        self.close()\n",
    ),
    bug(
        "connection",
        "a connection is kept after READONLY, though the name has moved",
        "store.py",
        '_DEMOTED = ("READONLY", ',
        "_DEMOTED = (",
    ),
    bug(
        "connection",
        "a server without the script is never given it",
        "store.py",
        'word == "NOSCRIPT" and self._command == b"EVALSHA"',
        "False",
    ),
    # --- formats ------------------------------------------------------------------------------
    bug(
        "formats",
        "a hash keeps the fields of an older image",
        "hash.lua",
        "reply == (last - at) / 2 then",
        "true then",
        LUA_CHECK,
    ),
    bug(
        "formats",
        "a key that holds a string stays one in a copy of hashes",
        "hash.lua",
        "if not string.find(tostring(reply.err), 'WRONGTYPE', 1, true) then return reply end",
        "return reply",
        LUA_CHECK,
    ),
    bug(
        "formats",
        "a hash takes the fields of the call's first",
        "plan.py",
        "place = 2 + 3 * len(chunk) + len(fields) + 1",
        "place = 2 + 3 * len(chunk) + 1",
    ),
    bug(
        "formats",
        "a document holds a number that the server rounds",
        "documents.py",
        "return _TOKEN.sub(_exact, text) if _LONG_NUMBER.search(text) else text",
        "return text",
    ),
    # --- tools --------------------------------------------------------------------------------
    bug(
        "tools",
        "a fill ignores the fence",
        "copy/fill.lua",
        "if fence_seen and string.sub(fence_seen, 1, 1) ~= '0' then",
        "if false then",
        LUA_CHECK,
        combination=True,
    ),
    Bug(
        "tools",
        "a fill writes where a value stands",
        (
            Patch(
                "copy/fill.lua", "~= '0' then", "~= '0' and redis.call('EXISTS', key) == 0 then"
            ),
            Patch("copy/fill.lua", "value, 'NX')", "value)"),
        ),
        LUA_CHECK,
        combination=True,
    ),
    bug(
        "tools",
        "what was read yesterday is filled",
        "tools/backfill/filler.py",
        "age_s = self._mirror.wall_clock() - read_s",
        "age_s = 0.0",
        combination=True,
    ),
    bug(
        "tools",
        "a backfill's cursor is saved before its page is filled",
        "tools/backfill/command.py",
        "            filled = await filler.page(page.items, page.read_s)\n",
        "            cursor, early = page.cursor, tally.document()\n"
        "            early = {'after': cursor, 'ended': not cursor, 'tally': early}\n"
        "            await run.saved.save(_name(part), early)\n"
        "            filled = await filler.page(page.items, page.read_s)\n",
    ),
    Bug(
        "tools",
        "a repair reads the item before the fence",
        (
            Patch(
                "copy/repair.py",
                "        snapshots = await read_pairs(",
                "        early = await self._read([each.target.key for each in repairs])\n"
                "        first = {e.target.key: i for e, i in zip(repairs, early)}\n"
                "        snapshots = await read_pairs(",
            ),
            Patch(
                "copy/repair.py",
                "images = await self._read(keys)",
                "images = [first[key] for key in keys]",
            ),
        ),
    ),
    bug(
        "tools",
        "a repair leaves the fence as it is",
        "copy/repair.lua",
        "reply = redis.pcall('SET', KEYS[2], fence, 'EX', fence_ttl)",
        "reply = 1",
        LUA_CHECK,
    ),
    Bug(
        "tools",
        "a repair writes whatever has changed meanwhile",
        (
            Patch(
                "copy/repair.lua",
                "if (fence_now or '') ~= fence_seen or",
                "if false and (fence_now or '') ~= fence_seen or false and",
            ),
            Patch("copy/repair.lua", "if value_now ~= value_seen then return {0} end", ""),
        ),
        LUA_CHECK,
    ),
    bug(
        "tools",
        "a repair compares the value alone",
        "copy/repair.lua",
        "(fence_now or '') ~= fence_seen or ",
        "",
        LUA_CHECK,
        combination=True,
    ),
    bug(
        "tools",
        "an orphan is removed blindly",
        "tools/audit/checks.py",
        "        answers = await self._repair(findings)\n",
        "        orphans = [e.name for e in findings if e.kind == 'orphan']\n"
        "        await self._comparer._copy.remove(orphans)\n"
        "        answers = await self._repair(findings)\n",
    ),
    Bug(
        "tools",
        "a redrive replays an image",
        (
            Patch(
                "copy/repair.py",
                '    version: bytes = b""\n',
                "    version: bytes = b''\n    image: bytes = b''\n",
            ),
            Patch(
                "copy/repair.py",
                "images = await self._read(keys)",
                "images = [each.target.image or None for each in repairs]\n"
                "        if not repairs[0].target.version:\n"
                "            images = await self._read(keys)",
            ),
            Patch(
                "tools/redrive/discarded.py",
                "version(label_ms, record.sequence_number))\n",
                "version(label_ms, record.sequence_number), bytes(record.image))\n",
            ),
        ),
        combination=True,
    ),
    Bug(
        "tools",
        "a redrive pulls the fence back to its record",
        (
            Patch(
                "copy/repair.py",
                'if target.version and (snapshot.fence or b"") >= target.version + RANK_RECORD:',
                "if False:",
            ),
            Patch(
                "copy/repair.py",
                "max(version, repair.target.version)",
                "repair.target.version or version",
            ),
        ),
    ),
    bug(
        "tools",
        "a redrive moves an object before its writes are confirmed",
        "tools/redrive/command.py",
        "            if not reasons:\n",
        "            if True:\n",
    ),
    # --- readers ------------------------------------------------------------------------------
    bug(
        "readers",
        "a fill needs no lease",
        "reader/load.lua",
        "if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end",
        "if not redis.call('GET', KEYS[2]) then return 0 end",
        LUA_CHECK,
    ),
    bug(
        "readers",
        "a fill compares the fence without the nonce",
        "reader/load.lua",
        "if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end",
        "if string.sub(redis.call('GET', KEYS[2]) or '', 1, #ARGV[1] - 26)"
        " ~= string.sub(ARGV[1], 1, -27) then return 0 end",
        READER_CHECK,
    ),
    bug(
        "readers",
        "a fill takes an absent fence for proof",
        "reader/load.lua",
        "if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end",
        "if (redis.call('GET', KEYS[2]) or ARGV[1]) ~= ARGV[1] then return 0 end",
        READER_CHECK,
    ),
    bug(
        "readers",
        "a fill replaces a value that is there",
        "reader/load.lua",
        "if not redis.call(unpack(command)) then return 0 end",
        "if not redis.call(unpack(command)) then redis.call('SET', KEYS[1], ARGV[4]) end",
        READER_CHECK,
    ),
    bug(
        "readers",
        "a lease shortens the life of a fence",
        "reader/lease.lua",
        "if life_ms == -1 or life_ms >= claim_ms then",
        "if false then",
        LUA_CHECK,
    ),
    bug(
        "readers",
        "a lease takes the place of a fence",
        "reader/lease.lua",
        "local lease = head .. '1'",
        "local lease = '01'",
        LUA_CHECK,
    ),
    Bug(
        "readers",
        "a mark of absence outlives the insert",
        (
            Patch(
                "reader/loader.py",
                "            elif isinstance(reply, Absent):\n",
                "            elif isinstance(reply, Absent)"
                " or flight.item.name in self._absent:\n",
            ),
            Patch(
                "reader/loader.py",
                "            fence = fence_of_absent(",
                "            self._absent.add(item.name)\n            fence = fence_of_absent(",
            ),
            Patch(
                "reader/loader.py",
                "        self._tasks: set",
                "        self._absent: set[bytes] = set()\n        self._tasks: set",
            ),
        ),
    ),
    bug(
        "readers",
        "a mark of absence is kept in the value's key",
        "reader/loader.py",
        "            return load_arguments(item.name, item.fence, lease, fence)\n",
        "            return load_arguments(item.name, item.fence, lease, fence, b'{}')\n",
    ),
    Bug(
        "readers",
        "a reader reads the table before it has a lease",
        (
            Patch(
                "reader/loader.py",
                "        replies = await self._cache.run(self._lease, calls)\n",
                "        early = await self._read([flight.item.key for flight in flights])\n"
                "        replies = await self._cache.run(self._lease, calls)\n"
                "        self._early = dict(zip([f.item.key for f in flights], early))\n",
            ),
            Patch(
                "reader/loader.py",
                "            images = await self._read(keys)\n",
                "            images = [self._early.get(key) for key in keys]\n",
            ),
        ),
    ),
    bug(
        "readers",
        "a caller joins a load that has begun",
        "reader/loader.py",
        "            del self._boarding[flight.item.name]\n",
        "",
    ),
    bug(
        "readers",
        "a reader's read of the table is eventually consistent",
        "aws/table_reads.py",
        "TableName=self._table, Key=sdk_key(key), ConsistentRead=True",
        "TableName=self._table, Key=sdk_key(key), ConsistentRead=False",
    ),
)


def run_check(folder: Path, check: str) -> tuple[bool, str]:
    """Run one check on a copy; return whether it passed, else the first thing it reported."""
    if check == SEEDS_CHECK:
        command = ["-m", "asyncsync", "simulate", "--seeds", str(SEEDS), "--jobs", "1"]
        command += ["--violations", "1"]
    elif check == LUA_CHECK:
        command = ["tests/support/lua_server.py", str(SEEDS)]
    elif check == SCOPE_CHECK:
        command = ["-m", "asyncsync", "simulate", "--scope", "3", "--violations", "1"]
    else:
        command = ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"tests/{check}"]
    process = run(folder, *command)
    lines = process.stdout.decode().splitlines()
    # Any other end is no proof: the bug may only have stopped the program.
    reports = [line for line in lines if line.startswith(("VIOLATION", "FAILED"))]
    report = reports[0].removeprefix("VIOLATION").strip() if reports else ""
    return process.returncode == 0, report


def timed_check(folder: Path, check: str) -> tuple[bool, float]:
    """Whether a check passes without a bug, and how many seconds that took."""
    began_s = time.monotonic()
    passes, _ = run_check(folder, check)
    return passes, time.monotonic() - began_s


def try_bug(folder: Path, bug: Bug) -> tuple[str, float]:
    """What a bug's check reports, if anything, and after how many seconds. Raises PatchLost."""
    began_s = time.monotonic()
    with applied(folder, bug.patches):
        _, report = run_check(folder, bug.check)
    return report, time.monotonic() - began_s


def main() -> int:
    """Try every bug, or those that the given words choose; 1 where one lives."""
    jobs, words = jobs_and_words("Put in one bug at a time and see its check report it.")
    bugs = [bug for bug in BUGS if words in f"{bug.area} {bug.wrong}"]
    checks = sorted({bug.check for bug in bugs})
    for check, (passes, seconds) in zip(checks, in_copies(jobs, checks, timed_check), strict=True):
        if not passes:
            print(f"the check {check!r} fails without any bug")
            return 1
        print(f"the check {check!r} passes without a bug, {seconds:.0f} s", flush=True)
    lived = 0
    answers = in_copies(jobs, bugs, try_bug)
    try:
        for at, (bug, (report, seconds)) in enumerate(zip(bugs, answers, strict=True), 1):
            verdict = "caught" if report else "LIVED "
            print(f"{at:3}/{len(bugs)} {verdict} {seconds:5.1f} s  {bug.area}: {bug.wrong}")
            print(f"{'':26}by {bug.check}: {report[:150]}", flush=True)
            lived += not report
    except PatchLost as exc:
        print(exc)
        return 1
    print(f"{len(bugs) - lived} of {len(bugs)} caught")
    return 1 if lived else 0


if __name__ == "__main__":
    raise SystemExit(main())
