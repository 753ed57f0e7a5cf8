# Sourced by run_pipeline.sh and run_tables.sh: the flags they share, and the stages that come before any LLM.
# Afterwards DATASET, RUN_DIR and the values of hyperparameters.sh are set.

RUN_DIR= REVIEWS= META= FORMAT=amazon PROTOCOL=paper BASE_MODEL="${BASE_MODEL:-}"
DATA_FLAGS=() LLM_FLAGS=() DISTILL_FLAGS=() OVERWRITE=()

value_of() {  # value_of FLAG [VALUE]: the value, or an error
    [ $# -ge 2 ] || { echo "error: $1 needs a value" >&2; exit 2; }
    VALUE="$2"
}

read_options() {  # read_options DATASET [FLAGS]: every flag goes to the stages that know it
    DATASET="$1"
    shift
    while [ $# -gt 0 ]; do
        case "$1" in
            --overwrite_output_dir) OVERWRITE=(--overwrite_output_dir); shift; continue ;;
            --no_distill_last_block | --project_states) DISTILL_FLAGS+=("$1"); shift; continue ;;
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
            --lambda_* | --num_blocks | --teacher_cache | --*temperature) DISTILL_FLAGS+=("$1" "$VALUE") ;;
            *) LLM_FLAGS+=("$1" "$VALUE") ;;
        esac
        shift 2
    done
    RUN_DIR="${RUN_DIR:-runs/$DATASET}"
    export DATASET
    source "$SLMREC/hyperparameters.sh"
    source "$SLMREC/datasets/names.sh"
}

process_reviews() {  # the reviews (the user's, generated, or downloaded), filtered, ordered by time, items numbered
    local name
    if [ -z "$REVIEWS" ] && [ "$DATASET" = demo ]; then
        python -m slmrec.data.demo --output_dir "$RUN_DIR/raw" "${OVERWRITE[@]}"
        REVIEWS="$RUN_DIR/raw/reviews.json.gz" META="$RUN_DIR/raw/meta.json.gz"
    elif [ -z "$REVIEWS" ] && name="$(amazon_name "$DATASET")"; then
        bash "$SLMREC/datasets/download.sh" "$DATASET"
        REVIEWS="$SLMREC/datasets/raw/${name}_5.json.gz" META="$SLMREC/datasets/raw/meta_$name.json.gz"
    elif [ -z "$REVIEWS" ]; then
        echo "error: $DATASET is no data set of the paper: give its reviews with --reviews FILE" >&2
        exit 2
    fi
    python -m slmrec.data --format "$FORMAT" --input "$REVIEWS" ${META:+--meta "$META"} --protocol "$PROTOCOL" \
        --output_dir "$RUN_DIR/data" "${DATA_FLAGS[@]}" "${OVERWRITE[@]}"
}

train_encoder() {  # train_encoder MODEL OUTPUT_DIR [FLAGS]; ENCODER_FLAGS are for SASRec, whose embeddings the LLM reads
    local flags=()
    [ "$1" != sasrec ] || read -r -a flags <<< "--num_epochs $SASREC_NUM_EPOCHS ${ENCODER_FLAGS:-}"
    python "$SLMREC/train_sr_trad.py" --model "$1" --data "$RUN_DIR/data" --output_dir "$2" "${flags[@]}" "${@:3}" "${OVERWRITE[@]}"
}

make_backbone() {  # make_backbone OUTPUT_DIR [FLAGS]: a small random LLaMA
    local flags
    read -r -a flags <<< "${BACKBONE_FLAGS:-}"
    python -m slmrec.llm.make_backbone --output_dir "$1" "${flags[@]}" "${@:2}" "${OVERWRITE[@]}"
}
