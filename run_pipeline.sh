#!/usr/bin/env bash
# The whole method, stage by stage: raw reviews to a distilled recommender and its metrics.
#
#   bash run_pipeline.sh                                           the embedded demo: synthetic reviews, a small random LLaMA, CPU
#   bash run_pipeline.sh NAME --reviews FILE [--meta FILE] [...]   your own reviews
#   bash run_pipeline.sh cloth|movie|music|sport                   the paper's data (downloaded), LLaMA-2-7B and hyper-parameters
#
#   --base_model PATH_OR_HUB_NAME   a pretrained LLaMA instead of a small random one
#   --protocol paper|released       the paper's rules and equations, or the released code's (data and distillation)
#   --format, --duplicates, --min_rating, --k_core, --max_malformed, --*_table, --*_column   go to the data stage (python -m slmrec.data)
#   --lambda_cos, --lambda_norm, --lambda_ms, --num_blocks, --no_distill_last_block, --teacher_cache   go to distill.py
#   --overwrite_output_dir          replace stages that hold another configuration's run
#   --run_dir DIR                   where everything goes; default runs/NAME
#   any other flag and its value    goes to finetune.py and distill.py, e.g. --targets last --max_steps 500
#   ENCODER_FLAGS="..."             goes to train_sr_trad.py
#
# Started again, it goes on where it was stopped; what is finished says "up to date".
set -euo pipefail
source "$(dirname "$0")/setup_env.sh" requirements.txt

DATASET=demo RUN_DIR= REVIEWS= META= FORMAT=amazon PROTOCOL=paper BASE_MODEL="${BASE_MODEL:-}"
DATA_FLAGS=() LLM_FLAGS=() DISTILL_FLAGS=() OVERWRITE=()
value_of() {  # value_of FLAG [VALUE]: the value, or an error
    [ $# -ge 2 ] || { echo "error: $1 needs a value" >&2; exit 2; }
    VALUE="$2"
}
if [ $# -gt 0 ] && [[ "$1" != -* ]]; then
    DATASET="$1"
    shift
fi
while [ $# -gt 0 ]; do
    case "$1" in
        -h | --help) sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0"; exit 0 ;;
        --overwrite_output_dir) OVERWRITE=(--overwrite_output_dir); shift; continue ;;
        --no_distill_last_block) DISTILL_FLAGS+=("$1"); shift; continue ;;
    esac
    value_of "$@"
    case "$1" in
        --reviews) REVIEWS="$VALUE" ;;
        --meta) META="$VALUE" ;;
        --base_model) BASE_MODEL="$VALUE" ;;
        --run_dir) RUN_DIR="$VALUE" ;;
        --format) FORMAT="$VALUE" ;;
        --protocol) PROTOCOL="$VALUE" ;;
        --duplicates | --min_rating | --k_core | --max_malformed | --*_table | --*_column) DATA_FLAGS+=("$1" "$VALUE") ;;
        --lambda_* | --num_blocks | --teacher_cache) DISTILL_FLAGS+=("$1" "$VALUE") ;;
        *) LLM_FLAGS+=("$1" "$VALUE") ;;
    esac
    shift 2
done
RUN_DIR="${RUN_DIR:-runs/$DATASET}"
export DATASET
source "$SLMREC/hyperparameters.sh"
source "$SLMREC/datasets/names.sh"

# The reviews: the user's, generated, or downloaded
if [ -z "$REVIEWS" ] && [ "$DATASET" = demo ]; then
    python -m slmrec.data.demo --output_dir "$RUN_DIR/raw" "${OVERWRITE[@]}"
    REVIEWS="$RUN_DIR/raw/reviews.json.gz" META="$RUN_DIR/raw/meta.json.gz"
elif [ -z "$REVIEWS" ] && AMAZON_NAME="$(amazon_name "$DATASET")"; then
    bash "$SLMREC/datasets/download.sh" "$DATASET"
    REVIEWS="$SLMREC/datasets/raw/${AMAZON_NAME}_5.json.gz" META="$SLMREC/datasets/raw/meta_$AMAZON_NAME.json.gz"
elif [ -z "$REVIEWS" ]; then
    echo "error: $DATASET is no data set of the paper: give its reviews with --reviews FILE" >&2
    exit 2
fi

# Process: filter, order by time, number the items
python -m slmrec.data --format "$FORMAT" --input "$REVIEWS" ${META:+--meta "$META"} --protocol "$PROTOCOL" \
    --output_dir "$RUN_DIR/data" "${DATA_FLAGS[@]}" "${OVERWRITE[@]}"

# SASRec, and its item embeddings
read -r -a ENCODER_FLAGS <<< "${ENCODER_FLAGS:-}"
python "$SLMREC/train_sr_trad.py" --model sasrec --data "$RUN_DIR/data" --output_dir "$RUN_DIR/sasrec" "${ENCODER_FLAGS[@]}" "${OVERWRITE[@]}"
python "$SLMREC/extract_emb.py" --encoder "$RUN_DIR/sasrec" --output_dir "$RUN_DIR/embeddings" "${OVERWRITE[@]}"

# The backbone: the user's, the paper's, or a small random one
BASE_MODEL="${BASE_MODEL:-$BASE_MODEL_DEFAULT}"
if [ -z "$BASE_MODEL" ]; then
    python -m slmrec.llm.make_backbone --output_dir "$RUN_DIR/backbone" "${OVERWRITE[@]}"
    BASE_MODEL="$RUN_DIR/backbone"
fi
export BASE_MODEL
LLM_FLAGS=(--data "$RUN_DIR/data" --embeddings "$RUN_DIR/embeddings" "${LLM_FLAGS[@]}" "${OVERWRITE[@]}")

# The teacher E4SRec_8, its student SLMRec_4<-8, and for comparison the same 4 layers without distillation
bash "$SLMREC/run_finetune.sh" "$RUN_DIR/e4srec_8" "${LLM_FLAGS[@]}" --num_layers "$NUM_LAYERS_TEACHER"
bash "$SLMREC/run_finetune.sh" "$RUN_DIR/e4srec_4" "${LLM_FLAGS[@]}" --num_layers "$NUM_LAYERS_STUDENT"
bash "$SLMREC/run_distill.sh" "$RUN_DIR/e4srec_8" "$RUN_DIR/slmrec_4_8" "${LLM_FLAGS[@]}" \
    --num_layers "$NUM_LAYERS_STUDENT" --protocol "$PROTOCOL" "${DISTILL_FLAGS[@]}"

# Evaluation: rank 1 positive among 999 sampled items, and among all items
for MODEL in sasrec e4srec_8 e4srec_4 slmrec_4_8; do
    python "$SLMREC/evaluate.py" --model "$RUN_DIR/$MODEL" --split test --full_ranking "${OVERWRITE[@]}"
done
python -m slmrec.paper.comparison --run_dir "$RUN_DIR"
