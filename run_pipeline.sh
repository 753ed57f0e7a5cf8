#!/usr/bin/env bash
# The whole method, stage by stage: raw reviews to a distilled recommender and its metrics.
#
#   bash run_pipeline.sh                                            the embedded demo: synthetic reviews, a small random LLaMA, CPU
#   bash run_pipeline.sh NAME --reviews FILE [--meta FILE] [flags]  your own reviews
#   bash run_pipeline.sh cloth|movie|music|sport [flags]            the paper's data (downloaded), LLaMA-2-7B and hyper-parameters
#
#   --base_model NAME_OR_PATH             a pretrained LLaMA instead of a small random one
#   --sasrec.dropout 0.2                  a flag for one stage: demo, data, text, sasrec, embeddings, backbone, teacher, baseline,
#                                         student, evaluate; llm stands for teacher, baseline and student
#   LEARNING_RATE=0.001 bash run_pipeline.sh ...   another value for a variable of hyperparameters.sh; flags win over it
#
# Started again, it goes on where it was stopped, and with other flags it redoes what they change and what depends on that; the rest
# is up to date.
set -euo pipefail
source "$(dirname "$0")/scripts/setup_env.sh"
ask_front_door run_pipeline.sh "$@"  # sets DATASET, RUN_DIR, REVIEWS, and each stage's flags
source "$SLMREC/hyperparameters.sh"
source "$SLMREC/datasets/names.sh"

PLAN=() META=() TEXT=() IS_DEMO=
stage() {  # stage NAME COMMAND...: puts a command into the plan, which is checked as a whole before it runs
    PLAN+=("$#" "$@")
}

# Raw reviews: the user's, the demo's, or the paper's
if [ -z "$REVIEWS" ] && [ "$DATASET" = demo ]; then
    stage "reviews" python -m slmrec.data.demo --output_dir "$RUN_DIR/raw" ${DEMO_FLAGS[@]+"${DEMO_FLAGS[@]}"}
    REVIEWS="$RUN_DIR/raw/reviews.json.gz" META=(--meta "$RUN_DIR/raw/meta.json.gz") IS_DEMO=1
elif [ -z "$REVIEWS" ] && NAME="$(amazon_name "$DATASET")"; then
    stage "download" bash "$SLMREC/datasets/download.sh" "$DATASET"
    REVIEWS="$SLMREC/datasets/raw/${NAME}_5.json.gz" META=(--meta "$SLMREC/datasets/raw/meta_$NAME.json.gz")
elif [ -z "$REVIEWS" ] && [ ! -f "$RUN_DIR/data/manifest.json" ]; then
    echo "error: $DATASET is no data set of the paper: give its reviews with --reviews FILE" >&2
    exit 2
fi

# Filtered, ordered by time, items numbered; without reviews the data that are there stay as they are
[ -z "$REVIEWS" ] || stage "data" python -m slmrec.data --input "$REVIEWS" ${META[@]+"${META[@]}"} \
    --output_dir "$RUN_DIR/data" ${DATA_FLAGS[@]+"${DATA_FLAGS[@]}"}

# Titles as vectors, where SASRec is to know them; the demo shows what they add in a row of its own
MODELS=(sasrec) MIN_SHARE=()
[ "$TEXT_USE" != auto ] || MIN_SHARE=(--min_share 0.5)
[ "$TEXT_USE" != off ] || [ -z "$IS_DEMO" ] || MODELS+=(sasrec_text)
if [ "$TEXT_USE" != off ] || [ "${#MODELS[@]}" = 2 ]; then
    stage "titles" python "$SLMREC/embed_titles.py" --data "$RUN_DIR/data" --output_dir "$RUN_DIR/text" \
        ${MIN_SHARE[@]+"${MIN_SHARE[@]}"} ${TEXT_FLAGS[@]+"${TEXT_FLAGS[@]}"}
fi
[ "$TEXT_USE" = off ] || TEXT=(--text "$RUN_DIR/text" --text_use "$TEXT_USE")

# SASRec, and its item embeddings
stage "sasrec" python "$SLMREC/train_sr_trad.py" --model sasrec --data "$RUN_DIR/data" --output_dir "$RUN_DIR/sasrec" \
    "${SASREC_SETTINGS[@]}" ${TEXT[@]+"${TEXT[@]}"} ${SASREC_FLAGS[@]+"${SASREC_FLAGS[@]}"}
[ "${#MODELS[@]}" = 1 ] || stage "sasrec from titles" python "$SLMREC/train_sr_trad.py" --model sasrec --data "$RUN_DIR/data" \
    --text "$RUN_DIR/text" --output_dir "$RUN_DIR/sasrec_text" "${SASREC_SETTINGS[@]}" ${SASREC_FLAGS[@]+"${SASREC_FLAGS[@]}"} \
    --text_use start
stage "embeddings" python "$SLMREC/extract_emb.py" --encoder "$RUN_DIR/sasrec" --output_dir "$RUN_DIR/embeddings" \
    ${EMBEDDINGS_FLAGS[@]+"${EMBEDDINGS_FLAGS[@]}"}

# The backbone: given, or a small random one
if [ -z "$BASE_MODEL" ]; then
    BASE_MODEL="$RUN_DIR/backbone"
    stage "backbone" python -m slmrec.llm.make_backbone --output_dir "$BASE_MODEL" ${BACKBONE_FLAGS[@]+"${BACKBONE_FLAGS[@]}"}
fi

# The teacher, its student, and for comparison the student's layers without distillation
TEACHER="e4srec_$NUM_LAYERS_TEACHER" BASELINE="e4srec_$NUM_LAYERS_STUDENT" STUDENT="slmrec_${NUM_LAYERS_STUDENT}_$NUM_LAYERS_TEACHER"
LLM=(--data "$RUN_DIR/data" --embeddings "$RUN_DIR/embeddings" --base_model "$BASE_MODEL" "${STAGE_FLAGS[@]}")
stage "teacher $TEACHER" python "$SLMREC/finetune.py" --output_dir "$RUN_DIR/$TEACHER" --num_layers "$NUM_LAYERS_TEACHER" \
    "${LLM[@]}" ${TEACHER_FLAGS[@]+"${TEACHER_FLAGS[@]}"}
stage "baseline $BASELINE" python "$SLMREC/finetune.py" --output_dir "$RUN_DIR/$BASELINE" --num_layers "$NUM_LAYERS_STUDENT" \
    "${LLM[@]}" ${BASELINE_FLAGS[@]+"${BASELINE_FLAGS[@]}"}
stage "student $STUDENT" python "$SLMREC/distill.py" --teacher "$RUN_DIR/$TEACHER" --output_dir "$RUN_DIR/$STUDENT" \
    --num_layers "$NUM_LAYERS_STUDENT" "${LLM[@]}" "${DISTILLATION_FLAGS[@]}" ${STUDENT_FLAGS[@]+"${STUDENT_FLAGS[@]}"}

# Evaluation: rank 1 positive among 999 sampled items, and among all items
MODELS+=("$TEACHER" "$BASELINE" "$STUDENT")
for MODEL in "${MODELS[@]}"; do
    stage "evaluate $MODEL" python "$SLMREC/evaluate.py" --model "$RUN_DIR/$MODEL" --output_dir "$RUN_DIR/$MODEL/evaluation-test" \
        --split test --full_ranking ${EVALUATE_FLAGS[@]+"${EVALUATE_FLAGS[@]}"}
done
stage "table" python -m reproduce.comparison --run_dir "$RUN_DIR" --models "${MODELS[@]}"

"$PYTHON" -m slmrec.pipeline.steps "${PLAN[@]}"
make_environment
python -m slmrec.pipeline.run "$RUN_DIR" "$DRY_RUN" "${PLAN[@]}"
