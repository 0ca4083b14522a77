"""Every limit of what Lambda runs: its unit, its reason, its source. Tests check each edge."""

# --- what a stream may send -------------------------------------------------------------------

# DynamoDB writes 21 to 40 digits (API_streams_StreamRecord); AWS's own samples have three.
SEQUENCE_NUMBER_DIGITS_MAX = 40

# A stream's label in epoch milliseconds; the fixed width makes byte order time order.
LABEL_DIGITS = 13

# A record's creation time in epoch seconds; a later one than any label is no time.
CREATED_S_MAX = 10 ** (LABEL_DIGITS - 3)

# --- shapes of images -------------------------------------------------------------------------

# A table seldom has more; each that does not match costs an image up to 5 us (measured).
SHAPES_MAX = 4

# One image in so many without a known shape is a sample (90 us), and two alike are compiled:
# 2.3 ms, as much as some 300 images save. A small function may never pay it.
SHAPES_SAMPLE_EVERY = 100

# Compiling takes 0.1 ms a value, nested ones counted; larger images are encoded without a shape.
SHAPE_VALUES_MAX = 64

# --- what Redis is sent -----------------------------------------------------------------------

# ElastiCache serverless refuses a command of more arguments, its name included (ElastiCache
# user guide, "Redis OSS configuration and limits").
CALL_ARGUMENTS_MAX = 3_999

# The server runs one script at a time, so every other client waits for a call's keys.
# A fenced key costs it 4 to 5.5 us (measured, Redis 7.0 and Valkey 8.0): about 1 ms a call.
CALL_KEYS_MAX = 180

# A hash costs it 6 us and 0.35 us a field, a JSON document of 1 KB 13 us (measured, Redis 7.0 with
# Redis Stack's module).
CALL_HASHES_MAX = 120
CALL_DOCUMENTS_MAX = 80

# Lua copies each value about three times: some 1.3 us a KB, so keys of 5 KB fill the
# millisecond with half a MiB. One larger entry goes alone: DynamoDB's items end at 400 KB.
CALL_BYTES_MAX = 524_288

# The fields of one hash, which is one entry: two arguments each, beside at most 14 others in a
# call of fence.lua or repair.lua.
HASH_FIELDS_MAX = 1_990

# RedisJSON refuses a document that is nested deeper (measured, 7.4's module: 127 levels).
DOCUMENT_LEVELS_MAX = 127

# Serverless allows a name of 4,096 bytes; the fence's name is four longer than the value's.
NAME_BYTES_MAX = 4_000

# PXAT takes a signed 64-bit integer; past 2**53 ms (year 287396) other clients lose digits.
EXPIRY_MS_MAX = 2**53

# DynamoDB leaves an item whose expiry is longer past than five years (DynamoDB developer guide,
# "Using time to live"). Counted without leap days: nearer than that we never remove too much.
EXPIRY_PAST_MS_MAX = 5 * 365 * 86_400_000

# Redis numbers its databases from 0 in an int, which has ten digits.
DATABASE_DIGITS_MAX = 10

# The slots of a cluster (Redis cluster specification).
SLOTS = 16_384

# TCP's highest port.
PORT_MAX = 65_535

# A slot that moves redirects a call once or twice, a round trip each; more redirections than
# this mean that the nodes disagree, and Lambda's retry comes later.
REDIRECTIONS_MAX = 5

# How many nodes one reading of the topology asks in turn; a silent one costs a whole timeout.
TOPOLOGY_ASKED_MAX = 3

# --- how long we wait -------------------------------------------------------------------------

# Kept back from every wait, so that the answer is written before Lambda ends the invocation.
ANSWER_RESERVE_MS = 200

# Nothing is sent with less left: half a second covers a connect and a round trip inside a
# Region many times over, and a write that is not sent is never in doubt.
SEND_LEFT_MS_MIN = 500

# Longest ASYNCSYNC_TIMEOUT_MS: Lambda's longest invocation, 900 s.
TIMEOUT_MS_MAX = 900_000

# A record lives 24 h in the stream; a fence that ends sooner would let a replay move back.
FENCE_TTL_S_MIN = 86_400

# Redis adds an expiry to the time now, in 64-bit milliseconds; a hundred years is our limit.
TTL_S_MAX = 3_153_600_000

# --- signing in -------------------------------------------------------------------------------

# ElastiCache accepts an IAM token for 15 minutes (ElastiCache user guide, "Authenticating with
# IAM"); the presigned request names its own lifetime.
IAM_TOKEN_S = 900

# Three quarters of that: a token in use has minutes left even where our clock is off.
IAM_TOKEN_AGE_S_MAX = 675

# --- what we say ------------------------------------------------------------------------------

# A metrics line is written at once when the oldest record is older than this.
LAG_TROUBLE_MS = 10_000

# Counts wait for a metrics line no longer than this, the period of CloudWatch's own metrics.
METRICS_PERIOD_MS = 60_000

# A metrics line speaks for at most so many invocations: CloudWatch reads 100 values of a metric.
METRICS_SAMPLES_MAX = 100

# A log line names at most so many attribute paths, then counts the others.
LOG_PATHS_MAX = 10
