#!/usr/bin/env bash
# Makes the environment, then checks the code and runs the tests. Arguments go to pytest, which then runs alone:
#     bash run_tests.sh tests/distillation -k cosine
# Tests on the real review files look for them under $SLMREC_SHARED/data and skip, saying so, without it.
set -euo pipefail
case "${1:-}" in
    -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit ;;
esac
cd "$(dirname "$0")"
source scripts/setup_env.sh
make_environment test serve export
if [ $# -eq 0 ]; then
    python -m ruff check --quiet .
    python -m ruff format --check --quiet .
    python -m mypy --no-error-summary
    export OMP_NUM_THREADS=1
    set -- --numprocesses=2 --dist=loadfile --no-loadscope-reorder  # a file at a time to each core, in tests/conftest.py's order
fi
exec python -m pytest "$@"
