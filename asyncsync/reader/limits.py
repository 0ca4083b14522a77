"""Every limit of the reader: its unit, its reason. Tests check each edge."""

# --- the protocol -----------------------------------------------------------------------------

# A claim is a fence without a version. It must outlive any lease and any mark in it, and cost no
# memory for long: a minute, as a repair's snapshot.
CLAIM_MS = 60_000

# --- options ----------------------------------------------------------------------------------

# A lease covers a consistent read and a round trip. Shorter than 100 ms, healthy readers lose it
# and load twice; longer than a claim's life, the fence would expire before it.
LEASE_MS_MIN = 100
LEASE_MS_MAX = CLAIM_MS

# A mark ends at once where the stream inserts the item; this bounds it where the stream is off.
# 0 remembers nothing. A mark in a claim ends with it.
ABSENT_MS_MAX = CLAIM_MS

# Nobody waits for another's load longer than its lease may last. 0 reads the table at once.
WAIT_MS_MAX = CLAIM_MS

# On-demand tables give 40,000 reads a second by default, and a reader is one of many processes;
# a million is more than a process can ask for.
TABLE_READS_PER_S_MAX = 1_000_000

# A value expires up to this share of its life earlier, so that values loaded together do not
# expire together. Half of it spreads them well; more only costs hits.
JITTER_MAX = 0.5

# The longest wait for one round trip to Redis: past a minute no reader still waits.
TIMEOUT_MS_MAX = 60_000

# --- how it behaves ---------------------------------------------------------------------------

# Failures in a row that open the circuit: one or two may be dead connections of an idle pool.
CIRCUIT_FAILURES = 3

# How long an open circuit waits before each probe; a reader is back at hits within a second.
CIRCUIT_PAUSE_S = 0.25

# Requests to Redis at a time, and so connections: hundreds of reader processes share one server.
CONNECTIONS_MAX = 32

# Polls for another's load: the first after about one consistent read, later ones less often.
POLL_FIRST_S = 0.005
POLL_LAST_S = 0.1

# Keys of one pipeline of scripts and of one read (DynamoDB API reference, "BatchGetItem").
BATCH_KEYS_MAX = 100

# Keys of one MGET: other clients wait while a server answers it, some 0.2 ms for a thousand, and
# ElastiCache serverless refuses a command of more than 3,999 arguments.
MGET_KEYS_MAX = 1_000

# Names of items that a reader keeps, some 400 bytes each: 4 MB.
NAMES_KEPT = 10_000
