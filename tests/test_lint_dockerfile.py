"""What a Dockerfile needs, told as BuildKit would find out."""

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airgap.oci import Platform
from airgap.projects.dockerfile import Build, Need, needs
from airgap.projects.expand import LONGEST, Text, expand

AMD64, ARM64, ARMV7 = Platform("linux", "amd64"), Platform("linux", "arm64"), Platform("linux", "arm", "v7")
ONE = Build(hosts=(AMD64,), targets=(ARM64,))
BOTH = Build(hosts=(AMD64,), targets=(AMD64, ARM64))


def told(build: Build = ONE, **arguments: str) -> Build:
    return Build(hosts=build.hosts, targets=build.targets, arguments=arguments)


def images(text: str, build: Build = ONE) -> list[str]:
    found = needs(text, build)
    assert not [need for need in found if need.unknown or need.why], found
    return [need.image for need in found]


def lines(text: str, build: Build = ONE) -> list[tuple[int, str]]:
    return [(need.line, need.image) for need in needs(text, build)]


def platforms(text: str, build: Build = BOTH) -> dict[str, set[str]]:
    return {need.image: {str(item) for item in need.platforms} for need in needs(text, build)}


def only(text: str, build: Build = ONE) -> Need:
    (need,) = needs(text, build)
    return need


# ---- directives ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "top",
    [
        "# syntax=docker/dockerfile:1",
        "#syntax=docker/dockerfile:1",
        "#   SynTax \t=  docker/dockerfile:1  ",
        "# escape=`\n# syntax=docker/dockerfile:1",
        "# check=skip=all\n# syntax=docker/dockerfile:1",
        "#!/usr/bin/env -S docker build .\n# syntax=docker/dockerfile:1",
        "// syntax=docker/dockerfile:1",
        "\ufeff# syntax=docker/dockerfile:1",
        "# syntax=docker/dockerfile:1 with words for the frontend",
    ],
)
def test_a_syntax_line_at_the_top_names_the_frontend(top: str):
    assert images(f"{top}\nFROM alpine\n")[0] == "docker/dockerfile:1"
    assert images(f"{top}\r\nFROM alpine\r\n".replace("\n", "\r\n"))[0] == "docker/dockerfile:1"


@pytest.mark.parametrize(
    "top",
    [
        "\n# syntax=x",
        "# a comment\n# syntax=x",
        "# other=1\n# syntax=x",
        "FROM y\n# syntax=x",
        "# syntax =",
        "# syn tax=x",
        "  # syntax=x",
    ],
)
def test_a_syntax_line_that_comes_too_late_is_a_comment(top: str):
    assert "x" not in images(f"{top}\nFROM alpine\n")


def test_of_two_syntax_lines_the_first_counts():
    assert images("# syntax=one\n# syntax=two\nFROM alpine\n") == ["one", "alpine"]


def test_the_frontend_runs_on_the_machine_that_builds_and_bases_are_for_what_is_built():
    assert platforms("# syntax=docker/dockerfile:1\nFROM alpine\n") == {
        "docker/dockerfile:1": {"linux/amd64"},
        "alpine": {"linux/amd64", "linux/arm64"},
    }


def test_buildkit_syntax_takes_the_place_of_the_files_own_frontend():
    text = "# syntax=docker/dockerfile:1\nFROM alpine\n"
    assert images(text, told(BUILDKIT_SYNTAX="mirror.site/dockerfile:1.9")) == ["mirror.site/dockerfile:1.9", "alpine"]
    assert images(text, told(BUILDKIT_SYNTAX="dockerfile.v0")) == ["alpine"]


def test_the_escape_directive_changes_what_continues_a_line():
    assert lines("# escape=`\nFROM `\n  alpine\nCOPY --from=busybox C:\\ D:\\\nRUN x\n") == [(2, "alpine"), (4, "busybox")]
    assert lines("FROM \\\n  alpine\nRUN echo `\nFROM busybox\n") == [(1, "alpine"), (4, "busybox")]


# ---- lines -----------------------------------------------------------------------------------------------------------


def test_lines_go_on_over_comments_and_blank_lines():
    text = "FROM \\\n# a comment\n\n  # another\n  alpine:3 \\\t \n AS one\nFROM one\n"
    assert lines(text) == [(1, "alpine:3")]


def test_an_escaped_backslash_at_the_end_of_a_line_continues_nothing():
    assert images("FROM alpine\nRUN dir C:\\\\\nFROM busybox\n") == ["alpine", "busybox"]


def test_words_of_a_comment_and_of_a_run_are_no_instructions():
    assert images("FROM alpine\n# FROM nothing\nRUN echo \\\n FROM nothing \\\n COPY --from=nothing\n  # COPY --from=x\n") == [
        "alpine"
    ]


def test_instructions_are_read_in_any_case_with_any_blanks():
    assert images("from\talpine\n\tcopy  --from=busybox  a b\nRun\t--mount=type=bind,From=golang x\n") == [
        "alpine",
        "busybox",
        "golang",
    ]


def test_windows_line_ends_are_line_ends():
    assert lines("FROM alpine\r\nRUN <<EOF\r\nFROM no\r\nEOF\r\nCOPY --from=busybox \\\r\n a b\r\n") == [
        (1, "alpine"),
        (5, "busybox"),
    ]


def test_other_characters_that_python_takes_for_line_ends_are_none():
    assert lines("FROM alpine\nRUN a\u2028FROM no\x0cFROM no\nFROM busybox") == [(1, "alpine"), (3, "busybox")]


@pytest.mark.parametrize(
    "opening",
    [
        "RUN <<EOF",
        "RUN <<'EOF'",
        'RUN <<"EOF"',
        "RUN <<-EOF",
        "RUN 3<<EOF",
        "RUN cat <<EOF > /x",
        "COPY <<EOF /x",
        "ADD <<EOF /x",
        "RUN --mount=type=cache,target=/x <<EOF",
        "ONBUILD RUN <<EOF",
        "run  bash <<EOF\t",
        'RUN echo "<<NO" <<EOF',
        "RUN \\\n  <<EOF",
    ],
)
def test_the_body_of_a_heredoc_is_no_dockerfile(opening: str):
    assert images(f"FROM alpine\n{opening}\nFROM inside\nCOPY --from=inside a b\nEOF\nFROM busybox\n") == ["alpine", "busybox"]


@pytest.mark.parametrize(
    "opening",
    ['RUN echo "<<EOF"', "RUN echo '<<EOF'", "RUN cat << EOF", "RUN <<<EOF", 'RUN ["cat", "<<EOF"]', "CMD <<EOF", "RUN x\\<<EOF"],
)
def test_what_only_looks_like_a_heredoc_hides_nothing(opening: str):
    assert images(f"FROM alpine\n{opening}\nFROM busybox\nRUN EOF\n") == ["alpine", "busybox"]


def test_several_heredocs_follow_one_another():
    assert images("FROM alpine\nCOPY <<ONE <<-TWO /x/\nFROM a\nONE\nFROM b\n\tTWO\nFROM busybox\n") == ["alpine", "busybox"]


def test_only_a_heredoc_with_a_dash_ends_behind_tabs():
    assert images("FROM alpine\nRUN <<EOF\n\tEOF\nFROM inside\nEOF\nFROM busybox\n") == ["alpine", "busybox"]


# ---- stages ----------------------------------------------------------------------------------------------------------


def test_stages_are_no_images_whatever_their_case():
    text = (
        "FROM golang AS Build\nFROM build AS next\nCOPY --from=BUILD a b\nFROM scratch\nCOPY --from=0 a b\nCOPY --from=next a b\n"
    )
    assert images(text) == ["golang"]


def test_from_knows_the_stages_above_it_only_and_copy_knows_them_all():
    assert images("FROM later\nCOPY --from=later a b\nFROM alpine AS later\n") == ["later", "alpine"]


def test_what_is_copied_from_and_mounted_is_needed_for_what_is_built():
    text = "FROM --platform=$BUILDPLATFORM alpine\nCOPY --chown=1:1 --from=busybox:1 a b\nRUN --mount=from=golang,target=/go x\n"
    assert platforms(text) == {
        "alpine": {"linux/amd64"},
        "busybox:1": {"linux/amd64", "linux/arm64"},
        "golang": {"linux/amd64", "linux/arm64"},
    }


def test_each_of_several_mounts_is_looked_at_and_quotes_are_taken_off():
    mounts = '--mount=type=cache,target=/c --mount="type=bind,from=b" --mount=from=c,type=bind --network=none'
    text = f"FROM a\nRUN {mounts} make --mount=from=no\n"
    assert images(text) == ["a", "b", "c"]


def test_add_takes_no_images():
    assert images("FROM a\nADD --from=b x y\nADD https://site.test/x y\n") == ["a"]


def test_copy_from_takes_no_variable_and_so_no_build_argument_cures_it():
    _, need = needs("ARG X=busybox\nFROM a\nCOPY --from=$X a b\n", told(X="y"))
    assert (need.image, need.unknown) == ("$X", ())
    assert "no variables" in need.why


def test_onbuild_asks_for_images_in_other_builds():
    assert images("FROM a\nONBUILD COPY --from=site.test/tools:1 a b\nONBUILD RUN --mount=from=x/y z\n") == [
        "a",
        "site.test/tools:1",
        "x/y",
    ]
    assert "stage" in needs("FROM a\nONBUILD COPY --from=inputs a b\n", ONE)[1].why
    assert images("FROM a AS inputs\nONBUILD COPY --from=inputs a b\n") == ["a"]


def test_contexts_of_the_build_stand_for_images_and_stages():
    text = "FROM base\nCOPY --from=proto a b\nFROM golang AS tools\nFROM alpine\n"
    build = Build(hosts=(AMD64,), targets=(AMD64,), contexts=frozenset({"base", "Proto", "tools"}))
    assert images(text, build) == ["alpine"]


# ---- platforms -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("$BUILDPLATFORM", {"linux/amd64"}),
        ("${BUILDPLATFORM}", {"linux/amd64"}),
        ("linux/$BUILDARCH", {"linux/amd64"}),
        ("${BUILDPLATFORM:-linux/arm64}", {"linux/amd64"}),
        ("$TARGETPLATFORM", {"linux/amd64", "linux/arm64"}),
        ("$TARGETOS/$TARGETARCH", {"linux/amd64", "linux/arm64"}),
        ("linux/arm/v7", {"linux/arm/v7"}),
        ("arm64", {"linux/arm64"}),
        ("linux/x86_64", {"linux/amd64"}),
        ("linux", {"linux/amd64"}),
        ("'linux/s390x'", {"linux/s390x"}),
        ("$WHERE", {"linux/riscv64"}),
    ],
)
def test_a_platform_is_worked_out_for_each_machine_and_target(asked: str, expected: set[str]):
    assert platforms(f"ARG WHERE=linux/riscv64\nFROM --platform={asked} alpine\n") == {"alpine": expected}


def test_names_that_hang_on_the_target_are_told_for_each():
    text = "FROM alpine AS base-amd64\nFROM debian AS base-arm64\nFROM base-$TARGETARCH\nFROM tool:$TARGETARCH$TARGETVARIANT\n"
    build = Build(hosts=(AMD64,), targets=(AMD64, ARM64, ARMV7))
    assert platforms(text, build) == {
        "alpine": {"linux/amd64", "linux/arm64", "linux/arm/v7"},
        "debian": {"linux/amd64", "linux/arm64", "linux/arm/v7"},
        "base-arm": {"linux/arm/v7"},
        "tool:amd64": {"linux/amd64"},
        "tool:arm64": {"linux/arm64"},
        "tool:armv7": {"linux/arm/v7"},
    }


def test_a_platform_that_is_none_is_told():
    assert "is not a platform" in only("FROM --platform=linux/ alpine\n").why
    assert only("ARG P\nFROM --platform=$P alpine\n").unknown == ("P",)


# ---- arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "image"),
    [
        ("ARG V=3\nFROM alpine:$V", "alpine:3"),
        ("ARG V=3\nFROM alpine:${V}", "alpine:3"),
        ("ARG V='3' W=4\nFROM alpine:$V.$W", "alpine:3.4"),
        ('ARG A="x/y" B=${A}:1\nFROM $B', "x/y:1"),
        ("ARG V\nFROM alpine:${V:-3}", "alpine:3"),
        ("ARG V=\nFROM alpine:${V:-3}", "alpine:3"),
        ("ARG V=\nFROM alpine${V-:3}", "alpine"),
        ("ARG V=9\nFROM alpine${V:+:$V}", "alpine:9"),
        ("FROM alpine${V:+:$V}", "alpine"),
        ("ARG V=3\nARG V\nFROM alpine:$V", "alpine:3"),
        ("ARG V\nFROM alpine:${V:-${W:-7}}", "alpine:7"),
        ('FROM "alpine:3"', "alpine:3"),
        ("ARG V=1\nFROM scratch\nARG V=2\nFROM alpine:$V", "alpine:1"),
        ("FROM scratch\nARG V=2\nFROM alpine${V}", "alpine"),
        ("ARG V=a\\$b\nFROM alpine:${V+x}", "alpine:x"),
        ("ARG V=${W:?must be}\nARG V=1\nFROM alpine:$V", "alpine:1"),
    ],
)
def test_arguments_before_the_first_from_are_filled_in(text: str, image: str):
    assert images(text) == [image]


def test_the_builds_own_arguments_come_before_defaults_but_only_for_what_is_declared():
    text = "ARG V=3\nFROM alpine:$V\nFROM busybox${W}\n"
    assert images(text, told(V="4", W="9")) == ["alpine:4", "busybox"]
    assert images("FROM alpine:$TARGETARCH\n", told(TARGETARCH="mine")) == ["alpine:mine"]


def test_what_hangs_on_an_argument_without_a_default_is_not_guessed():
    need = only("ARG REGISTRY\nARG BASE=${REGISTRY}/alpine\nFROM ${BASE}:3\n")
    assert (need.image, need.unknown, need.platforms) == ("${BASE}:3", ("REGISTRY",), frozenset())
    assert images("ARG REGISTRY\nARG BASE=${REGISTRY}/alpine\nFROM ${BASE}:3\n", told(REGISTRY="r.test")) == ["r.test/alpine:3"]


def test_a_value_that_is_not_known_is_not_taken_for_an_empty_one():
    assert only("ARG V\nARG W=$V\nFROM alpine:${W:-3}\n").unknown == ("V",)
    assert only("ARG V\nARG W=$V\nFROM alpine${W:+:$W}\n").unknown == ("V",)


def test_of_arguments_without_number_the_last_are_not_told_wrongly():
    text = "ARG A0=x\n" + "".join(f"ARG A{n}=x$A{n - 1}\n" for n in range(1, 9_000))
    assert images(f"{text}FROM a:$A9\n") == ["a:" + "x" * 10]
    assert only(f"{text}FROM a$A8000\n").unknown == ("A8000",)


def test_what_no_argument_can_set_is_told_without_that_cure():
    need = only("FROM $BASE\n")
    assert (need.image, need.unknown) == ("$BASE", ())
    assert "no ARG" in need.why
    assert "names nothing" in only("FROM\n").why


@pytest.mark.parametrize("base", ["alpine:${V%.*}", "alpine:${V", 'al"pine', "${}", "${V/1/2}", "alpine'"])
def test_what_is_not_worked_out_or_refused_by_buildkit_is_told(base: str):
    need = only(f"ARG V=1\nFROM {base}\n")
    assert need.why
    assert not need.platforms


# ---- bounds ----------------------------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        "FROM ",
        "ARG ",
        "COPY ",
        "RUN ",
        "ONBUILD ",
        "--from=",
        "--mount=",
        "--platform=",
        "type=bind,from=",
        " AS ",
        "# syntax=",
        "# escape=`",
        "<<EOF",
        "<<-'E'",
        "EOF",
        "$",
        "${",
        "}",
        ":-",
        "%",
        "/",
        "'",
        '"',
        "\\",
        "`",
        "\n",
        "\r\n",
        "\t",
        " ",
        "=",
        "A",
        "$A",
        "alpine",
        "scratch",
        "\ufeff",
        "\x00",
        "[",
        "]",
        "0",
        ",",
        "#",
        "//",
        "$TARGETARCH",
        "\u2028",
    ]
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(st.text(max_size=300), st.lists(PIECES, max_size=60).map("".join)))
def test_any_text_is_read_without_an_error(text: str):
    for need in needs(text, Build(hosts=(AMD64,), targets=(AMD64, ARMV7), arguments={"A": "x"})):
        assert 0 < need.line <= text.count("\n") + 1
        assert need.platforms or need.unknown or need.why


SIZE = 1 << 20


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        " ",
        "\n",
        "\\\n",
        "#\n",
        "FROM a\n",
        "ARG A=$A$A\n",
        "ARG A=x$A\n",
        "RUN <<A <<A ",
        "--a ",
        "RUN --mount=a ",
        "'",
        '"\\"',
        "${A:-",
        "$A",
        "COPY --from=a b c\n",
        "# a = ",
        "ARG V\nARG B=$B$V\n",
        "[",
        'RUN ["<<',
        "<<",
        "ONBUILD ",
        "FROM a AS b\n",
        "\\",
        "-- ",
    ],
)
@pytest.mark.parametrize("head", ["", "FROM ", "ARG A=1\nARG B="])
def test_a_megabyte_of_anything_is_read_in_a_moment(head: str, unit: str):
    text = (head + unit * (SIZE // len(unit)))[:SIZE]
    before = time.process_time()
    needs(text, ONE)
    assert time.process_time() - before < 4


@pytest.mark.parametrize("filler", ["\n", "RUN x\n"])
def test_that_only_the_beginning_of_a_file_without_end_was_read_is_said(filler: str):
    first, last = sorted(needs("FROM alpine\n" + filler * 200_000 + "FROM busybox\n", ONE), key=lambda need: need.why)
    assert first.image == "alpine"
    assert "the rest was not read" in last.why


def test_values_that_double_with_every_line_end():
    text = "ARG A0=aaaaaaaa\n" + "".join(f"ARG A{n + 1}=$A{n}$A{n}\n" for n in range(60)) + "FROM $A60\nFROM busybox\n"
    found = needs(text, ONE)
    assert [need.image for need in found if not need.unknown and not need.why] == ["busybox"]
    with pytest.raises(ValueError, match="longer than"):
        expand("$A$A", {"A": Text("x" * LONGEST)}, maybe=None)
    with pytest.raises(ValueError, match="deep"):
        expand("${A:-" * 100 + "}" * 100, {}, maybe=None)
