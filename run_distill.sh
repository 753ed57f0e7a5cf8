#!/usr/bin/env bash
# Student stage: a shallow E-LLMRec distilled from a trained teacher, block by block.
#
#   bash run_distill.sh TEACHER_CHECKPOINT OUTPUT_DIR [any flag of distill.py]
#   DATASET=cloth bash run_distill.sh runs/cloth/teacher runs/cloth/student
#   DATASET=cloth bash run_distill.sh runs/cloth/teacher/checkpoint-1500 runs/cloth/student --lambda_ms 0.5
#
# DATASET (default: cloth) picks the hyper-parameters of hyperparameters.sh and where the inputs lie unless --data, --embeddings
# and --base_model say otherwise.
set -euo pipefail
if [ $# -lt 2 ] || [[ "$1" == -* ]] || [[ "$2" == -* ]]; then
    echo "usage: [DATASET=NAME] bash run_distill.sh TEACHER_CHECKPOINT OUTPUT_DIR [any flag of distill.py]" >&2
    exit 2
fi
TEACHER="$1"
OUTPUT_DIR="$2"
shift 2
DATASET="${DATASET:-cloth}"
source "$(dirname "$0")/setup_env.sh" requirements.txt
source "$SLMREC/hyperparameters.sh"

python "$SLMREC/distill.py" \
    --teacher "$TEACHER" \
    --num_blocks "$NUM_BLOCKS" \
    --lambda_cos "$LAMBDA_COS" \
    --lambda_norm "$LAMBDA_NORM" \
    --lambda_ms "$LAMBDA_MS" \
    --data "runs/$DATASET/data" \
    --embeddings "runs/$DATASET/embeddings" \
    --base_model "${BASE_MODEL:-${BASE_MODEL_DEFAULT:-runs/$DATASET/backbone}}" \
    --output_dir "$OUTPUT_DIR" \
    --num_layers "$NUM_LAYERS_STUDENT" \
    --targets "$TARGETS" \
    --max_length "$MAX_LENGTH" \
    --learning_rate "$LEARNING_RATE" \
    --lr_scheduler_type "$LR_SCHEDULER_TYPE" \
    --warmup_steps "$WARMUP_STEPS" \
    --max_steps "$MAX_STEPS" \
    --num_train_epochs "$NUM_TRAIN_EPOCHS" \
    --save_steps "$SAVE_STEPS" \
    --logging_steps "$LOGGING_STEPS" \
    --per_device_train_batch_size "$PER_DEVICE_TRAIN_BATCH_SIZE" \
    --per_device_eval_batch_size "$PER_DEVICE_EVAL_BATCH_SIZE" \
    --adam_beta1 "$ADAM_BETA1" \
    --adam_beta2 "$ADAM_BETA2" \
    --adam_epsilon "$ADAM_EPSILON" \
    --max_grad_norm "$MAX_GRAD_NORM" \
    "$@"
