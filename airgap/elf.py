"""ELF facts: whose machine code a file is, how the kernel can recognise it, and the smallest program that proves it runs.

Three uses of one table: a downloaded binary must be of the platform it was asked for; `binfmt_misc` is told by magic
and mask which files an emulator serves; and a site proves an emulator, or a builder, by running a program that
needs nothing: no image, no libc, no file but itself.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from airgap.oci import Platform


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One architecture: OCI's word, QEMU's word, ELF class (32/64), byte order, e_machine, e_flags, and code for exit(0)."""

    architecture: str
    qemu: str
    bits: int
    order: str
    machine: int
    flags: int
    exit: bytes


def _words(order: str, *words: int) -> bytes:
    return b"".join(struct.pack(f"{order}I", word) for word in words)


# e_machine from the gABI's registry; system call numbers from Linux's own tables (exit is 1 on the old ports,
# 93 on those with the generic table, 60 on x86-64, 5058 on mips64).
MACHINES: tuple[Machine, ...] = (
    Machine(architecture="amd64", qemu="x86_64", bits=64, order="<", machine=62, flags=0,
            exit=bytes.fromhex("31ffb83c0000000f05")),
    Machine(architecture="386", qemu="i386", bits=32, order="<", machine=3, flags=0,
            exit=bytes.fromhex("31dbb801000000cd80")),
    Machine(architecture="arm64", qemu="aarch64", bits=64, order="<", machine=183, flags=0,
            exit=_words("<", 0xD2800000, 0xD2800BA8, 0xD4000001)),
    Machine(architecture="arm", qemu="arm", bits=32, order="<", machine=40, flags=0x05000000,
            exit=_words("<", 0xE3A00000, 0xE3A07001, 0xEF000000)),
    Machine(architecture="riscv64", qemu="riscv64", bits=64, order="<", machine=243, flags=0,
            exit=_words("<", 0x00000513, 0x05D00893, 0x00000073)),
    Machine(architecture="ppc64le", qemu="ppc64le", bits=64, order="<", machine=21, flags=2,
            exit=_words("<", 0x38600000, 0x38000001, 0x44000002)),
    Machine(architecture="s390x", qemu="s390x", bits=64, order=">", machine=22, flags=0,
            exit=bytes.fromhex("a72900000a01")),
    Machine(architecture="mips64le", qemu="mips64el", bits=64, order="<", machine=8, flags=0x80000000,
            exit=_words("<", 0x240213C2, 0x64040000, 0x0000000C)),
    Machine(architecture="loong64", qemu="loongarch64", bits=64, order="<", machine=258, flags=0x3,
            exit=_words("<", 0x02800004, 0x02800000 | 93 << 10 | 11, 0x002B0000)),
)  # fmt: skip

BY_ARCHITECTURE = {machine.architecture: machine for machine in MACHINES}

HEADER = 20
"""Bytes of a file that `machine_of` needs."""


def machine_of(head: bytes) -> Machine | None:
    """Whose machine code the ELF file that begins with `head` is; None if it is no ELF file or of an unknown machine."""
    if len(head) < HEADER or head[:4] != b"\x7fELF":
        return None
    order = "<" if head[5] == 1 else ">"
    (number,) = struct.unpack_from(f"{order}H", head, 18)
    for machine in MACHINES:
        if (machine.machine, machine.bits, machine.order) == (number, 32 * head[4], order):
            return machine
    return None


def runs_on(head: bytes, platform: Platform) -> bool:
    """Whether an ELF file that begins with `head` is machine code of `platform` (variants are not told apart)."""
    machine = machine_of(head)
    return machine is not None and machine.architecture == platform.architecture


def binfmt_rule(platform: Platform) -> tuple[str, str]:
    r"""Magic and mask for binfmt_misc, in its `\x7f` notation: executables and shared objects of this platform.

    The OS/ABI byte is left open, as the kernel's own ELF loader does; everything else up to e_machine must fit.
    """
    machine = BY_ARCHITECTURE[platform.architecture]
    ident = b"\x7fELF" + bytes([machine.bits // 32, 1 if machine.order == "<" else 2, 1]) + bytes(9)
    magic = ident + struct.pack(f"{machine.order}HH", 2, machine.machine)
    mask = b"\xff" * 7 + b"\x00" + b"\xff" * 8 + struct.pack(f"{machine.order}HH", 0xFFFE, 0xFFFF)
    return tuple("".join(f"\\x{byte:02x}" for byte in part) for part in (magic, mask))  # type: ignore[return-value]


def probe(platform: Platform) -> bytes:
    """A static executable of this platform that does nothing but exit with 0; about a hundred bytes.

    It proves more than a tool's exit code: the kernel recognised it, an emulator (or the CPU) ran it.
    """
    machine = BY_ARCHITECTURE[platform.architecture]
    wide = machine.bits == 64
    header, program = (64, 56) if wide else (52, 32)
    base, offset = 0x10000, header + program
    size = offset + len(machine.exit)
    ident = b"\x7fELF" + bytes([machine.bits // 32, 1 if machine.order == "<" else 2, 1]) + bytes(9)
    word = "Q" if wide else "I"
    head = struct.pack(
        f"{machine.order}HHI{word}{word}{word}IHHHHHH",
        2, machine.machine, 1, base + offset, header, 0, machine.flags, header, program, 1, 0, 0, 0,
    )  # fmt: skip
    # PT_LOAD, read and execute; 64 KiB alignment because some kernels (ppc64le, arm64) have pages that large.
    if wide:
        load = struct.pack(f"{machine.order}IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x10000)
    else:
        load = struct.pack(f"{machine.order}IIIIIIII", 1, 0, base, base, size, size, 5, 0x10000)
    return ident + head + load + machine.exit
