#!/usr/bin/env bash
# Teacher stage: an E-LLMRec tuned to predict the next item.
#
#   bash run_finetune.sh OUTPUT_DIR [any flag of finetune.py]
#   DATASET=cloth bash run_finetune.sh runs/cloth/teacher
#   DATASET=cloth bash run_finetune.sh runs/cloth/e4srec_4 --num_layers 4
#
# DATASET (default: cloth) picks the hyper-parameters of hyperparameters.sh and where the inputs lie unless --data, --embeddings
# and --base_model say otherwise.
set -euo pipefail
if [ $# -eq 0 ] || [[ "$1" == -* ]]; then
    echo "usage: [DATASET=NAME] bash run_finetune.sh OUTPUT_DIR [any flag of finetune.py]" >&2
    exit 2
fi
OUTPUT_DIR="$1"
shift
DATASET="${DATASET:-cloth}"
source "$(dirname "$0")/setup_env.sh" requirements.txt
source "$SLMREC/hyperparameters.sh"

python "$SLMREC/finetune.py" \
    --output_dir "$OUTPUT_DIR" --num_layers "$NUM_LAYERS_TEACHER" \
    "${STAGE_FLAGS[@]}" "$@"
