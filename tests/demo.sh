#!/bin/sh
# The main job before your eyes, on one Debian machine with root: a small internet, a bundle, a bare host without network, a build there.
cd "$(dirname "$0")/.." || exit 1
# shellcheck source=tests/venv.sh
. tests/venv.sh
exec "$python" -m tests.lab.demo "$@"
