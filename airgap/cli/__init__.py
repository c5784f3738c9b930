"""The command line: parse, wire the collaborators, call one verb, leave with its exit code.

The only importer of click, and the only package that looks at the environment. Verbs stand in the rooms of the data's way:
`packing` with internet, `reading` with the file alone, `hosting` on the host, `pushing` and `linting` for the registries and projects
of a site. What a verb needs is imported inside its command: `--help` must not pay for the docker SDK.
"""

from airgap.cli import hosting, linting, packing, pushing, reading
from airgap.cli.app import run

__all__ = ["hosting", "linting", "packing", "pushing", "reading", "run"]
