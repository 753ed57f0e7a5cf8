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
    --data "runs/$DATASET/data" \
    --embeddings "runs/$DATASET/embeddings" \
    --base_model "${BASE_MODEL:-${BASE_MODEL_DEFAULT:-runs/$DATASET/backbone}}" \
    --output_dir "$OUTPUT_DIR" \
    --num_layers "$NUM_LAYERS_TEACHER" \
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
