# Sourced by the run_*.sh scripts. It sets SLMREC (this directory) and PYTHON, a Python that can check flags before anything is
# installed; paths that a user gives stay relative to where the user stands.
#   source setup_env.sh requirements.txt ...   `python` satisfies every pin in those files: an active environment that already does
#                                              is used as it is, otherwise .venv beside this file is made or brought up to date
#   source setup_env.sh later                  the script calls make_environment itself, once it has checked its flags

SLMREC="$(cd "$(dirname "${BASH_SOURCE[0]}")" > /dev/null && pwd)"
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

slmrec_pins_hold() {  # slmrec_pins_hold PYTHON FILE...
    "$1" - "${@:2}" 2> /dev/null << 'PYTHON'
import importlib.metadata as metadata
import sys

pins = [line.split("#")[0].strip() for name in sys.argv[1:] for line in open(name, encoding="utf-8")]
for package, version in (pin.split("==") for pin in pins if pin):
    # "2.13.0+cpu" is a build of the pinned release 2.13.0
    assert metadata.version(package).split("+")[0] == version, package
PYTHON
}

make_environment() {  # make_environment FILE...
    local file venv="$SLMREC/.venv" files=()
    for file in "$@"; do files+=("$SLMREC/$file"); done
    if command -v python > /dev/null && slmrec_new_enough python && slmrec_pins_hold python "${files[@]}"; then
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
    if ! slmrec_pins_hold python "${files[@]}"; then
        echo "Installing the pinned requirements into .venv" >&2
        python -m pip install --quiet --disable-pip-version-check "${files[@]/#/--requirement=}"
    fi
}

ask_front_door() {  # ask_front_door SCRIPT "$@": checks the flags and sets what they say; -h and wrong flags end the script here
    local answer
    answer="$("$PYTHON" -m slmrec.pipeline.front_door "$@")" || exit $?
    eval "$answer"
}

slmrec_find_python
[ "$1" = later ] || make_environment "$@"
