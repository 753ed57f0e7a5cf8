#!/usr/bin/env bash
# The whole campaign against lost and mixed results: kills, pairs of processes, full disks, damage. Flags go through (--help).
set -euo pipefail
cd "$(dirname "$0")/../.."
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
exec python -m tests.campaign --write "$@"
