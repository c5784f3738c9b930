# Sourced by demo.sh and run.sh from the top of the checkout: afterwards $python is a Python with airgap and its tests' needs.
# The environment is .venv in the checkout; it is made once and brought up to date when pyproject.toml changes.

find_python() { # the newest Python >= 3.10 that is there
    for candidate in python3.14 python3.13 python3.12 python3.11 python3.10 python3; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    return 1
}

make_venv() {
    if ! base=$(find_python); then
        install_packages python3 python3-venv || return 1
        base=$(find_python) || { echo 'no Python 3.10 or newer could be found or installed' >&2; return 1; }
    fi
    rm -rf .venv
    if ! "$base" -m venv .venv >/dev/null 2>&1; then
        # Debian keeps what venv needs in a package of its own.
        install_packages python3-venv || return 1
        rm -rf .venv
        python3 -m venv .venv || return 1
    fi
}

install_packages() {
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
        echo "please install: $*" >&2
        return 1
    fi
    DEBIAN_FRONTEND=noninteractive apt-get update -q >/dev/null &&
        DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >/dev/null
}

python=$PWD/.venv/bin/python
wanted=$(sha256sum <pyproject.toml)
if ! "$python" -c 'import airgap' 2>/dev/null || [ "$(cat .venv/made-for 2>/dev/null)" != "$wanted" ]; then
    "$python" -m pip --version >/dev/null 2>&1 || make_venv || exit 1
    echo 'making .venv …' >&2
    "$python" -m pip install --quiet --disable-pip-version-check --editable '.[test]' || exit 1
    printf '%s\n' "$wanted" >.venv/made-for
fi
