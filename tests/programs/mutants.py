"""Take one rule at a time out of a copy of the package and see its tests fail.

Run by `make mutants`, in as many copies as there are cores. A mutant whose text is no longer in
the source ends the run, and so does a suite that fails without any mutant. A mutant that its suite
lets live makes the run fail.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from tests.support.project.patches import (
    Patch,
    PatchLost,
    applied,
    in_copies,
    jobs_and_words,
    suite_passes,
)

RULES = "edges/test_cluster_rules.py"
LEASE, READER = "reader/test_protocol.py", "reader/test_reader.py"
CIRCUIT = "reader/test_circuit.py"
FILL = "copy/test_fill.py"
REPAIR = "copy/test_repair.py"
FORMAT_COPY = "copy/test_format_copy.py"
FORMAT_STORE = "edges/test_format_store.py"
REDRIVE = "tools/test_redrive.py"
RETIRE = "tools/test_retire.py"
AUDIT, LOOKS, NAMES = "tools/test_audit.py", "tools/test_confirm.py", "copy/test_names.py"
SLICES, TRAIL = "tools/test_slices.py", "tools/test_cursors.py"


@dataclass(frozen=True)
class Mutant:
    """One rule taken out: `old` becomes `new` in `file`, and `suite` must fail."""

    rule: str
    file: str
    old: str
    new: str
    suite: str = "edges/test_failures.py"


MUTANTS = (
    # --- the failures table of the design -----------------------------------------------------
    Mutant(
        "an unencodable survivor's key is removed",
        "encode.py",
        "            rank = RANK_REJECT\n",
        "            continue\n",
    ),
    Mutant(
        "that removal has rank 0, so the same record can be written well later",
        "encode.py",
        "            rank = RANK_REJECT\n",
        "            rank = b'9'\n",
    ),
    Mutant(
        "a reject is reported",
        "report.py",
        'if config.rejects == "report":',
        "if False:",
    ),
    Mutant("skip goes on", "report.py", 'if config.rejects == "report":', "if True:"),
    Mutant(
        "skip never skips a failed write",
        "report.py",
        "for entry, _ in failed]\n    if config",
        "for entry, _ in failed if config.rejects == 'report']\n    if config",
    ),
    Mutant(
        "a record without a usable key is reported",
        "report.py",
        "rejects = [*decoded.rejects, *encoded.rejects]",
        "rejects = [*encoded.rejects]",
    ),
    Mutant(
        "a record that cannot be named raises",
        "report.py",
        "    if decoded.unnamed:\n        return EventError(",
        "    if False:\n        return EventError(",
    ),
    Mutant(
        "the rest is applied before that",
        "decode.py",
        "            unnamed.append(_NO_SEQUENCE_NUMBER)\n            continue\n",
        "            raise EventError(f'cannot be named: {_NO_SEQUENCE_NUMBER}')\n",
    ),
    Mutant(
        "a view without new images raises",
        "mirror.py",
        '("KEYS_ONLY", "OLD_IMAGE")',
        '("KEYS_ONLY",)',
    ),
    Mutant(
        "a refused write is a failed one",
        "store.py",
        'return Outcome("failed", reply.word, reply.reason(call.arguments[not call.fenced :]))',
        "return APPLIED",
    ),
    Mutant(
        "refused credentials raise",
        "connection.py",
        "if reply.word in _REFUSAL_WORDS or",
        "if",
    ),
    Mutant(
        "a dead connection is opened again once",
        "store.py",
        "reconnected = error is not None and reused and",
        "reconnected = error is not None and not reused and",
    ),
    Mutant(
        "a fresh connection is not tried twice",
        "store.py",
        "reconnected = error is not None and reused and",
        "reconnected = error is not None and",
        "edges/test_failures.py",
    ),
    Mutant(
        "what has no answer in time has failed",
        "store.py",
        '    failed = Outcome("failed", error, reason)\n',
        "    failed = APPLIED\n",
    ),
    Mutant(
        "the socket that gave no answer is thrown away",
        "store.py",
        "        except BaseException:\n            self.close()\n",
        "        except BaseException:\n",
    ),
    Mutant(
        "without the fence a write that timed out is not sent again",
        "store.py",
        "return pending[0].fenced or not error.timed_out",
        "return True",
    ),
    Mutant(
        "nothing is sent with less than 500 ms left",
        "store.py",
        '        """Raise OutOfTime if there is too little time to send."""\n',
        '        """"""\n        return\n',
    ),
    Mutant(
        "nothing is sent after connecting with less than 500 ms left",
        "store.py",
        "            self._check_time(end_s)\n        return",
        "        return",
    ),
    Mutant(
        "no wait is longer than what is left",
        "store.py",
        "min(self._clock() + self._timeout_s, end_s - ANSWER_RESERVE_MS / 1_000)",
        "self._clock() + self._timeout_s",
    ),
    Mutant(
        "the lowest failed record is reported",
        "report.py",
        '{"itemIdentifier": min(reported)[1]}',
        '{"itemIdentifier": max(reported)[1]}',
    ),
    Mutant(
        "it is reported as the text that came",
        "report.py",
        '{"itemIdentifier": min(reported)[1]}',
        '{"itemIdentifier": str(min(reported)[0])}',
    ),
    Mutant(
        "two items on one Redis key raise",
        "encode.py",
        "    _refuse_shared_names(records)\n",
        "",
    ),
    # --- the fence ----------------------------------------------------------------------------
    Mutant(
        "equal is applied again",
        "fence.lua",
        "version < current[i]",
        "version <= current[i]",
        "edges/test_store.py",
    ),
    Mutant("older is fenced", "fence.lua", "version < current[i]", "false", "edges/test_order.py"),
    Mutant(
        "versions are no Lua numbers",
        "fence.lua",
        "version < current[i]",
        "tonumber(version) < tonumber(current[i])",
        "edges/test_store.py",
    ),
    Mutant(
        "a refused write leaves its fence",
        "fence.lua",
        "if not (type(reply) == 'table' and reply.err) then",
        "if true then",
        "edges/test_store.py",
    ),
    Mutant(
        "a removal leaves a tombstone",
        "fence.lua",
        "reply = redis.pcall('DEL', key)",
        "reply = redis.pcall('DEL', key, fences[i]) ; version = '0'",
        "edges/test_order.py",
    ),
    Mutant(
        "the fence moves in refresh where nothing is written",
        "fence.lua",
        "reply = redis.pcall('SET', key, value, 'XX')",
        "reply = redis.pcall('SET', key, value, 'XX') or {err = 'absent'}",
        "edges/test_store.py",
    ),
    Mutant(
        "a fence lives as long as its setting",
        "fence.lua",
        "'EX', fence_ttl",
        "'EX', 60",
        "edges/test_store.py",
    ),
    Mutant(
        "a version counts its digits",
        "fence.py",
        "return _label(label_ms) + _COUNTS[len(digits)] + digits",
        "return _label(label_ms) + digits",
        "edges/test_order.py",
    ),
    Mutant(
        "a version begins with its stream's label",
        "fence.py",
        "(FENCE_FORMAT, LABEL_DIGITS, label_ms)",
        "(FENCE_FORMAT, LABEL_DIGITS, 0)",
        "edges/test_order.py",
    ),
    Mutant(
        "collapse is by sequence number, not by arrival",
        "collapse.py",
        "if other is None or record.sequence_number >= other.sequence_number:",
        "if True:",
    ),
    # --- the round trip -----------------------------------------------------------------------
    Mutant(
        "a server without the script gets it",
        "store.py",
        'word == "NOSCRIPT" and self._command == b"EVALSHA"',
        "False",
        "edges/test_store.py",
    ),
    Mutant(
        "a call that was made too late is not sent",
        "store.py",
        "                job.out_of_time = True\n                return\n",
        "                pass\n",
        "edges/test_store.py",
    ),
    Mutant(
        "what was not sent for want of time fails",
        "store.py",
        "                if job.out_of_time:\n                    raise OutOfTime\n",
        "",
        "edges/test_store.py",
    ),
    Mutant(
        "what did not go out at once goes before a reply is waited for",
        "transport.py",
        "        while self._unsent:\n            wait_at_most",
        "        while False:\n            wait_at_most",
        "edges/test_transport.py",
    ),
    Mutant(
        "what has been sent of a piece is not sent again",
        "transport.py",
        "memoryview(data)[sent:]",
        "memoryview(data)",
        "edges/test_transport.py",
    ),
    Mutant(
        "a blocking socket waits no longer than it is let",
        "transport.py",
        "waiting.settimeout(left_s)",
        "waiting.settimeout(None if left_s > 0.15 else left_s)",
        "edges/test_transport.py",
    ),
    Mutant(
        "no time left is no wait",
        "transport.py",
        "    if left_s <= 0:\n        raise TimeoutError\n",
        "    left_s = max(left_s, 0)\n",
        "edges/test_transport.py",
    ),
    Mutant(
        "a name is looked up for no longer than there is time",
        "transport.py",
        "thread.join(max(0.0, time_left()))",
        "thread.join()",
        "edges/test_transport.py",
    ),
    Mutant(
        "a call goes out before the next is made",
        "connection.py",
        "if size >= _WRITE_BYTES:",
        "if False:",
        "edges/test_store.py",
    ),
    Mutant(
        "a reply speaks for its own call only",
        "store.py",
        "*self._without_script, *sent, *self._waiting",
        "*self._without_script, *self._waiting",
    ),
    Mutant(
        "the script is not sent with less than 500 ms left",
        "store.py",
        "                    self._check_time(job.end_s)\n",
        "",
        "edges/test_conservation.py",
    ),
    Mutant(
        "a plain read hands back what was read",
        "store.py",
        '        return Outcome("applied", reply=reply)\n',
        '        return APPLIED if reply == b"OK" else Outcome("applied", reply=reply)\n',
        "edges/test_store.py",
    ),
    Mutant(
        "a call whose ASKING broke the connection is pending",
        "store.py",
        "                self._sent += (None, call)\n"
        '                yield (b"ASKING",)\n'
        "            else:\n"
        "                self._sent.append(call)\n",
        "                self._sent.append(None)\n"
        '                yield (b"ASKING",)\n'
        "            self._sent.append(call)\n",
        "edges/test_conservation.py",
    ),
    Mutant(
        "a timeout of the socket is a failure of the connection",
        "connection.py",
        '        raise StoreUnavailable("TimeoutError", silent, timed_out=True) from exc\n',
        "        raise\n",
        "edges/test_conservation.py",
    ),
    Mutant(
        "a call holds the server for about a millisecond",
        "limits.py",
        "CALL_KEYS_MAX = 180",
        "CALL_KEYS_MAX = 1_000",
        "core/test_plan.py",
    ),
    Mutant(
        "a certificate's name is checked",
        "connection.py",
        "return ssl.create_default_context(cafile=ca_file)",
        "c = ssl.create_default_context(cafile=ca_file)\n"
        "    c.check_hostname = False\n    return c",
        "edges/test_connection.py",
    ),
    Mutant(
        "the database is chosen",
        "connection.py",
        "    if server.database:\n",
        "    if False:\n",
        "edges/test_connection.py",
    ),
    Mutant(
        "one event loop for the life of the process, on a cluster",
        "mirror.py",
        "        if self._loop is None:\n",
        "        if True:\n",
        "edges/test_cluster.py",
    ),
    # --- signing in with IAM ------------------------------------------------------------------
    Mutant(
        "IAM: each new connection asks for the password anew",
        "mirror.py",
        "        self._password = _password_of(config, credentials, wall_clock)\n",
        "        first = _password_of(config, credentials, wall_clock)()\n"
        "        self._password = lambda: first\n",
        "edges/test_iam.py",
    ),
    Mutant(
        "IAM: a token is made anew at three quarters of its life",
        "iam.py",
        "< IAM_TOKEN_AGE_S_MAX",
        "< IAM_TOKEN_S",
        "edges/test_iam.py",
    ),
    Mutant(
        "IAM: and not kept where the clock was set back",
        "iam.py",
        "if not 0 <= now_s - signed_s < IAM",
        "if not now_s - signed_s < IAM",
        "edges/test_iam.py",
    ),
    Mutant(
        "IAM: a role's session token is signed with",
        "iam.py",
        "    if by.session_token:\n",
        "    if False:\n",
        "edges/test_iam.py",
    ),
    Mutant(
        "IAM: a serverless cache is named as one",
        "iam.py",
        "    if is_serverless(server.host):\n",
        "    if False:\n",
        "edges/test_iam.py",
    ),
    Mutant(
        "IAM: MemoryDB's tokens are signed for its own service",
        "iam.py",
        'service = "memorydb" if',
        'service = "elasticache" if',
        "edges/test_iam.py",
    ),
    Mutant(
        "IAM: what signs is missed at a cold start",
        "iam.py",
        "    credentials()  # at",
        "    # at",
        "edges/test_iam.py",
    ),
    Mutant(
        "IAM: credentials are not shown",
        "iam.py",
        'f"AwsCredentials(region={self.region!r})"',
        'f"AwsCredentials({self.secret_access_key!r})"',
        "edges/test_iam.py",
    ),
    Mutant(
        "IAM: a token needs TLS",
        "config.py",
        "    elif not server.tls:\n",
        "    elif False:\n",
        "core/test_config.py",
    ),
    Mutant(
        "IAM: and no password beside it",
        "config.py",
        "    elif server.password:\n",
        "    elif False:\n",
        "core/test_config.py",
    ),
    # --- a cluster ----------------------------------------------------------------------------
    Mutant(
        "a call has keys of one slot",
        "plan.py",
        "slots.setdefault(slot(entry.name), [])",
        "slots.setdefault(7, [])",
        "core/test_plan.py",
    ),
    Mutant(
        "a call that is moved is followed",
        "cluster.py",
        "        shares.setdefault(target, [])",
        "        word == 'ASK' and shares.setdefault(target, [])",
        RULES,
    ),
    Mutant(
        "a call is sent on so often and no more",
        "cluster.py",
        "range(REDIRECTIONS_MAX + 1)",
        "range(100)",
        RULES,
    ),
    Mutant(
        "ASKING stands before a call that is asked for",
        "store.py",
        "            if call.asking:\n",
        "            if False:\n",
        RULES,
    ),
    Mutant(
        "a slot that is asked for elsewhere has not moved",
        "cluster.py",
        '        if word == "MOVED":\n',
        "        if True:\n",
        RULES,
    ),
    Mutant(
        "no topology outlives a failure",
        "cluster.py",
        "            self._slot_owners = []\n        return",
        "            pass\n        return",
        RULES,
    ),
    Mutant(
        "nodes are asked for the topology by turns",
        "cluster.py",
        "                self._known.append(node)\n",
        "                self._known.insert(0, node)\n",
        RULES,
    ),
    Mutant(
        "the node that gave the topology is asked last",
        "cluster.py",
        "[*(each for each in nodes if each != node), node]",
        "[node, *nodes]",
        RULES,
    ),
    Mutant(
        "a dead connection is opened again for the topology, too",
        "cluster.py",
        "for node in [*candidates, *again]:",
        "for node in candidates:",
        RULES,
    ),
    Mutant(
        "so many nodes are asked for it and no more",
        "cluster.py",
        "[:TOPOLOGY_ASKED_MAX]",
        "",
        RULES,
    ),
    Mutant(
        "a node's fresh connection is not tried twice",
        "cluster.py",
        "reused = node in run.connected and node not in run.dead",
        "reused = True",
        RULES,
    ),
    Mutant(
        "a node's old connection that died is opened again",
        "cluster.py",
        "reused = node in run.connected and node not in run.dead",
        "reused = False",
        RULES,
    ),
    Mutant(
        "a refusal by one node throws every connection away",
        "cluster.py",
        "            self.close()\n            raise\n",
        "            raise\n",
        RULES,
    ),
    Mutant(
        "a node that names no host means its own",
        "cluster.py",
        "host=host or by.host",
        "host=host",
        "edges/test_cluster.py",
    ),
    # --- the reader's protocol ----------------------------------------------------------------
    Mutant(
        "a value that is there ends a lease",
        "reader/lease.lua",
        "if value then",
        "if false then",
        LEASE,
    ),
    Mutant(
        "a lease keeps the fence's version and rank",
        "reader/lease.lua",
        "local lease = head ..",
        "local lease = '0' ..",
        LEASE,
    ),
    Mutant(
        "a lease is unique",
        "reader/lease.lua",
        "now_ms + lease_ms) .. nonce",
        "now_ms + lease_ms) .. '111111111111'",
        LEASE,
    ),
    Mutant(
        "a lease does not shorten a fence's life",
        "reader/lease.lua",
        "lease, 'KEEPTTL')",
        "lease, 'PX', claim_ms)",
        LEASE,
    ),
    Mutant(
        "a lease lives at least a claim's life",
        "reader/lease.lua",
        "life_ms == -1 or life_ms >= claim_ms",
        "fence",
        LEASE,
    ),
    Mutant(
        "another's live lease is no lease",
        "reader/lease.lua",
        "return {3, left_ms} end",
        "end",
        LEASE,
    ),
    Mutant("a lease ends", "reader/lease.lua", "left_ms > 0 and ", "", LEASE),
    Mutant(
        "a clock that went back keeps no lease alive",
        "reader/lease.lua",
        " and left_ms <= claim_ms",
        "",
        LEASE,
    ),
    Mutant(
        "the same nonce gets its lease again",
        "reader/lease.lua",
        " and string.sub(tail, 15) ~= nonce",
        "",
        LEASE,
    ),
    Mutant(
        "known absent is remembered",
        "reader/lease.lua",
        "if kind == '2' then",
        "if false then",
        LEASE,
    ),
    Mutant(
        "a fence of another format is left alone",
        "reader/lease.lua",
        "return {4, 0} end",
        "end",
        LEASE,
    ),
    Mutant(
        "a load needs its lease",
        "reader/load.lua",
        "if redis.call('GET', KEYS[2]) ~= ARGV[1] then",
        "if false then",
        LEASE,
    ),
    Mutant(
        "an absent fence proves nothing",
        "reader/load.lua",
        "if redis.call('GET', KEYS[2]) ~= ARGV[1] then",
        "local f = redis.call('GET', KEYS[2])\nif f and f ~= ARGV[1] then",
        LEASE,
    ),
    Mutant(
        "a load writes only where no value is",
        "reader/load.lua",
        ", ARGV[4], 'NX'}",
        ", ARGV[4]}",
        LEASE,
    ),
    Mutant(
        "a mark needs an absent value",
        "reader/load.lua",
        "== 1 then return 0 end",
        "== 2 then return 0 end",
        LEASE,
    ),
    Mutant(
        "a load keeps the fence's life",
        "reader/load.lua",
        "ARGV[2], 'KEEPTTL')",
        "ARGV[2], 'EX', 60)",
        LEASE,
    ),
    Mutant(
        "a load gives the fence rank 2",
        "reader/load.lua",
        "redis.call('SET', KEYS[2], ARGV[2], 'KEEPTTL')",
        "",
        LEASE,
    ),
    Mutant(
        "a load expires",
        "reader/load.lua",
        "command[5] = 'PXAT'\n    command[6] = ARGV[3]",
        "",
        LEASE,
    ),
    Mutant(
        "a loaded value's fence has rank 2",
        "reader/protocol.py",
        "lease.head[:-1] + RANK_REPAIR + lease.nonce",
        "lease.head + lease.nonce",
        LEASE,
    ),
    Mutant(
        "a mark keeps the rank",
        "reader/protocol.py",
        "(lease.head, KIND_ABSENT,",
        "(lease.head[:-1] + RANK_REPAIR, KIND_ABSENT,",
        LEASE,
    ),
    # --- the reader ---------------------------------------------------------------------------
    Mutant(
        "a process loads a key once",
        "reader/loader.py",
        "self._boarding.get(item.name) for item",
        "None for item",
        READER,
    ),
    Mutant(
        "a load that has begun takes no more callers",
        "reader/loader.py",
        "            del self._boarding[flight.item.name]\n",
        "",
        READER,
    ),
    Mutant(
        "a caller that gives up leaves the load to the others",
        "reader/loader.py",
        "asyncio.shield(flight.result) for",
        "flight.result for",
        READER,
    ),
    Mutant(
        "a reader waits for another's load",
        "reader/loader.py",
        "busy.append(flight)",
        "ready.append(flight)",
        READER,
    ),
    Mutant(
        "a wait for another's load ends",
        "reader/loader.py",
        "if not busy or edges.clock() >= end_s:",
        "if not busy:",
        READER,
    ),
    Mutant(
        "a load that fails ends its lease",
        "reader/loader.py",
        "                flight.fail(exc)\n"
        "            return [_release(flight) for flight in flights]\n",
        "                flight.fail(exc)\n            return []\n",
        READER,
    ),
    Mutant(
        "an absent item is marked",
        "reader/loader.py",
        "return load_arguments(item.name, item.fence, lease, fence)\n        expires",
        "return None\n        expires",
        READER,
    ),
    Mutant(
        "a wait for the budget is waited",
        "reader/loader.py",
        "            await self._edges.sleep(wait_s)\n",
        "            pass\n",
        READER,
    ),
    Mutant(
        "a budget that is used up is an error",
        "reader/loader.py",
        "if wait_s is None:",
        "if False:",
        READER,
    ),
    Mutant(
        "jitter never makes a value live longer",
        "reader/loader.py",
        "return min(expires_at_ms, now_ms",
        "return max(expires_at_ms, now_ms",
        READER,
    ),
    Mutant(
        "values loaded together do not expire together",
        "reader/loader.py",
        "share = 1 - self._edges.chance.uniform(0, self._options.jitter)",
        "share = 1",
        READER,
    ),
    Mutant(
        "an item that cannot be encoded is an error",
        "reader/loader.py",
        "if fault or entry is None:",
        "if entry is None:",
        READER,
    ),
    Mutant(
        "one item is read consistently",
        "aws/table_reads.py",
        "Key=sdk_key(key), ConsistentRead=True",
        "Key=sdk_key(key), ConsistentRead=False",
        READER,
    ),
    Mutant(
        "many items are read consistently",
        "aws/table_reads.py",
        '"Keys": keys, "ConsistentRead": True',
        '"Keys": keys, "ConsistentRead": False',
        READER,
    ),
    Mutant(
        "keys left unread are read again",
        "aws/table_reads.py",
        "return self._of_table(responses), rest",
        "return self._of_table(responses), []",
        READER,
    ),
    Mutant(
        "an answer's silence is not absence",
        "aws/table_reads.py",
        "if not responses and len(rest) == len(keys):",
        "if not responses:",
        READER,
    ),
    Mutant(
        "a reader needs fences",
        "reader/reader.py",
        'if rules.config.fence == "off":',
        "if False:",
        READER,
    ),
    Mutant(
        "readers write values where the handler writes none",
        "reader/reader.py",
        'return structs.replace(rules, config=structs.replace(rules.config, mode="mirror"))',
        "return rules",
        READER,
    ),
    Mutant(
        "another program's value is passed over",
        "reader/reader.py",
        "return None if own is None else read_item(own, value_format)",
        "return read_item(value, value_format)",
        READER,
    ),
    Mutant(
        "a full pool is waited for",
        "reader/cache.py",
        "async with self._turns:",
        "async with asyncio.Semaphore():",
        READER,
    ),
    Mutant(
        "a refusal by the server opens no circuit",
        "reader/cache.py",
        "return isinstance(reply, ClusterError)",
        "return True",
        READER,
    ),
    Mutant(
        "an open circuit does not ask",
        "reader/cache.py",
        "if not self.circuit.allows(self._clock()):",
        "if False:",
        READER,
    ),
    Mutant(
        "a server without the script is given it",
        "reader/cache.py",
        "if isinstance(reply, NoScriptError)]",
        "if False]",
        READER,
    ),
    Mutant(
        "an open circuit allows one probe at a time",
        "reader/circuit.py",
        "        self._retry_s = now_s + CIRCUIT_PAUSE_S  # for the next, if nobody hears "
        "of this probe\n",
        "",
        CIRCUIT,
    ),
    Mutant(
        "a success ends a row of failures",
        "reader/circuit.py",
        "        self._failures = 0\n        self.state",
        "        self.state",
        CIRCUIT,
    ),
    Mutant(
        "a budget saves one second's worth",
        "reader/bucket.py",
        "min(self._per_s, self._tokens + elapsed_s * self._per_s)",
        "self._tokens + elapsed_s * self._per_s",
        CIRCUIT,
    ),
    Mutant(
        "a refused reservation costs nothing",
        "reader/bucket.py",
        "        self._tokens -= count\n        return needed_s",
        "        return needed_s",
        CIRCUIT,
    ),
    # --- fill and repair ----------------------------------------------------------------------
    Mutant("a fence stops a fill", "copy/fill.lua", "if fence_seen and", "if false and", FILL),
    Mutant(
        "a reader's claim stops no fill",
        "copy/fill.lua",
        "string.sub(fence_seen, 1, 1) ~= '0'",
        "true",
        FILL,
    ),
    Mutant(
        "a value stops a fill",
        "copy/fill.lua",
        "pcall('SET', key, value, 'NX')",
        "pcall('SET', key, value)",
        FILL,
    ),
    Mutant(
        "a repair writes only where the fence is what it was",
        "copy/repair.lua",
        "(fence_now or '') ~= fence_seen or ",
        "",
        REPAIR,
    ),
    Mutant(
        "and only where the value is",
        "copy/repair.lua",
        "if value_now ~= value_seen then return {0} end",
        "",
        REPAIR,
    ),
    Mutant(
        "of a hash it compares each field",
        "copy/equals.lua",
        "if values[pair[1]] ~= pair[2] then return false end",
        "",
        FORMAT_COPY,
    ),
    Mutant(
        "and that there is no other",
        "copy/equals.lua",
        "return size == #value",
        "return true",
        FORMAT_COPY,
    ),
    Mutant(
        "a hash or a document loses the expiry of an older value",
        "write.lua",
        "if expiry == '' then return redis.pcall('PERSIST', key) end",
        "if expiry == '' then return reply end",
        FORMAT_STORE,
    ),
    Mutant(
        "refresh writes no hash and no document where no key is",
        "write.lua",
        "exists ~= (option == 'XX' and 1 or 0)",
        "false",
        FORMAT_STORE,
    ),
    Mutant(
        "a hash that is refused for want of memory stays as it was",
        "hash.lua",
        "  local reply = redis.pcall('HSET', key, unpack(ARGV, at + 1, last))\n",
        "  redis.pcall('DEL', key)\n"
        "  local reply = redis.pcall('HSET', key, unpack(ARGV, at + 1, last))\n",
        FORMAT_STORE,
    ),
    Mutant(
        "a key of another type becomes a document",
        "document.lua",
        "string.find(text, 'wrong Redis type', 1, true)",
        "false",
        FORMAT_STORE,
    ),
    Mutant(
        "a call holds no more fields than a server takes",
        "plan.py",
        "or fields + entry_fields > FIELD_ARGUMENTS_MAX",
        "or False",
        "core/test_hashes.py",
    ),
    Mutant(
        "only as many fields as one call carries make a hash",
        "hashes.py",
        "if len(fields) > 2 * HASH_FIELDS_MAX:",
        "if False:",
        "core/test_hashes.py",
    ),
    Mutant(
        "a number of a document has a power of ten that is exact",
        "documents.py",
        "> _EXACT_POWER_MAX:",
        "> 300:",
        "core/test_documents.py",
    ),
    Mutant(
        "the item's key is always copied",
        "encode.py",
        "config.field_names.union(key_attributes)",
        "config.field_names",
        "core/test_fields.py",
    ),
    Mutant(
        "it leaves a fence of its own",
        "copy/repair.lua",
        "redis.pcall('SET', KEYS[2], fence, 'EX', fence_ttl)",
        "1",
        REPAIR,
    ),
    Mutant(
        "a refused repair leaves the fence",
        "copy/repair.lua",
        "if not (type(reply) == 'table' and reply.err) then",
        "if true then",
        REPAIR,
    ),
    Mutant(
        "the fence is read before the item",
        "copy/repair.py",
        "        images = await self._read(keys)\n",
        "        images = await self._read(keys)\n"
        "        names = [each.names for each in repairs]\n"
        "        later = await read_pairs(self._store, names, self._config)\n"
        "        for each, now in zip(repairs, later):\n"
        "            each.snapshot = now\n",
        REPAIR,
    ),
    Mutant(
        "what changed is not taken for repaired",
        "copy/repair.py",
        '            if outcome.kind != "fenced":\n',
        "            if True:\n",
        REPAIR,
    ),
    Mutant(
        "a repair keeps the version",
        "copy/repair.py",
        "max(version, repair.target.version)",
        "repair.target.version or version_in(None)[0]",
        REPAIR,
    ),
    Mutant(
        "a repair has rank 2",
        "copy/repair.py",
        "repair.target.version), RANK_REPAIR",
        "repair.target.version), RANK_RECORD",
        REPAIR,
    ),
    Mutant(
        "each repair has a nonce of its own",
        "copy/repair.py",
        "self._chance.randrange(10**NONCE_DIGITS)",
        "7",
        REPAIR,
    ),
    Mutant(
        "a removal of what cannot be encoded claims no version",
        "copy/repair.py",
        "if not repair.item.fault:",
        "if True:",
        REPAIR,
    ),
    Mutant(
        "a fence that is past the version is left",
        "copy/repair.py",
        "if target.version and (snapshot.fence",
        "if False and (snapshot.fence",
        REPAIR,
    ),
    Mutant(
        "at rank 0 it is not past",
        "copy/repair.py",
        ">= target.version + RANK_RECORD",
        ">= target.version",
        REPAIR,
    ),
    Mutant(
        "a repair ends a minute after the look",
        "copy/repair.py",
        "self._write(repairs, mirror.clock() + left_s)",
        "self._write(repairs, float('inf'))",
        REPAIR,
    ),
    Mutant(
        "a minute ends while the machine sleeps, too",
        "copy/repair.py",
        "min(end_s - mirror.clock(), wall_end_s - mirror.wall_clock())",
        "end_s - mirror.clock()",
        REPAIR,
    ),
    Mutant(
        "a fence of another format is left alone",
        "fence.py",
        "        and fence.version == version(fence.label_ms, fence.sequence_number)\n",
        "",
        FILL,
    ),
    # --- redrive ------------------------------------------------------------------------------
    Mutant(
        "redrive takes the highest record of a key",
        "tools/redrive/discarded.py",
        "target.version > other.version",
        "target.version < other.version",
        REDRIVE,
    ),
    Mutant(
        "redrive leaves the fence at the record's version",
        "tools/redrive/discarded.py",
        "Target(record.key, version(label_ms, record.sequence_number))",
        "Target(record.key)",
        REDRIVE,
    ),
    Mutant(
        "redrive keeps an object of which a key is not confirmed",
        "tools/redrive/command.py",
        "            if not reasons:\n",
        "            if True:\n",
        REDRIVE,
    ),
    Mutant(
        "redrive keeps an object of which a record has no key",
        "tools/redrive/command.py",
        '[Unresolved(name, "unreadable", b"", fault) for fault in batch.faults]',
        "[]",
        REDRIVE,
    ),
    Mutant(
        "redrive moves nothing in a dry run",
        "tools/redrive/command.py",
        "[] if self._dry_run else await _move(objects, done)",
        "await _move(objects, done)",
        REDRIVE,
    ),
    Mutant(
        "redrive writes nothing in a dry run",
        "copy/repair.py",
        "        if not self._dry_run:\n",
        "        if True:\n",
        REDRIVE,
    ),
    Mutant(
        "redrive ends where Redis is away",
        "tools/redrive/command.py",
        "if answers and all(",
        "if False and all(",
        REDRIVE,
    ),
    Mutant(
        "redrive copies an object before it is removed",
        "tools/redrive/objects.py",
        'with aws_errors(f"copying {name}", "S3"):',
        'with aws_errors(f"copying {name}", "S3"):\n'
        "                await self._client.delete_object(**source)",
        REDRIVE,
    ),
    # --- audit --------------------------------------------------------------------------------
    Mutant(
        "audit counts no key whose fence or value has changed between looks",
        "tools/audit/confirm.py",
        "if each.snapshot == snapshots[key]]",
        "]",
        LOOKS,
    ),
    Mutant(
        "audit takes the fence into what has changed",
        "tools/audit/confirm.py",
        "(digest, snapshot.fence)",
        "(digest, None)",
        AUDIT,
    ),
    Mutant(
        "audit lets the pipeline have its time",
        "tools/audit/confirm.py",
        "        await wait()\n",
        "",
        AUDIT,
    ),
    Mutant(
        "audit's first look is a read of its own, consistent",
        "tools/audit/confirm.py",
        "    suspects = await differing(keys)\n",
        "    suspects: dict[Key, Difference] = {}\n",
        AUDIT,
    ),
    Mutant(
        "audit calls no expired value missing",
        "tools/audit/confirm.py",
        "config.ttl_s is None and not may_have_expired",
        "True",
        LOOKS,
    ),
    Mutant(
        "audit calls a key missing in mirror alone",
        "tools/audit/confirm.py",
        'is_due = config.mode == "mirror" and ',
        "is_due = ",
        LOOKS,
    ),
    Mutant(
        "audit says that an item cannot be encoded",
        "tools/audit/confirm.py",
        'if item.fault and kind is None and config.mode == "mirror":',
        "if False:",
        AUDIT,
    ),
    Mutant(
        "audit takes a number for ours only as DynamoDB writes it",
        "copy/names.py",
        "or not _NUMBER.fullmatch(digits)",
        "",
        NAMES,
    ),
    Mutant(
        "audit takes no number for ours that DynamoDB would refuse",
        "copy/names.py",
        "len(significant) <= _DIGITS_MAX and _EXPONENT_MIN",
        "_EXPONENT_MIN",
        NAMES,
    ),
    Mutant(
        "audit takes no name for ours of which another is made",
        "copy/names.py",
        "return key if self.name_of(key) == name else None",
        "return key",
        NAMES,
    ),
    Mutant(
        "audit counts a key of another type as foreign",
        "tools/audit/orphans.py",
        "kind not in our_types]",
        "kind is None]",
        AUDIT,
    ),
    Mutant(
        "audit passes fences over",
        "tools/audit/orphans.py",
        "if not is_fence(name)]",
        "]",
        AUDIT,
    ),
    Mutant(
        "audit scans every node's names",
        "copy/reader.py",
        "for _, slots in groupby(owners, key=lambda owner: owner[0])]",
        "for _, slots in groupby(owners, key=lambda owner: owner[0])][:1]",
        AUDIT,
    ),
    Mutant(
        "audit draws its parts at random",
        "tools/audit/command.py",
        "chance.sample(range(segments), count)",
        "[*range(count)]",
        AUDIT,
    ),
    Mutant(
        "audit ends well only where every finding was repaired",
        "tools/audit/report.py",
        "return total.findings == total.repaired",
        "return True",
        AUDIT,
    ),
    Mutant(
        "audit shows contents only where that is asked for",
        "tools/audit/report.py",
        "        if show_values:\n            lines +=",
        "        if True:\n            lines +=",
        AUDIT,
    ),
    Mutant(
        "retire removes no name that is in use",
        "tools/retire/command.py",
        "    if old.is_present:\n",
        "    if False:\n",
        RETIRE,
    ),
    Mutant(
        "retire removes only what has a new name",
        "tools/retire/command.py",
        '"removed" if old.has_successor else "kept"',
        '"removed"',
        RETIRE,
    ),
    Mutant(
        "retire removes values alone",
        "tools/retire/command.py",
        "    if not old.is_value:\n",
        "    if False:\n",
        RETIRE,
    ),
    Mutant(
        "audit takes nothing for the same that seemed to differ and was not looked at again",
        "tools/audit/report.py",
        " - self.unsettled - self.waiting)",
        " - self.unsettled)",
        AUDIT,
    ),
    # --- slices -------------------------------------------------------------------------------
    Mutant(
        "a place moves only past what has settled",
        "tools/cursors.py",
        "while pages and not pages[0].waits_for:",
        "while pages:",
        TRAIL,
    ),
    Mutant(
        "what an earlier slice has filled and left counts at the end",
        "tools/backfill/command.py",
        '"tally": tally.document()}\n            await',
        '"tally": {}}\n            await',
        SLICES,
    ),
    Mutant(
        "an audit in slices keeps the parts that it has drawn",
        "tools/audit/command.py",
        "how = document or {",
        "how = {",
        SLICES,
    ),
    Mutant(
        "an audit's slice ends with what it holds settled",
        "tools/audit/checks.py",
        "        page.waits_for += 1\n",
        "",
        SLICES,
    ),
    Mutant(
        "a cursor of another server is not gone on from",
        "tools/key_scan.py",
        'is_resumed = all(servers) and document.get("servers") == servers',
        "is_resumed = True",
        SLICES,
    ),
    Mutant(
        "documents of another run's id are ignored",
        "tools/state.py",
        '            if document.get("run_id") == run_id\n',
        "",
        SLICES,
    ),
    Mutant(
        "what a redrive's earlier slice has left counts at the end",
        "tools/redrive/command.py",
        '    report.resume(document.get("tally", {}), document.get("named", ()))\n',
        "",
        SLICES,
    ),
    Mutant(
        "a dry redrive goes on after the last name",
        "tools/redrive/command.py",
        'document.get("place", 0), document.get("after", "")',
        '0, ""',
        SLICES,
    ),
)


def try_mutant(folder: Path, mutant: Mutant) -> tuple[bool, float]:
    """Whether a mutant is caught, and how many seconds that took. Raises PatchLost."""
    began_s = time.monotonic()
    with applied(folder, [Patch(mutant.file, mutant.old, mutant.new)]):
        caught = not suite_passes(folder, mutant.suite)
    return caught, time.monotonic() - began_s


def main() -> int:
    """Run every mutant, or those whose rule holds the given words; 1 where one lives."""
    jobs, words = jobs_and_words("Take out one rule at a time and see its tests fail.")
    mutants = [mutant for mutant in MUTANTS if words in mutant.rule]
    suites = sorted({mutant.suite for mutant in mutants})
    for suite, passes in zip(suites, in_copies(jobs, suites, suite_passes), strict=True):
        if not passes:
            print(f"{suite} fails without any mutant")
            return 1
    lived = 0
    answers = in_copies(jobs, mutants, try_mutant)
    try:
        for at, (mutant, (caught, seconds)) in enumerate(zip(mutants, answers, strict=True), 1):
            verdict = "caught" if caught else "LIVED "
            print(f"{at:3}/{len(mutants)} {verdict} {seconds:5.1f} s  {mutant.rule}", flush=True)
            lived += not caught
    except PatchLost as exc:
        print(exc)
        return 1
    print(f"{len(mutants) - lived} of {len(mutants)} caught")
    return 1 if lived else 0


if __name__ == "__main__":
    raise SystemExit(main())
