# Sourced by the run_*.sh scripts. It sets SLMREC (the project's directory) and PYTHON, a Python that can check flags before anything is
# installed; paths that a user gives stay relative to where the user stands.
#   source scripts/setup_env.sh               make_environment [EXTRA ...] is called later, once flags are checked: then `python`
#                                             satisfies every pin of requirements.txt and of these extras of pyproject.toml. An
#                                             active environment that already does is used as it is, otherwise .venv is made or
#                                             brought up to date

SLMREC="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." > /dev/null && pwd)"
export PYTHONPATH="$SLMREC${PYTHONPATH:+:$PYTHONPATH}"

slmrec_new_enough() {  # slmrec_new_enough PYTHON
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null
}

slmrec_find_python() {
    local candidate
    for candidate in python "$SLMREC/.venv/bin/python" python3 python3.14 python3.13 python3.12 python3.11; do
        if slmrec_new_enough "$candidate"; then
            PYTHON="$candidate"
            return
        fi
    done
    candidate="$(python3 --version 2> /dev/null)" || candidate="none"
    echo "error: Python 3.11 or newer is needed, and python3 is $candidate" >&2
    exit 2
}

slmrec_missing_pins() {  # slmrec_missing_pins PYTHON EXTRA ...: the pins that it does not satisfy; fails below Python 3.11
    "$1" - "$SLMREC" "${@:2}" << 'PYTHON'
import importlib.metadata as metadata
import sys
import tomllib
from pathlib import Path

root, extras = Path(sys.argv[1]), sys.argv[2:]
lines = (line.split("#")[0].strip() for line in (root / "requirements.txt").read_text(encoding="utf-8").splitlines())
pins = [line for line in lines if line]
if extras:
    named = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    pins += [pin for extra in extras for pin in named[extra]]
for pin in pins:
    package, version = pin.split("==")
    try:
        found = metadata.version(package)
    except metadata.PackageNotFoundError:
        found = None
    if found is None or found.split("+")[0] != version:  # "2.13.0+cpu" is a build of the pinned release 2.13.0
        print(pin, end=" ")
PYTHON
}

make_environment() {  # make_environment [EXTRA ...]
    local missing venv="$SLMREC/.venv"
    if command -v python > /dev/null && missing="$(slmrec_missing_pins python "$@" 2> /dev/null)" && [ -z "$missing" ]; then
        return
    fi
    # A .venv without pip, or whose Python was removed or replaced, cannot be brought up to date
    if ! slmrec_new_enough "$venv/bin/python" || ! "$venv/bin/python" -m pip --version > /dev/null 2>&1; then
        [ ! -e "$venv" ] || echo "The environment .venv has no pip or another Python than it was made for" >&2
        echo "Making the environment .venv" >&2
        "$("$PYTHON" -c 'import sys; print(sys._base_executable)')" -m venv --clear "$venv" >&2  # it may be the one in .venv
    fi
    PATH="$venv/bin:$PATH"
    hash -r
    missing="$(slmrec_missing_pins python "$@")"
    if [ -n "$missing" ]; then
        echo "Installing the pinned requirements into .venv" >&2
        # shellcheck disable=SC2086  # words on purpose
        python -m pip install --quiet --disable-pip-version-check $missing
    fi
}

ask_front_door() {  # ask_front_door SCRIPT "$@": checks the flags and sets what they say; -h and wrong flags end the script here
    local answer
    answer="$("$PYTHON" -m slmrec.pipeline.front_door "$@")" || exit $?
    eval "$answer"
}

slmrec_find_python
