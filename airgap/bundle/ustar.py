"""The one form of tar header that a bundle has: written here, and read by asking whether it is exactly what would be written.

POSIX ustar, owner 0, time 0. A size of 8 GiB and more does not fit into the octal field; it is written in base 256, as GNU
tar began it: GNU tar, bsdtar, busybox, Go and Python all read that in any header, while busybox skips the pax record that
POSIX has for it and then takes the payload for headers.
"""

from __future__ import annotations

from typing import Final

BLOCK: Final = 512
END: Final = bytes(2 * BLOCK)
OCTAL_LIMIT: Final = 8 << 30

_TYPES: Final = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"5": "a folder",
    b"6": "a pipe",
    b"S": "a sparse file",
    b"x": "a pax header",
    b"g": "a pax header",
    b"L": "a GNU long name",
    b"K": "a GNU long link",
    b"\0": "a file of the old kind",
}


def header(name: str, size: int) -> bytes:
    """The 512 bytes in front of a member; its name has at most 99 ASCII characters. Only install.sh is executable."""
    mode = 0o755 if name == "install.sh" else 0o644
    number = b"%011o\0" % size if size < OCTAL_LIMIT else b"\x80" + size.to_bytes(11, "big")
    front = name.encode("ascii").ljust(100, b"\0") + b"%07o\0" % mode + b"0000000\0" * 2 + number + b"00000000000\0"
    back = b"0" + bytes(100) + b"ustar\x0000" + bytes(64) + b"0000000\0" * 2 + bytes(155 + 12)
    return front + b"%06o\0 " % (sum(front) + sum(back) + 8 * 0x20) + back


def padding(size: int) -> int:
    """How many zeros follow a member of this size."""
    return -size % BLOCK


def parse(block: bytes) -> tuple[str, int]:
    """Name and size of the member behind this header. ValueError, saying why, if it is not exactly as `header` writes one."""
    if block[257:262] != b"ustar":
        raise ValueError("is no tar header")
    if block[156:157] != b"0":
        raise ValueError(f"is {_TYPES.get(block[156:157], 'of an unknown type')}, and a bundle holds plain files only")
    raw = block[:100].rstrip(b"\0")
    if not raw or not all(0x20 < byte < 0x7F for byte in raw):
        raise ValueError(f"has the name {raw[:80]!r}")
    name = raw.decode("ascii")
    field = block[124:136]
    if field[:1] == b"\x80":
        size = int.from_bytes(field[1:], "big")
    elif field[-1:] == b"\0" and all(0x30 <= byte < 0x38 for byte in field[:-1]):
        size = int(field[:-1], 8)
    else:
        raise ValueError(f"has the size {field!r}")
    if size > 1 << 62:
        raise ValueError(f"claims {size} bytes")
    if header(name, size) != block:
        raise ValueError("has a header that was changed, or was not written by airgap")
    return name, size
