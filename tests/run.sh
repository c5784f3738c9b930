#!/bin/sh
# The tests, with all their set-up: sh tests/run.sh [pytest's arguments]
# Root on Debian runs the lab as well (real engines in booted hosts without network); elsewhere the lab says why it is skipped.
cd "$(dirname "$0")/.." || exit 1
. tests/venv.sh
exec "$python" -m pytest "$@"
