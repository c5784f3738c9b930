"""What is inside a bundle, as rows for a table and as a tree: from the lock, so that a ten-gigabyte bundle answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airgap.bundle.archive import Bundle
    from airgap.document import Json
    from airgap.lock import Lock


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One artefact on one platform; `size` is what it weighs as upstream serves it, in bytes."""

    kind: str
    name: str
    version: str
    platform: str
    size: int
    voucher: str

    def to_json(self) -> dict[str, Json]:
        """For machines."""
        return {name: getattr(self, name) for name in ("kind", "name", "version", "platform", "size", "voucher")}


def contents(lock: Lock) -> list[Row]:
    """A row for every file and every image, in the lock's order."""
    rows = [
        Row(
            kind=item.kind, name=item.name, version=item.version, platform=str(item.platform or "any"), size=item.upstream.size,
            voucher=item.voucher.how,
        )
        for item in lock.files
    ]  # fmt: skip
    for image in lock.images:
        name, _, tag = image.reference.familiar.partition("@")[0].rpartition(":")
        rows.append(
            Row(
                kind="+".join(image.kinds), name=name or tag, version=tag if name else "",
                platform=", ".join(str(item) for item in image.platforms), size=image.size, voucher=image.voucher.how,
            )
        )  # fmt: skip
    return rows


def tree(bundle: Bundle) -> str:
    """Everything with its digest, its source and its voucher, indented by what belongs to what."""
    lock = bundle.lock
    lines = []
    for carried in bundle.index.carried:
        item = carried.artifact
        how = f"zstd, {len(carried.frames)} frame(s)" if carried.frames else "as it is"
        lines += [
            f"{item.kind} {item.name} {item.version} {item.platform or ''}".rstrip(),
            f"  from     {item.url}",
            f"  fetched  {item.upstream.digest}  {item.upstream.size} bytes",
            f"  content  {item.content.digest}  {item.content.size} bytes",
            f"  carried  {carried.blob.digest}  {carried.blob.size} bytes, {how}",
            f"  voucher  {item.voucher.how}: {item.voucher.by}",
        ]
    for image in lock.images:
        lines += [
            f"{'+'.join(image.kinds)} {image.reference}",
            f"  from     {image.url}",
            f"  root     {image.root.digest}  {image.root.media_type}",
            f"  voucher  {image.voucher.how}: {image.voucher.by}",
        ]
        for child in image.manifests:
            what = f"attestation of {child.attestation_of}" if child.attestation_of else str(child.platform)
            lines.append(f"  manifest {child.digest}  {what}")
    return "\n".join(lines)
