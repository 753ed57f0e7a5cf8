#!/usr/bin/env bash
# Teacher stage: an E-LLMRec tuned to predict the next item.
#
#   bash run_finetune.sh OUTPUT_DIR [flags of finetune.py]
#   DATASET=cloth bash run_finetune.sh runs/cloth/teacher
#   DATASET=cloth LEARNING_RATE=0.001 bash run_finetune.sh runs/cloth/e4srec_4 --num_layers 4
#
# DATASET (default: cloth) and the kind of --base_model pick the hyper-parameters of hyperparameters.sh, and DATASET where the inputs
# lie unless --data, --embeddings and --base_model say otherwise.
set -euo pipefail
source "$(dirname "$0")/scripts/setup_env.sh"
ask_front_door run_finetune.sh "$@"  # sets OUTPUT_DIR, and BASE_MODEL where it is given
DATASET="${DATASET:-cloth}"
source "$SLMREC/hyperparameters.sh"
make_environment

python "$SLMREC/finetune.py" --output_dir "$OUTPUT_DIR" --num_layers "$NUM_LAYERS_TEACHER" \
    --data "runs/$DATASET/data" --embeddings "runs/$DATASET/embeddings" --base_model "${BASE_MODEL:-runs/$DATASET/backbone}" \
    "${STAGE_FLAGS[@]}" "${@:2}"
