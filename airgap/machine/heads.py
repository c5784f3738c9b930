"""One HEAD request to a registry on the site, answered or not: how the proof asks whether an image is served.

The standard library on purpose: the online side's client fetches, resumes and retries; here one answer, or its absence, is the fact.
"""

from __future__ import annotations

import http.client
from dataclasses import dataclass

from airgap.errors import HostUnsuitable
from airgap.machine.run import printable
from airgap.oci import DOCKER_LIST, DOCKER_MANIFEST, INDEX, MANIFEST

SECONDS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A status, its words, and the digest that the registry says it serves."""

    status: int
    reason: str
    digest: str


def head(address: str, path: str, *, tls: bool = False, ca: str = "") -> Answer:
    """What `address` (host:port) answers for `path`. HostUnsuitable if nobody answers, or a certificate is not the CA's."""
    try:
        connection = _connection(address, tls=tls, ca=ca)
        try:
            connection.request("HEAD", path, headers={"Accept": f"{INDEX}, {DOCKER_LIST}, {MANIFEST}, {DOCKER_MANIFEST}"})
            answer = connection.getresponse()
            return Answer(
                status=answer.status, reason=printable(answer.reason), digest=answer.getheader("Docker-Content-Digest") or ""
            )
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError) as cause:
        raise HostUnsuitable(f"nothing sound answers at {address}: {printable(str(cause)) or type(cause).__name__}") from cause


def _connection(address: str, *, tls: bool, ca: str) -> http.client.HTTPConnection:
    if not tls:
        return http.client.HTTPConnection(address, timeout=SECONDS)
    import ssl

    return http.client.HTTPSConnection(address, timeout=SECONDS, context=ssl.create_default_context(cafile=ca or None))
