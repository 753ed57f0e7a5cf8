#!/usr/bin/env bash
# Student stage: a shallow E-LLMRec distilled from a trained teacher, block by block.
#
#   bash run_distill.sh TEACHER_CHECKPOINT OUTPUT_DIR [flags of distill.py]
#   bash run_distill.sh online OUTPUT_DIR [flags of distill.py]      an untrained teacher learns beside the student
#   DATASET=cloth bash run_distill.sh runs/cloth/teacher runs/cloth/student
#   DATASET=cloth LAMBDA_MS=0.5 bash run_distill.sh runs/cloth/teacher/checkpoint-1500 runs/cloth/student
#
# DATASET (default: cloth) and the kind of --base_model pick the hyper-parameters of hyperparameters.sh, and DATASET where the inputs
# lie unless --data, --embeddings and --base_model say otherwise.
set -euo pipefail
source "$(dirname "$0")/scripts/setup_env.sh"
ask_front_door run_distill.sh "$@"  # sets TEACHER and OUTPUT_DIR, and BASE_MODEL where it is given
DATASET="${DATASET:-cloth}"
source "$SLMREC/hyperparameters.sh"
make_environment

FROM=(--teacher "$TEACHER")
[ "$TEACHER" != online ] || FROM=(--online)
python "$SLMREC/distill.py" "${FROM[@]}" --output_dir "$OUTPUT_DIR" --num_layers "$NUM_LAYERS_STUDENT" \
    --data "runs/$DATASET/data" --embeddings "runs/$DATASET/embeddings" --base_model "${BASE_MODEL:-runs/$DATASET/backbone}" \
    "${STAGE_FLAGS[@]}" "${DISTILLATION_FLAGS[@]}" "${@:3}"
