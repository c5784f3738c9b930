from __future__ import annotations

import pytest

from airgap.bundle.archive import Bundle
from airgap.bundle.inspect import contents, tree
from airgap.bundle.readme import readme
from airgap.lock import Lock
from tests.sample import ingredients


@pytest.fixture
def bundle(tmp_path):
    with Bundle.at(ingredients(tmp_path).write(tmp_path / "b.tar")) as opened:
        yield opened


def test_a_row_says_kind_name_version_platform_size_and_voucher(bundle):
    rows = contents(bundle.lock)
    assert [(row.kind, row.name, row.platform, row.voucher) for row in rows] == [
        ("plugin", "engine", "linux/amd64", "first-seen"),
        ("plugin", "other", "linux/amd64", "first-seen"),
        ("plugin", "tool", "linux/amd64", "first-seen"),
        ("plugin", "wheel", "any", "first-seen"),
        ("image", "tiny", "linux/amd64, linux/arm64", "published"),
    ]
    assert rows[2].size == next(item.upstream.size for item in bundle.lock.files if item.name == "tool")
    assert rows[-1].version == "1"
    assert set(rows[0].to_json()) == {"kind", "name", "version", "platform", "size", "voucher"}


def test_the_tree_names_every_digest_source_and_voucher(bundle):
    text = tree(bundle)
    for item in bundle.index.carried:
        digests = (item.artifact.upstream.digest, item.artifact.content.digest, item.blob.digest)
        for word in (item.artifact.url, *map(str, digests)):
            assert word in text
    for image in bundle.lock.images:
        for word in (str(image.reference), str(image.root.digest), *(str(child.digest) for child in image.manifests)):
            assert word in text


def test_the_readme_is_plain_ascii_says_the_commands_and_is_the_same_every_time(bundle):
    text = readme(bundle.lock)
    assert text == readme(Lock.parse(bundle.lock.dump(), name="again"))
    assert text.isascii()
    assert all(len(line) <= 132 and line == line.rstrip() for line in text.splitlines())
    for word in ("sha256sum -c", "sh install.sh airgap-site-7.tar", "linux/amd64", "minisign -Vm index.json"):
        assert word in text
    for item in bundle.lock.files:
        assert f"{item.content.digest.hex}  {item.filename}" in text
