"""Which images of a project a site lacks, per platform, as lines that can be pasted into its manifest."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

from airgap.document import Json
from airgap.oci import Platform, Reference
from airgap.projects.files import Found
from airgap.projects.holdings import Held


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One image of one project.

    `lacks` are the platforms it is missing for, `has` those that the site has of it. What cannot be told says `why`, and which
    `variables` have no value, if it is that. `local` images are in a registry of the site's own, which was not asked.
    """

    image: str
    places: tuple[str, ...]
    lacks: tuple[Platform, ...] = ()
    has: tuple[Platform, ...] = ()
    variables: tuple[str, ...] = ()
    why: str = ""
    local: bool = False

    def to_json(self) -> dict[str, Json]:
        """For machines."""
        return {
            "image": self.image,
            "places": list(self.places),
            "lacks": [str(item) for item in self.lacks],
            "has": [str(item) for item in self.has],
            "variables": list(self.variables),
            "why": self.why,
            "local": self.local,
        }


def check(found: Iterable[Found], have: Sequence[Held], *, local: Container[str] = ()) -> tuple[Row, ...]:
    """A row for every image that is asked for, by name; `local` are registries that the bundle need not serve."""
    wanted: dict[Reference, set[Platform]] = {}
    places: dict[Reference | tuple[str, tuple[str, ...], str], dict[str, None]] = {}
    for item in found:
        key = _key(item)
        if isinstance(key, Reference):
            wanted.setdefault(key, set()).update(item.need.platforms)
        places.setdefault(key, {})[f"{item.path}:{item.need.line} ({item.need.how})"] = None
    rows: list[Row] = []
    for key, where in places.items():
        if not isinstance(key, Reference):
            image, variables, why = key
            rows.append(Row(image=image, places=tuple(where), variables=variables, why=why))
            continue
        has = _held(key, have)
        elsewhere = key.registry in local and not has
        lacks = () if elsewhere else tuple(sorted(wanted[key] - has))
        rows.append(Row(image=key.familiar, places=tuple(where), lacks=lacks, has=tuple(sorted(has)), local=elsewhere))
    return tuple(sorted(rows, key=lambda row: (row.image, row.why, row.variables)))


def _key(item: Found) -> Reference | tuple[str, tuple[str, ...], str]:
    need = item.need
    if need.unknown or need.why:
        return (need.image, need.unknown, need.why)
    if len(need.image) > 512:
        return (f"{need.image[:100]}…", (), "is too long for an image's name")
    try:
        return Reference.parse(need.image)
    except ValueError:
        return (need.image, (), "is no image reference")


def _held(reference: Reference, have: Sequence[Held]) -> set[Platform]:
    """The platforms that the site has of this name; where a digest is named, only that counts, whatever tag stands before it."""
    found: set[Platform] = set()
    for image in have:
        if (image.reference.registry, image.reference.repository) != (reference.registry, reference.repository):
            continue
        if reference.digest:
            found |= image.digests.get(reference.digest, frozenset())
        elif image.reference.tag == reference.tag:
            found |= image.platforms
    return found


def manifest_lines(rows: Iterable[Row]) -> str:
    """What to add below `images:`, one line an image; where the bundle has the image for other platforms, in place of its line.

    Platforms that no manifest can ask for (Windows) are left out.
    """
    lines: list[str] = []
    for row in rows:
        if any(item.os == "linux" for item in row.lacks):
            platforms = ", ".join(str(item) for item in sorted({*row.lacks, *row.has}) if item.os == "linux")
            note = "  # in place of the line that is there" if row.has else ""
            lines.append(f'  - {{image: "{row.image}", platforms: [{platforms}]}}{note}')
    return "\n".join(lines)


def text(rows: Sequence[Row]) -> str:
    """The same for people: what is missing and where it is asked for, what to paste, and what cannot be told."""
    missing = [row for row in rows if row.lacks]
    open_ = [row for row in rows if row.variables or row.why]
    there = sum(not (row.lacks or row.variables or row.why or row.local) for row in rows)
    what = "1 image is" if len(rows) == 1 else f"{len(rows)} images are"
    parts = [f"{what} asked for: {there} there, {len(missing)} missing, {len(open_)} cannot be told."]
    for row in missing:
        kept = f" (only {_listed(row.has)})" if row.has else ""
        parts.append(f"\n{row.image}\n    lacks {_listed(row.lacks)}{kept}" + _places(row))
    if lines := manifest_lines(missing):
        parts.append(f"\nFor `images:` in the manifest of the next bundle:\n{lines}")
    if open_:
        parts.append("\nCannot be told:")
        parts += [f"  {row.image}  {row.why or 'depends on ' + ', '.join(row.variables)}{_places(row)}" for row in open_]
    if names := sorted({name for row in open_ for name in row.variables if name != "?"}):
        parts.append("  -> " + " ".join(f"--build-arg {name}=VALUE" for name in names))
    if local := [row.image for row in rows if row.local]:
        parts.append(f"\nIn the site's own registries, which were not asked: {', '.join(local)}")
    return "\n".join(parts)


def _listed(platforms: Sequence[Platform]) -> str:
    return ", ".join(str(item) for item in platforms)


def _places(row: Row) -> str:
    return "".join(f"\n    {place}" for place in row.places)
