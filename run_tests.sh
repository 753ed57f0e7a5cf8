#!/usr/bin/env bash
# Makes the environment, then runs the tests. Arguments go to pytest: bash run_tests.sh tests/distillation -k cosine
# Tests on the real review files look for them under $SLMREC_SHARED/data and skip, saying so, without it.
set -euo pipefail
cd "$(dirname "$0")"
source setup_env.sh requirements.txt requirements-test.txt
exec python -m pytest "$@"
