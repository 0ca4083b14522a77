"""python -m asyncsync: the command line."""

from asyncsync.cli.main import main

raise SystemExit(main())
