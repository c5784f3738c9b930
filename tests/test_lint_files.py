"""Build files below folders: what is looked at, and what compose and bake files add to it."""

import json
import os
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airgap.errors import ManifestError, UsageError
from airgap.oci import Platform
from airgap.projects import bake, compose, hcl
from airgap.projects.dockerfile import Build
from airgap.projects.files import Found, find
from airgap.yamltext import LOOSE_LIMIT, Text, read_loosely

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
BUILD = Build(hosts=(AMD64,), targets=(AMD64, ARM64))


def told(**arguments: str) -> Build:
    return Build(hosts=BUILD.hosts, targets=BUILD.targets, arguments=arguments)


@pytest.fixture
def project(tmp_path: Path):
    """A folder to be filled: `project({"Dockerfile": "FROM x"})`."""

    def fill(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return fill


def places(found: list[Found], folder: Path) -> dict[str, list[str]]:
    """Image by image, where it is asked for; those that cannot be told have a question mark."""
    told: dict[str, list[str]] = {}
    for item in found:
        mark = "?" if item.need.unknown or item.need.why else ""
        name = item.path.relative_to(folder) if item.path.is_relative_to(folder) else item.path
        told.setdefault(item.need.image + mark, []).append(f"{name}:{item.need.line}")
    return told


def asked(folder: Path, build: Build = BUILD) -> dict[str, list[str]]:
    return places(find([folder], build), folder)


# ---- what is looked at -----------------------------------------------------------------------------------------------


def test_build_files_are_found_by_the_names_that_people_give_them(project):
    names = [
        "Dockerfile",
        "dockerfile",
        "a/Dockerfile.dev",
        "a/Dockerfile-ci",
        "b/app.Dockerfile",
        "b/app.dockerfile",
        "Containerfile",
    ]
    others = [
        "Dockerfile.dockerignore",
        "MyDockerfile",
        "dockerfiles",
        "node_modules/x/Dockerfile",
        ".git/Dockerfile",
        "vendor/y/Dockerfile",
    ]
    folder = project({name: f"FROM here/{index}\n" for index, name in enumerate(names)} | dict.fromkeys(others, "FROM no\n"))
    assert asked(folder) == {f"here/{index}": [f"{name}:1"] for index, name in sorted(enumerate(names), key=lambda item: item[1])}


def test_a_file_that_is_named_is_a_dockerfile_whatever_its_name(project):
    folder = project({"build.txt": "FROM one\n", "x/Dockerfile": "FROM two\n"})
    assert places(find([folder / "build.txt", folder / "x"], BUILD), folder) == {
        "one": ["build.txt:1"],
        "two": ["x/Dockerfile:1"],
    }


def test_a_file_that_is_reached_twice_is_told_once(project):
    folder = project({"x/Dockerfile": "FROM one\n"})
    assert len(find([folder, folder / "x", folder / "x/../x/Dockerfile"], BUILD)) == 1


def test_a_place_that_is_not_there_is_a_complaint(tmp_path):
    with pytest.raises(UsageError, match="nowhere"):
        find([tmp_path / "nowhere"], BUILD)


def test_pipes_and_links_to_nothing_keep_nobody_waiting(project):
    folder = project({"x/Dockerfile": "FROM one\n"})
    os.mkfifo(folder / "Dockerfile")
    (folder / "Dockerfile.gone").symlink_to("nowhere")
    (folder / "y.Dockerfile").mkdir()
    assert asked(folder) == {"one": ["x/Dockerfile:1"]}


def test_a_file_that_cannot_be_read_is_told_and_the_others_are_looked_at(project):
    folder = project(
        {
            "Dockerfile": "FROM alpine\n",
            "compose.yaml": "a: [\n",
            "docker-bake.hcl": "target {\n",
            "docker-bake.json": "{",
            "compose.x.yml": "{{x}}: y\n",
            "Dockerfile.large": "#" * (4 << 20) + "\n\n",
        }
    )
    found = find([folder], BUILD)
    assert {item.path.name for item in found if item.need.why.startswith("cannot be read: ")} == {
        "compose.yaml",
        "docker-bake.hcl",
        "docker-bake.json",
        "Dockerfile.large",
    }
    assert [item.need.image for item in found if not item.need.why] == ["alpine"]


def test_a_dockerfile_in_another_encoding_is_read_as_far_as_it_goes(tmp_path):
    (tmp_path / "Dockerfile").write_bytes(b"FROM alpine\n# \xff\xe9\nFROM busybox\n")
    assert asked(tmp_path) == {"alpine": ["Dockerfile:1"], "busybox": ["Dockerfile:3"]}


# ---- compose ---------------------------------------------------------------------------------------------------------

COMPOSE = """\
x-common: &common
  image: redis:7
  environment: {A: b}
services:
  cache:
    <<: *common
  db:
    image: "postgres:${PG:-17}"
    platform: linux/arm64
  app:
    image: site/app:1
    build:
      context: ./app
      args:
        GO: "1.25"
        OTHER:
  worker:
    image: site/app:1
  web: {build: web}
  gone: !reset null
"""


def test_compose_services_need_images_unless_the_file_builds_them(project):
    folder = project(
        {
            "compose.yaml": COMPOSE,
            "app/Dockerfile": "ARG GO\nARG OTHER=1\nFROM golang:$GO\nFROM alpine:$OTHER\n",
            "web/Dockerfile": "FROM nginx\n",
        }
    )
    found = find([folder], BUILD)
    assert places(found, folder) == {
        "redis:7": ["compose.yaml:2"],
        "postgres:17": ["compose.yaml:8"],
        "golang:1.25": ["app/Dockerfile:3"],
        "alpine:1": ["app/Dockerfile:4"],
        "nginx": ["web/Dockerfile:1"],
    }
    wanted = {item.need.image: item.need.platforms for item in found}
    assert wanted["redis:7"] == {AMD64}
    assert wanted["postgres:17"] == {ARM64}
    assert wanted["nginx"] == {AMD64, ARM64}


def test_compose_variables_come_from_the_command_then_from_the_env_file(project):
    text = 'services:\n  a: {image: "x:$V"}\n  b: {image: "y:${V}"}\n  c: {image: "z:${W}"}\n  d: {image: "q:1$$"}\n'
    folder = project({"compose.yaml": text, ".env": "# c\nexport V='1'\nU=3 # c\nbroken\n"})
    assert set(asked(folder)) == {"x:1", "y:1", "z:${W}?", "q:1$"}
    assert set(asked(folder, told(V="2", W="5"))) == {"x:2", "y:2", "z:5", "q:1$"}
    assert compose.variables("A=1\nB = 2\nC='a # b'\n D=\"x\"\nE=a # b\n=x\n") == {
        "A": "1",
        "B": "2",
        "C": "a # b",
        "D": "x",
        "E": "a",
    }


def test_dockerfiles_are_followed_to_where_compose_says_they_are(project):
    text = """\
services:
  a: {build: {context: sub, dockerfile: ../build/a.txt}}
  b: {build: {context: "https://git.test/x.git"}}
  c: {build: {context: ., dockerfile: none.txt}}
  d: {build: "${WHERE}"}
"""
    folder = project({"x/docker-compose.yml": text, "x/build/a.txt": "FROM alpine\n"})
    assert asked(folder) == {"alpine": ["x/build/a.txt:1"], "none.txt?": ["x/docker-compose.yml:4"]}


def test_dockerfiles_inside_compose_files_have_the_compose_files_lines(project):
    text = """\
services:
  a:
    build:
      args: [V=3]
      additional_contexts:
        - base=docker-image://debian:13
        - proto=./proto
      dockerfile_inline: |
        ARG V
        FROM alpine:$$V
        FROM base
        COPY --from=proto a b
        COPY --from=busybox a b
"""
    folder = project({"compose.yaml": text})
    assert asked(folder) == {"debian:13": ["compose.yaml:6"], "alpine:3": ["compose.yaml:10"], "busybox": ["compose.yaml:13"]}


def test_a_name_that_a_build_replaces_is_no_images_name_when_the_dockerfile_is_read_by_itself(project):
    text = "services:\n  a: {build: {context: ., additional_contexts: {proto: ./proto}}}\n"
    folder = project({"compose.yaml": text, "Dockerfile": "FROM alpine\nCOPY --from=proto a b\n"})
    assert asked(folder) == {"alpine": ["Dockerfile:1"]}


def test_what_one_build_can_tell_is_not_asked_again_for_the_file_by_itself(project):
    dockerfile = "ARG V\nARG W\nARG X=1\nFROM alpine:$V\nFROM busybox:$W\nFROM debian:$X\n"
    text = "services:\n  a: {build: {context: ., args: {V: 3, X: 2}}}\n  b: {build: {context: ., args: {V: 4}}}\n"
    folder = project({"compose.yaml": text, "Dockerfile": dockerfile})
    assert set(asked(folder)) == {"alpine:3", "alpine:4", "busybox:$W?", "debian:1", "debian:2"}
    assert set(asked(folder, told(V="5", W="6", X="7"))) == {"alpine:5", "busybox:6", "debian:7"}


def test_images_as_volumes_are_images(project):
    volumes = "['x:/y', {type: image, source: two, target: /z}, {type: bind, source: three}]"
    text = f"services:\n  a:\n    image: one\n    volumes: {volumes}\n"
    assert set(asked(project({"compose.yaml": text}))) == {"one", "two"}


def test_a_compose_file_of_any_shape_is_read(tmp_path):
    shapes = [
        "",
        "[]",
        "services: []",
        "services: {a: b}",
        "services: {a: {image: [x]}}",
        "services: {a: {build: []}}",
        "? [a]\n: b",
        "--- a\n--- b",
        "services: {a: {build: {args: 3, additional_contexts: [1, {}]}}}",
        "services: {a: {image: x, platform: nowhere}}",
    ]
    for number, shape in enumerate(shapes):
        (tmp_path / f"compose.{number}.yaml").write_text(shape)
    assert set(asked(tmp_path)) == {"x?"}


# ---- YAML, loosely ---------------------------------------------------------------------------------------------------


def test_yaml_is_read_with_all_that_compose_files_use():
    text = b"""\
a: &a {x: 1, y: 2.50}
b: {<<: *a, y: no}
c: {<<: [*a, {x: 9, z: !!str 8}], w: !override [1]}
d: !reset [x]
e: "<<"
e: twice
f: |
  text
g:
"""
    (value,) = read_loosely(text, name="x")
    assert value == {
        "a": {"x": "1", "y": "2.50"},
        "b": {"x": "1", "y": "no"},
        "c": {"x": "1", "y": "2.50", "z": "8", "w": ["1"]},
        "d": None,
        "e": "twice",
        "f": "text\n",
        "g": None,
    }
    assert [value[key].line for key in "ef"] == [6, 8]
    assert isinstance(value["a"]["x"], Text)
    assert read_loosely(b"a\n---\nb: 1\n", name="x") == ["a", {"b": "1"}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [x]\n" + "".join(f"b{n}: &b{n} [{', '.join([f'*b{n - 1}' if n else '*a'] * 9)}]\n" for n in range(20)), "unfold"),
        (
            "a: &a {x: y}\n"
            + "".join(
                f"b{n}: &b{n} {{{', '.join(f'k{k}: *b{n - 1}' if n else f'k{k}: *a' for k in range(9))}}}\n" for n in range(9)
            ),
            "unfold",
        ),
        ("- &a [x]\n" + "".join(f"- &a [{', '.join(['*a'] * 9)}]\n" for _ in range(9)), "unfold"),
        ("a: &a [*a]", "names nothing"),
        ("[" * 100, "deep"),
        ("a: {b: [c}", "not valid YAML"),
        ("a: \x01", "not valid YAML"),
        ("#" * (LOOSE_LIMIT + 1), "more than"),
    ],
)
def test_yaml_that_is_broken_or_made_to_harm_is_a_complaint(text: str, message: str):
    before = time.process_time()
    with pytest.raises(ManifestError, match=message):
        read_loosely(text.encode(), name="x.yaml")
    assert time.process_time() - before < 3


# ---- bake ------------------------------------------------------------------------------------------------------------

HCL = """\
# what we build
variable "TAG" { default = "3.22" }
variable "EMPTY" {
  default = null
  validation {
    condition = EMPTY != "}"
  }
}
function "name" {
  params = [image]
  result = "${image}:x"
}
group "default" { targets = ["app", "tool"] }
target "_base" {
  args = { GO = "1.25", NEW = upper("a}"), V = TAG }
  contexts = {
    base = "docker-image://alpine:${TAG}" // ours
    "rest" = "docker-image://${name("b")}"
  }
}
target "app" {
  inherits = ["_base"]
  context = "app"
  args = { V = "2" }
  platforms = [
    "linux/amd64", /* and */ "linux/arm64",
  ]
  tags = [for t in ["a", "b"] : "x:${t}"]
}
target "tool" {
  inherits = ["_base"]
  dockerfile-inline = <<-EOT
    ARG GO
    FROM golang:$GO
    FROM base
    COPY --from=busybox:${TAG} a b
  EOT
}
"""


def test_bake_targets_need_their_contexts_and_what_their_dockerfiles_need(project):
    dockerfile = "ARG GO\nARG V\nFROM golang:$GO\nFROM base\nFROM debian:$V\n"
    folder = project({"docker-bake.hcl": HCL, "app/Dockerfile": dockerfile})
    assert {image: sorted(set(where)) for image, where in asked(folder).items()} == {
        "alpine:3.22": ["docker-bake.hcl:17"],
        '${name("b")}?': ["docker-bake.hcl:18"],
        "golang:1.25": ["app/Dockerfile:3", "docker-bake.hcl:34"],
        "debian:2": ["app/Dockerfile:5"],
        "busybox:3.22": ["docker-bake.hcl:36"],
    }
    assert "alpine:9" in asked(folder, told(TAG="9"))


def test_bake_in_json_is_the_same(project):
    document = {
        "variable": {"TAG": {"default": "3"}},
        "target": {
            "a": {
                "contexts": {"base": "docker-image://alpine:${TAG}", "other": "target:b"},
                "dockerfile-inline": "FROM base\nFROM other\n",
            },
            "b": {"context": "https://git.test/x", "inherits": ["b", "a"]},
            "c": {"context": "cwd://sub", "args": {"V": "1"}},
        },
    }
    folder = project({"docker-bake.json": json.dumps(document, indent="\t"), "sub/Dockerfile": "ARG V\nFROM debian:$V\n"})
    assert {image: set(where) for image, where in asked(folder).items()} == {
        "alpine:3": {"docker-bake.json:10"},
        "debian:1": {"sub/Dockerfile:2"},
    }


def test_bake_variables_without_a_value_are_told_with_their_names():
    (need,), _ = bake.read(hcl.read('variable "V" {}\ntarget "a" { contexts = { x = "docker-image://a:${V}" } }\n'), BUILD)
    assert (need.image, need.unknown, need.line) == ("a:${V}", ("V",), 2)


def test_targets_that_inherit_in_circles_or_many_times_over_are_read_once():
    names = "".join(f'target "t{n}" {{ inherits = [{", ".join([f"{chr(34)}t{n - 1}{chr(34)}"] * 9)}] }}\n' for n in range(40))
    base = 'target "t-1" { inherits = ["t39"] \n contexts = { x = "docker-image://a:1" } }\n'
    found, _ = bake.read(hcl.read(base + names), BUILD)
    assert {need.image for need in found} == {"a:1"}


def test_hcl_texts_keep_their_templates_and_lose_their_escapes():
    text = 'a = "x\\"y${f("}", {a = "b"})}z"\nb = <<T\none\n  two\nT\nc = <<-T\n    one\n      two\n    T\n'
    text += "d = TAG\ne = 1.5\nf = [1, TAG, a.b, !x]\n"
    assert hcl.read(text) == {
        "a": 'x"y${f("}", {a = "b"})}z',
        "b": "one\n  two\n",
        "c": "one\n  two\n",
        "d": "${TAG}",
        "e": "1.5",
        "f": ["1", "${TAG}", None, None],
    }


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "a {",
        "a = {",
        "a = [",
        'a = "',
        "}",
        "a = <<X\n",
        "{",
        "a = [)]",
        "a = {b}",
        "=",
        "a 'b' {}",
        "a {" * 50,
        "a = " + "[" * 50,
    ],
)
def test_hcl_that_is_none_is_a_complaint_with_its_line(text: str):
    with pytest.raises(ValueError, match=r"^line [12]: "):
        hcl.read(text)


PIECES = st.sampled_from(
    [
        "target",
        "variable",
        "contexts",
        "inherits",
        "args",
        "=",
        "{",
        "}",
        "[",
        "]",
        '"',
        "${",
        "$${",
        "docker-image://",
        "\n",
        ",",
        "#",
        "/*",
        "*/",
        "<<-E\n",
        "E\n",
        "(",
        ")",
        "\\",
        "a",
        '"a"',
        ":",
        "//",
        " ",
        "services",
        "image",
        "build",
        "&a ",
        "*a ",
        "<<: ",
        "- ",
        "? ",
        "!reset ",
    ]
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=60).map("".join)))
def test_any_text_is_a_bake_and_a_compose_file_or_a_complaint(text: str):
    with suppress(ValueError):
        bake.read(hcl.read(text), BUILD)
    with suppress(ManifestError):
        compose.read(read_loosely(text.encode("utf-8", "replace"), name="x"), BUILD, dotenv=text)


KEYS = [
    *("target", "variable", "default", "contexts", "args", "inherits", "context", "dockerfile", "dockerfile-inline", "a", "b"),
    *("services", "image", "build", "additional_contexts", "dockerfile_inline", "volumes", "type", "source", "platform"),
]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.recursive(
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.sampled_from(["docker-image://a:${V}", "FROM a\n", "a", "${V}", ".", "$", "${"]),
        ),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(
                st.sampled_from(KEYS),
                inner,
                max_size=4,
            ),
        ),
        max_leaves=25,
    )
)
def test_documents_of_any_shape_are_read(document):
    bake.read(document, BUILD)
    compose.read([document], BUILD)


@pytest.mark.parametrize(
    "unit",
    [
        "a {\n",
        "a = [\n",
        "a=1\n",
        '"',
        "/*",
        "a = <<-E\n",
        " ",
        "\n",
        "${",
        'target "a" {}\n',
        "a = (\n",
        "[",
        "# a\n",
        "<<",
        "a = <<-E\n x\nE\n",
    ],
)
def test_a_megabyte_of_hcl_is_read_in_a_moment(unit: str):
    text = unit * ((1 << 20) // len(unit))
    before = time.process_time()
    with suppress(ValueError):
        bake.read(hcl.read(text), BUILD)
    assert time.process_time() - before < 5
