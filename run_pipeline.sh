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
#   --lambda_*, --num_blocks, --no_distill_last_block, --teacher_cache, --*temperature       go to distill.py
#   --overwrite_output_dir          replace stages that hold another configuration's run
#   --run_dir DIR                   where everything goes; default runs/NAME
#   any other flag and its value    goes to finetune.py and distill.py, e.g. --targets last --max_steps 500
#   ENCODER_FLAGS="..." BACKBONE_FLAGS="..."   go to train_sr_trad.py (SASRec) and to python -m slmrec.llm.make_backbone
#
# Started again, it goes on where it was stopped; what is finished says "up to date".
set -euo pipefail
source "$(dirname "$0")/setup_env.sh" requirements.txt
source "$SLMREC/common_options.sh"
case "${1:-}" in
    -h | --help) sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    "" | -*) read_options demo "$@" ;;
    *) read_options "$@" ;;
esac

process_reviews

# SASRec, and its item embeddings
train_encoder sasrec "$RUN_DIR/sasrec"
python "$SLMREC/extract_emb.py" --encoder "$RUN_DIR/sasrec" --output_dir "$RUN_DIR/embeddings" "${OVERWRITE[@]}"

# The backbone: the user's, the paper's, or a small random one
if [ -z "$BASE_MODEL" ]; then
    make_backbone "$RUN_DIR/backbone"
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
python -m reproduce.comparison --run_dir "$RUN_DIR"
