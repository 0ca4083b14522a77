"""asyncsync with all keys of a batch in one script call: what its bound on a call is worth."""

from __future__ import annotations

import os

from asyncsync import Config, Mirror, plan

vars(plan).update(KEYS_MAX=1_000_000, CALL_BYTES_MAX=1 << 30)

lambda_handler = Mirror(Config.from_env(os.environ), raw_event=True).lambda_handler
