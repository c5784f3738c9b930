"""install.sh: the first thing of a bundle that runs on a bare host, and all it must know about the pieces of the private runtime.

The script is a template of this package; what is filled in is a table of digests. So the trust in the runtime is the trust in
install.sh, which the bundle's index names by digest like everything else.
"""

from __future__ import annotations

import hashlib
import re
from importlib import resources
from typing import TYPE_CHECKING, Final

from airgap.errors import LockError

if TYPE_CHECKING:
    from airgap.lock import FileArtifact, Lock
    from airgap.oci import Platform

PIECES: Final = ("runtime", "wheel")
"""The kinds that install.sh unpacks: the interpreter, then the Python packages for it, our own among them."""


def install_sh(lock: Lock) -> bytes:
    """The bytes of this lock's install.sh; the same lock and the same airgap give the same bytes.

    LockError if the lock has no private runtime, or a platform's runtime comes without airgap itself.
    """
    template = resources.files("airgap").joinpath("install.sh.in").read_text(encoding="utf-8")
    served = sorted({item.platform for item in lock.of_kind("runtime") if item.platform})
    if not served:
        raise LockError(f"the lock of {lock.name} has no private runtime, so nothing could run on the host", hint="lock again")
    rows = {platform: [_row(item, platform) for item in _pieces(lock, platform)] for platform in served}
    values = {
        "NAME": f"{_word(lock.name)}, serial {lock.serial}",
        "PLATFORMS": ", ".join(str(platform) for platform in served),
        "KEYS": "\n".join(f"{platform} {_key(rows[platform], template)}" for platform in served),
        "PIECES": "\n".join(row for platform in served for row in rows[platform]),
    }
    return re.sub(r"@([A-Z]+)@", lambda match: values[match[1]], template).encode()


def _pieces(lock: Lock, platform: Platform) -> list[FileArtifact]:
    """The runtime and the wheels of one platform, in an order that depends on nothing else."""
    found = [item for kind in PIECES for item in lock.of_kind(kind) if item.platform == platform]
    names = [(item.kind, item.name == "airgap") for item in found]
    if names.count(("runtime", False)) != 1 or names.count(("wheel", True)) != 1:
        raise LockError(f"the lock of {lock.name} needs one runtime and one airgap for {platform}", hint="lock again")
    return sorted(found, key=lambda item: (item.kind, item.filename, item.upstream.digest))


def _row(item: FileArtifact, platform: Platform) -> str:
    return f"{platform} {item.kind} {item.upstream.digest.hex} {item.upstream.size} {_word(item.filename)}"


def _key(rows: list[str], template: str) -> str:
    """Changes with every piece, and with the script that puts them together."""
    return hashlib.sha256("\n".join([*rows, template]).encode()).hexdigest()[:16]


def _word(text: str) -> str:
    """A name as one word that means nothing to a shell: it is only shown. Locks may come from strangers."""
    return re.sub(r"[^A-Za-z0-9._+-]", "_", text)[:200]
