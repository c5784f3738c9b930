"""From a fetched file to what the bundle carries of it: the uncompressed content, compressed once, remembered."""

from __future__ import annotations

from airgap.bundle import frames
from airgap.bundle.store import Store
from airgap.errors import FetchError
from airgap.lock import Blob, Form
from airgap.online.notes import Notes


def of(upstream: Blob, form: Form, store: Store, notes: Notes, *, source: str) -> Blob:
    """The content's digest and size; unless it is carried as fetched, its compressed frames are in the store and noted."""
    if form == "as-is":
        return upstream
    return packed(upstream, form, store, notes, source=source).content


def packed(upstream: Blob, form: Form, store: Store, notes: Notes, *, source: str) -> frames.Packed:
    """As `pack`, with the compressed blob and its frames. Made anew if the note or the blob is gone, or zstandard is another."""
    key = f"{upstream.digest} {form} {frames.RECIPE}"
    if note := notes.get("packed", key):
        try:
            known = frames.Packed.read(note)
        except FetchError:
            known = None
        if known and store.has(known.blob.digest):
            return known
    made = frames.compress(store.path(upstream.digest), store, gzipped=form == "tgz", name=source)
    notes.put("packed", key, made.to_json())
    return made


