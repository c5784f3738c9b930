"""The lab's upstream from a command line: writes the `--sources` file, then serves until it is stopped or its command ends.

    python -m tests.lab.serve --sources /tmp/sources.yaml -- airgap pack -m tests/lab/site.yaml --sources /tmp/sources.yaml
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import threading
from pathlib import Path

from tests.lab.cache import require_tools
from tests.lab.servers import Upstream
from tests.lab.upstream import ENGINES, MACHINES


def main() -> int:
    """The command's exit code; 0 if there was none."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.serve", description=__doc__)
    parser.add_argument("--sources", type=Path, help="where to write the sources; standard output if not given")
    parser.add_argument("--arch", action="append", choices=sorted(MACHINES), help="architectures to offer; all if not given")
    parser.add_argument("--engine", action="append", choices=sorted(ENGINES), help="engines to offer; 28.5.2 if not given")
    parser.add_argument("--rate", type=int, default=0, help="bytes a second for each response")
    parser.add_argument("command", nargs="*", help="a command to run meanwhile")
    words = parser.parse_args()
    require_tools()
    with Upstream(arches=words.arch or tuple(MACHINES), engines=words.engine or ("28.5.2",)) as upstream:
        upstream.traffic.rate = words.rate
        if words.sources:
            temporary = words.sources.with_name(f".{words.sources.name}.new")
            temporary.write_text(upstream.sources_yaml())
            temporary.rename(words.sources)
        else:
            sys.stdout.write(upstream.sources_yaml())
            sys.stdout.flush()
        if words.command:
            return subprocess.run(words.command, check=False).returncode
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        stop.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
