"""What the packer remembers between runs, beside the store: small facts that would cost bytes or seconds to find again.

Each note is one file, written atomically. A note is a shortcut and never a proof: whatever it names is in the store
under its digest, or the note counts for nothing.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from airgap.document import Json, Node, dump_json, parse_json, read_bounded, write_atomic
from airgap.errors import FetchError
from airgap.online.download import disk


class Notes:
    """Notes below `root`, by topic and key."""

    def __init__(self, root: Path) -> None:
        """`root` is made when it is needed."""
        self._root = root

    def _path(self, topic: str, key: str) -> Path:
        return self._root / topic / (hashlib.sha256(key.encode()).hexdigest()[:40] + ".json")

    def get(self, topic: str, key: str) -> Node | None:
        """The note, or None if there is none or it is damaged."""
        path = self._path(topic, key)
        if not path.exists():
            return None
        try:
            node = parse_json(read_bounded(path, error=FetchError), name=str(path), error=FetchError)
            return node.get("note") if node.get("key").text() == key else None
        except FetchError:
            return None

    def put(self, topic: str, key: str, note: Json) -> None:
        """Remember. Raises FetchError if the disk will not."""
        path = self._path(topic, key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, dump_json({"key": key, "note": note}))
        except OSError as cause:
            raise disk(cause, f"a note about {key}", None) from cause
