#!/usr/bin/env bash
# Generative stage: Open-P5, a causal LLaMA tuned to write the next item's id.
#
#   bash run_openp5.sh OUTPUT_DIR [flags of train_openp5.py]
#   DATASET=music bash run_openp5.sh runs/music/openp5
#   DATASET=mine bash run_openp5.sh runs/mine/openp5 --base_model smollm2-135m --indexing collaborative
#
# DATASET (default: cloth) and the kind of --base_model pick the hyper-parameters of hyperparameters.sh (OPENP5_...), and DATASET where
# the inputs lie unless --data and --base_model say otherwise.
set -euo pipefail
source "$(dirname "$0")/scripts/setup_env.sh"
ask_front_door run_openp5.sh "$@"  # sets OUTPUT_DIR, and BASE_MODEL where it is given
DATASET="${DATASET:-cloth}"
source "$SLMREC/hyperparameters.sh"
make_environment

python "$SLMREC/train_openp5.py" --output_dir "$OUTPUT_DIR" \
    --data "runs/$DATASET/data" --base_model "${BASE_MODEL:-runs/$DATASET/backbone}" "${OPENP5_FLAGS[@]}" "${@:2}"
