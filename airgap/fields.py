"""How fields are read that several sections of a manifest have: one reader a kind of field, so that they complain alike."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from airgap.document import Json, Node
from airgap.oci import Platform, read_platform
from airgap.upstreams import Version

T = TypeVar("T")

HOST: Final = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9a-fA-F:]{2,45}\])(?::[0-9]{1,5})?"
"""A regular expression for host[:port], IPv6 in brackets."""


def matching(node: Node, pattern: str, what: str, *, hint: str | None = None) -> str:
    """The text in this node if all of it matches; else the complaint that it is not `what`."""
    text = node.text()
    if not re.fullmatch(pattern, text):
        node.fail(f"{text[:80]!r} is not {what}", hint=hint)
    return text


def distinct(node: Node | None, read: Callable[[Node], T]) -> tuple[T, ...]:
    """The values of a list in its order; empty if there is none, and none may stand there twice."""
    found: dict[T, Node] = {}
    for item in node.items() if node else ():
        value = read(item)
        if value in found:
            item.fail(f"{value} stands here already, at {found[value].path}", hint="leave one of them out")
        found[value] = item
    return tuple(found)


def one_each(items: Iterable[Node], read: Callable[[Node], T], name: Callable[[T], object]) -> tuple[T, ...]:
    """The values of a list in its order, no two of which may have the same name."""
    found: dict[object, tuple[T, Node]] = {}
    for item in items:
        value = read(item)
        if name(value) in found:
            item.fail(f"{name(value)} stands here already, at {found[name(value)][1].path}", hint="leave one of them out")
        found[name(value)] = (value, item)
    return tuple(value for value, _ in found.values())


def read_version(node: Node) -> str:
    """An exact version of an engine or a plugin, without the v that some write before it."""
    try:
        return str(Version.parse(node.text()))
    except ValueError as cause:
        node.fail(str(cause), hint="name one exact version; `latest` and the like mean something else every day")


def read_platforms(node: Node) -> tuple[Platform, ...]:
    """At least one platform, each once."""
    found = distinct(node, read_platform)
    if not found:
        node.fail("lists no platform", hint="write for example [linux/amd64, linux/arm64], or leave the key out")
    return found


def read_linux(node: Node) -> tuple[Platform, ...]:
    """Platforms of machines: Linux only."""
    found = read_platforms(node)
    for item in found:
        if item.os != "linux":
            node.fail(f"{item}: only Linux is served", hint="a Windows or macOS machine can pack, but not be installed on")
    return found


def read_user(node: Node) -> str:
    """The name of a user of the host."""
    return matching(node, r"[A-Za-z_][A-Za-z0-9_.@-]{0,63}", "a user's name", hint="letters, digits and _ . - @")


def read_path(node: Node) -> str:
    """An absolute path on the host, without steps upwards."""
    text = node.text()
    if not text.startswith("/") or ".." in text.split("/"):
        node.fail(f"{text[:80]!r} is not an absolute path on the host", hint="write it from the root, without `..`")
    return text


def read_host(node: Node, *, path: bool = False) -> str:
    """A registry's host[:port] as BuildKit and Docker write it: no scheme; with `path`, a prefix may follow."""
    refuse_scheme(node, node.text())
    pattern = HOST + (r"(?:/[A-Za-z0-9._~/-]{1,255})?" if path else "")
    return matching(node, pattern, "a registry's host[:port]", hint="for example harbor.example.com or depot.site:5000")


def refuse_scheme(node: Node, text: str) -> None:
    """Complain of `https://` where a bare host is meant, and say what to write."""
    if "://" in text:
        scheme, _, rest = text.partition("://")
        insecure = "; plain HTTP is said with `http: true`" if scheme == "http" else ""
        node.fail(f"{text[:80]!r} has a scheme", hint=f"write {rest.rstrip('/')[:80]}{insecure}")


def read_json(node: Node) -> Json:
    """Whatever is there, as JSON has it: texts, numbers, flags, lists, and mappings with text for keys."""
    value = node.value
    if isinstance(value, dict):
        return {key: None if item.value is None else read_json(item) for key, item in node.entries()}
    if isinstance(value, list):
        return [None if item.value is None else read_json(item) for item in node.items()]
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            node.fail("is no number that JSON can hold")
        return float(value)
    return node.text()


def read_flag(node: Node, key: str) -> bool:
    """Whether the child under `key` says true; not there means no."""
    return item.flag() if (item := node.find(key)) else False


def dropped(document: dict[str, Json]) -> dict[str, Json]:
    """Without what says nothing: None, false, empty."""
    return {key: value for key, value in document.items() if value}


def texts(items: Iterable[object]) -> list[str]:
    """Each as its text."""
    return [str(item) for item in items]
