#!/usr/bin/env bash
# The paper's experiments: run what is missing, then render all tables and figures, and one report.
#
#   bash run_tables.sh -h                                   every experiment, and the flags
#   bash run_tables.sh main demo --seeds 2
#   bash run_tables.sh depth-train mine --reviews reviews.json.gz --base_model smollm2-135m --dry_run
#   bash run_tables.sh --render [RUNS_DIR]
#
# All experiments stand in reproduce/experiments.py.
set -euo pipefail
source "$(dirname "$0")/scripts/setup_env.sh"
case " ${*:--h} " in *" -h "* | *" --help "*) exec "$PYTHON" -m reproduce -h ;; esac  # before any environment is made
make_environment
exec python -m reproduce "$@"
