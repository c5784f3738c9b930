"""Images in the site's registry, written straight into distribution's storage: streamed from the bundle, no copy on the way.

Over HTTP a registry of version 2 refuses an index unless every child is there (upstream.md 5.4), and a bundle carries only the
platforms that the site asked for; rewriting the index would change its digest and break `FROM x@sha256:…`. Storage knows no such
rule: the layout is the same in 2.x and 3.x (docs/content/spec and registry/storage/paths.go of distribution/distribution), the
running registry looks files up anew at each request, and a tag moves only after everything it leads to is there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from airgap.document import fsync_directory
from airgap.errors import BundleError, HostUnsuitable
from airgap.oci import MANIFEST_LIMIT, Descriptor, Digest, ImageManifest
from airgap.offline.changes.base import Context, Quiet, Record
from airgap.offline.host import User, write_all
from airgap.offline.snapshot import restore, snapshots, take
from airgap.steps import ServeImage

PIECE: Final = 1 << 20


def _base(step: ServeImage) -> str:
    return f"{step.root}/docker/registry/v2"


def _data(step: ServeImage, digest: Digest) -> str:
    return f"{_base(step)}/blobs/sha256/{digest.hex[:2]}/{digest.hex}/data"


def _repository(step: ServeImage) -> str:
    return f"{_base(step)}/repositories/{step.repository}"


def _layer(step: ServeImage, digest: Digest) -> str:
    return f"{_repository(step)}/_layers/sha256/{digest.hex}/link"


def _links(step: ServeImage, blobs: tuple[Descriptor, ...]) -> dict[str, Digest]:
    """Every link file of this image and what it says, the tag's last, in the order in which they may appear."""
    manifests = f"{_repository(step)}/_manifests"
    links = {_layer(step, blob.digest): blob.digest for blob in blobs}
    for item in (*step.manifests, step.top):
        links[f"{manifests}/revisions/sha256/{item.digest.hex}/link"] = item.digest
    if step.tag:
        links[f"{manifests}/tags/{step.tag}/index/sha256/{step.top.digest.hex}/link"] = step.top.digest
        links[f"{manifests}/tags/{step.tag}/current/link"] = step.top.digest
    return links


def _blobs(step: ServeImage, ctx: Context) -> tuple[Descriptor, ...]:
    """Configs and layers of all manifests that are carried, each once."""
    found: dict[Digest, Descriptor] = {}
    for item in step.manifests:
        data = ctx.contents.read(item.digest, limit=MANIFEST_LIMIT)
        for blob in ImageManifest.parse(data, name=f"{step.repository}@{item.digest}", error=BundleError).blobs:
            found[blob.digest] = blob
    return tuple(found.values())


def _owner(step: ServeImage, ctx: Context) -> User:
    user = ctx.host.user(step.owner)
    if user is None:
        raise HostUnsuitable(f"the user {step.owner}, who runs the registry, does not exist")
    return user


class Stocked(Quiet):
    """ServeImage."""

    def before(self, step: ServeImage, ctx: Context) -> Record | None:
        """Whether a link or a blob of it is missing or says something else."""
        blobs = _blobs(step, ctx)
        links = _links(step, blobs)
        lacking = [item for item in self._everything(step, blobs) if not self._stored(step, item, ctx)]
        off = [path for path, digest in links.items() if ctx.host.read(path, limit=1024) != str(digest).encode()]
        if not lacking and not off:
            return None
        return {
            "blobs": sorted({item.digest.hex for item in lacking}),
            "files": [take(ctx.host, path, ctx.saved).to_json() for path in reversed(off)],
        }

    @staticmethod
    def _everything(step: ServeImage, blobs: tuple[Descriptor, ...]) -> tuple[Descriptor, ...]:
        return (*blobs, *step.manifests, step.top)

    @staticmethod
    def _stored(step: ServeImage, item: Descriptor, ctx: Context) -> bool:
        """A blob under its name is whole: registries and we alike rename it there; the size is checked against a lost disk."""
        place = ctx.host.path(_data(step, item.digest))
        try:
            return place.stat().st_size == item.size
        except (FileNotFoundError, NotADirectoryError):
            return False

    def apply(self, step: ServeImage, ctx: Context) -> None:
        """The registry serves it under its tag, every blob first, the tag last."""
        user, host = _owner(step, ctx), ctx.host
        host.make_folder(step.root)
        os.chown(host.path(step.root), user.uid, user.gid)
        blobs = _blobs(step, ctx)
        with ctx.progress.gauge(step.describe(), step.size) as gauge:
            for item in self._everything(step, blobs):
                if not self._stored(step, item, ctx):
                    self._place(step, item, ctx, user)
                gauge.advance(item.size)
        with host.acting_as(user):
            for path, digest in _links(step, blobs).items():
                if host.read(path, limit=1024) != str(digest).encode():
                    host.write(path, str(digest).encode())

    def _place(self, step: ServeImage, item: Descriptor, ctx: Context, user: User) -> None:
        # The bundle is opened with our rights, the registry's files are made with its own.
        host = ctx.host
        with ctx.contents.open(item.digest) as source, host.acting_as(user), host.placing(_data(step, item.digest)) as fd:
            while piece := source.read(PIECE):
                write_all(fd, piece)

    def undo(self, step: ServeImage, record: Record, ctx: Context) -> None:
        """Tag and links are as they were; blobs that came with this step are gone, unless another repository uses them now."""
        host = ctx.host
        for snapshot in snapshots(record):
            restore(host, snapshot, ctx.saved)
        for name in record["blobs"]:
            digest = Digest(str(name))
            place = host.path(_data(step, digest)).parent
            if place.exists() and not any(self._users(step, digest, ctx)):
                host.remove(f"{_data(step, digest)}")
                host.temporary(_data(step, digest)).unlink(missing_ok=True)
                self._tidy(place, host.path(step.root))

    def _users(self, step: ServeImage, digest: Digest, ctx: Context) -> Iterator[Path]:
        repositories = ctx.host.path(f"{_base(step)}/repositories")
        for pattern in ("_layers", "_manifests/revisions"):
            yield from repositories.rglob(f"{pattern}/sha256/{digest.hex}/link")

    @staticmethod
    def _tidy(folder: Path, top: Path) -> None:
        """Remove folders that became empty, up to the registry's own."""
        while folder != top.parent:
            parent = folder.parent
            try:
                folder.rmdir()
            except OSError:
                return
            fsync_directory(parent)
            folder = parent
