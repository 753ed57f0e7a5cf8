#!/usr/bin/env bash
# Student stage: a shallow E-LLMRec distilled from a trained teacher, block by block.
#
#   bash run_distill.sh TEACHER_CHECKPOINT OUTPUT_DIR [any flag of distill.py]
#   bash run_distill.sh online OUTPUT_DIR [any flag of distill.py]      an untrained teacher learns beside the student
#   DATASET=cloth bash run_distill.sh runs/cloth/teacher runs/cloth/student
#   DATASET=cloth bash run_distill.sh runs/cloth/teacher/checkpoint-1500 runs/cloth/student --lambda_ms 0.5
#
# DATASET (default: cloth) picks the hyper-parameters of hyperparameters.sh and where the inputs lie unless --data, --embeddings
# and --base_model say otherwise.
set -euo pipefail
if [ $# -lt 2 ] || [[ "$1" == -* ]] || [[ "$2" == -* ]]; then
    echo "usage: [DATASET=NAME] bash run_distill.sh TEACHER_CHECKPOINT|online OUTPUT_DIR [any flag of distill.py]" >&2
    exit 2
fi
TEACHER=(--teacher "$1")
[ "$1" != online ] || TEACHER=(--online)
OUTPUT_DIR="$2"
shift 2
DATASET="${DATASET:-cloth}"
source "$(dirname "$0")/setup_env.sh" requirements.txt
source "$SLMREC/hyperparameters.sh"

python "$SLMREC/distill.py" \
    "${TEACHER[@]}" \
    --num_blocks "$NUM_BLOCKS" \
    --lambda_cos "$LAMBDA_COS" \
    --lambda_norm "$LAMBDA_NORM" \
    --lambda_ms "$LAMBDA_MS" \
    --output_dir "$OUTPUT_DIR" --num_layers "$NUM_LAYERS_STUDENT" \
    "${STAGE_FLAGS[@]}" "$@"
