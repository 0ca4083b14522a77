"""python -m asyncsync: the command line."""

from asyncsync.operate.cli import main

raise SystemExit(main())
