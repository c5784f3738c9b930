#!/bin/sh
# The tests, with all their set-up: sh tests/run.sh [pytest's arguments]
# Root on Debian runs the lab as well (real engines in booted hosts without network); elsewhere the lab says why it is skipped.
cd "$(dirname "$0")/.." || exit 1
# shellcheck source=tests/venv.sh
. tests/venv.sh

# The private Python that some tests look at is compiled once, for minutes, and must be there before they are collected.
# CI compiles the foreign one, too: the floor of glibc 2.17 is then shown for both.
if [ $# -eq 0 ] || [ "${CI-}" = true ]; then
    if "$python" -c 'import sys; from tests.lab.cache import why_not; sys.exit(bool(why_not()))'; then
        case ${CI-} in true) machines='x86_64 aarch64' ;; *) machines=$(uname -m) ;; esac
        echo "the lab's private Python for $machines (minutes at the first time) ..." >&2
        # shellcheck disable=SC2086 # words
        "$python" -m tests.lab.runtime $machines >&2 || exit 1
    fi
fi
exec "$python" -m pytest "$@"
