"""README.txt of a bundle: how to check and open it with nothing but what every Linux has. It must stay true without us."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from airgap.lock import Lock

_TEXT: Final = """\
{title}
{line}

This file is part of a bundle that airgap wrote: one plain tar with everything that multi-platform Docker builds need on a
host without internet. It serves {platforms}.


INSTALL

  On the host, as root, with the bundle in the present folder:

    tar -xf {file} install.sh README.txt
    sh install.sh {file} --plan        shows every step, changes nothing
    sh install.sh {file}               installs; run again, it changes nothing

  The host needs sh, tar, gzip and sha256sum. The bundle brings its own airgap.


CHECK IT, with tar and sha256sum only

  1. Unpack it into an empty folder. All that is in it are plain files:

    mkdir opened && tar -xf {file} -C opened && cd opened

  2. Every file under blobs/sha256 is named after its own SHA-256. No line may say anything but OK:

    (cd blobs/sha256 && for f in *; do echo "$f  $f"; done | sha256sum -c)

  3. index.json names install.sh and README.txt by their SHA-256. Compare these two lines with those under "annotations" in it:

    sha256sum install.sh README.txt
    grep airgap.bundle.member index.json

  4. index.json names the first blob, the bundle's own manifest, and that names the lock and all the files; the other entries
     in index.json are the images. So whoever has the SHA-256 of index.json from the packer has checked it all:

    sha256sum index.json

     If index.json.minisig is there, the packer has signed index.json, and minisign checks that with the packer's public key:

    minisign -Vm index.json -p packer.pub


OPEN IT

  The folder is an OCI image layout, for skopeo, crane and others. The tar is one, too:

    skopeo inspect oci-archive:{file}:REFERENCE

  The lock is the blob that the bundle's own manifest calls "config". It says of every file and every image where it came from,
  its digest, and who vouched for it. The files are the "layers" there, by their title; those of the media type that ends in
  +zstd are opened with `zstd -d --long=27`. What comes out has this SHA-256 and name:

{files}

  Images, with the digest under which they were published:

{images}
"""


def readme(lock: Lock) -> str:
    """README.txt for the bundle of this lock: ASCII, the same for the same lock."""
    title = f"airgap bundle {_ascii(lock.name)}, serial {lock.serial}"
    platforms = sorted({str(item.platform) for item in lock.files if item.platform})
    files = sorted((_ascii(item.filename), item.content.digest.hex) for item in lock.files)
    images = sorted((_ascii(str(item.reference)), item.root.digest.hex) for item in lock.images)
    return _TEXT.format(
        title=title,
        line="=" * len(title),
        file=f"airgap-{_ascii(lock.name)}-{lock.serial}.tar",
        platforms=", ".join(platforms) or "any platform",
        files="\n".join(f"    {digest}  {name}" for name, digest in files) or "    (none)",
        images="\n".join(f"    {digest}  {name}" for name, digest in images) or "    (none)",
    )


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()
