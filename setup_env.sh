# Sourced by the run_*.sh scripts as `source setup_env.sh requirements.txt ...`. Afterwards `python` satisfies every pin in those
# files: an active environment that already does is used as it is, otherwise .venv beside this file is made or brought up to date.
# SLMREC is this directory; paths that a user gives stay relative to where the user stands.

SLMREC="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
export PYTHONPATH="$SLMREC${PYTHONPATH:+:$PYTHONPATH}"

slmrec_pins_hold() {  # slmrec_pins_hold PYTHON FILE...
    "$1" - "${@:2}" 2>/dev/null <<'PYTHON'
import importlib.metadata as metadata
import sys

pins = [line.split("#")[0].strip() for name in sys.argv[1:] for line in open(name, encoding="utf-8")]
for package, version in (pin.split("==") for pin in pins if pin):
    # "2.13.0+cpu" is a build of the pinned release 2.13.0
    assert metadata.version(package).split("+")[0] == version, package
PYTHON
}

slmrec_setup() {  # slmrec_setup FILE...
    local files=("${@/#/$SLMREC/}")
    if command -v python > /dev/null && slmrec_pins_hold python "${files[@]}"; then
        return
    fi
    if [ ! -x "$SLMREC/.venv/bin/python" ]; then
        echo "Making the environment .venv" >&2
        python3 -m venv "$SLMREC/.venv"
    fi
    PATH="$SLMREC/.venv/bin:$PATH"
    if ! slmrec_pins_hold python "${files[@]}"; then
        echo "Installing the pinned requirements into .venv" >&2
        python -m pip install --quiet --disable-pip-version-check "${files[@]/#/--requirement=}"
    fi
}

slmrec_setup "$@"
