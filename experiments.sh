# Sourced by run_tables.sh: which runs make each experiment. DIR and SEED are those of the seed that runs now.

NO_FEATURES=(--lambda_cos 0 --lambda_norm 0 --lambda_ms 0)
TITLE_FLAGS=(--start passing --user_length 11 --item_dropout 0.1 --learning_rate 0.001)  # our choice; docs/titles.md has what was tried

prepare_seed() {  # SASRec, its item embeddings and the backbone of this seed
    encoder sasrec
    python "$SLMREC/extract_emb.py" --encoder "$DIR/sasrec" --output_dir "$DIR/embeddings" "${OVERWRITE[@]}"
    BASE_MODEL="$GIVEN_BASE_MODEL"
    if [ -z "$BASE_MODEL" ]; then
        make_backbone "$DIR/backbone" --seed "$SEED"
        BASE_MODEL="$DIR/backbone"
    fi
    export BASE_MODEL
    LLM=(--data "$RUN_DIR/data" --embeddings "$DIR/embeddings" "${LLM_FLAGS[@]}" --seed "$SEED" "${OVERWRITE[@]}")
}

run_experiment() {
    case "$1" in
        encoders)
            encoder sasrec "${LLM_FLAGS[@]}" "${DISTILL_FLAGS[@]}"  # --contrast_temperature is sorted among the latter
            other_encoders "${LLM_FLAGS[@]}" "${DISTILL_FLAGS[@]}" ;;
        main | cold)  # paper, Section 5.2
            other_encoders
            e4srec "$(base_layers)"
            e4srec "$NUM_LAYERS_TEACHER"
            e4srec "$NUM_LAYERS_STUDENT"
            student ;;
        depth-train)  # paper, Section 2
            DEEPEST="$(base_layers)"
            for LAYERS in 1 2 4 8 16 24 32; do
                [ "$LAYERS" -gt "$DEEPEST" ] || e4srec "$LAYERS"
            done ;;
        depth-infer)  # paper, Section 2
            DEEPEST="$(base_layers)"
            e4srec "$DEEPEST"
            python -m reproduce.analysis.depth_infer --model "$DIR/e4srec_$DEEPEST" --split test "${OVERWRITE[@]}" ;;
        layers)
            e4srec "$NUM_LAYERS_TEACHER"
            python -m reproduce.analysis.layers --model "$DIR/e4srec_$NUM_LAYERS_TEACHER" "${OVERWRITE[@]}" ;;
        ablation)  # paper, Section 5.2 (RQ3)
            e4srec "$NUM_LAYERS_TEACHER"
            e4srec "$NUM_LAYERS_STUDENT"  # without any of the terms
            slmrec slmrec_cos "e4srec_$NUM_LAYERS_TEACHER" --lambda_norm 0 --lambda_ms 0
            slmrec slmrec_cos_norm "e4srec_$NUM_LAYERS_TEACHER" --lambda_ms 0
            slmrec slmrec_cos_ms "e4srec_$NUM_LAYERS_TEACHER" --lambda_norm 0
            student ;;
        blocks)  # paper, Section 5.3; one block has no intermediate one to supervise (Eq. 5), 8 blocks need 8 layers
            e4srec "$NUM_LAYERS_TEACHER"
            slmrec slmrec_b1 "e4srec_$NUM_LAYERS_TEACHER" --num_blocks 1 --lambda_ms 0
            slmrec slmrec_b2 "e4srec_$NUM_LAYERS_TEACHER" --num_blocks 2
            student
            slmrec slmrec_b8 "e4srec_$NUM_LAYERS_TEACHER" --num_blocks 8 --num_layers 8 ;;
        online)  # paper, Section 5.3 (RQ4); the released code's online mode adds the divergence of the logits
            e4srec "$NUM_LAYERS_TEACHER"
            e4srec "$NUM_LAYERS_STUDENT"
            student
            slmrec slmrec_online online --teacher_layers "$NUM_LAYERS_TEACHER"
            evaluate slmrec_online/teacher
            slmrec slmrec_online_logits online --teacher_layers "$NUM_LAYERS_TEACHER" --lambda_logits "$LAMBDA_LOGITS" ;;
        kd-kinds)
            e4srec "$NUM_LAYERS_TEACHER"
            e4srec "$NUM_LAYERS_STUDENT"
            slmrec slmrec_logits "e4srec_$NUM_LAYERS_TEACHER" "${NO_FEATURES[@]}" --lambda_logits "$LAMBDA_LOGITS"
            slmrec slmrec_attention "e4srec_$NUM_LAYERS_TEACHER" "${NO_FEATURES[@]}" --lambda_attention "$LAMBDA_ATTENTION"
            slmrec slmrec_contrastive "e4srec_$NUM_LAYERS_TEACHER" "${NO_FEATURES[@]}" --lambda_contrastive "$LAMBDA_CONTRASTIVE"
            slmrec slmrec_cos_norm "e4srec_$NUM_LAYERS_TEACHER" --lambda_ms 0
            student ;;
        student-size)
            for LAYERS in 1 2 4 8; do e4srec "$LAYERS"; done
            slmrec slmrec_1_8 "e4srec_$NUM_LAYERS_TEACHER" --num_layers 1 --num_blocks 1 --lambda_ms 0
            slmrec slmrec_2_8 "e4srec_$NUM_LAYERS_TEACHER" --num_layers 2 --num_blocks 2
            student ;;
        teacher-size)
            DEEPEST="$(base_layers)"
            for LAYERS in 4 8 16 32; do
                [ "$LAYERS" -le "$DEEPEST" ] || continue
                e4srec "$LAYERS"
                slmrec "slmrec_${NUM_LAYERS_STUDENT}_$LAYERS" "e4srec_$LAYERS"
            done
            [ -n "$GIVEN_BASE_MODEL" ] || other_widths ;;
        text)  # beyond the paper
            embed_titles text
            encoder nearest --text "$RUN_DIR/text" --text_exponent 1
            titled_sasrec text text
            titled_sasrec shuffled text --text_control shuffled
            titled_sasrec gaussian text --text_control gaussian
            if [ "$DATASET" != demo ]; then  # fetches a text encoder
                embed_titles text_minilm --encoder minilm
                titled_sasrec minilm text_minilm
            fi
            python "$SLMREC/extract_emb.py" --encoder "$DIR/sasrec_text" --output_dir "$DIR/embeddings_text" "${OVERWRITE[@]}"
            LLM+=(--embeddings "$DIR/embeddings_text" --guide "$DIR/sasrec_text" "${TITLE_FLAGS[@]}")
            e4srec "$NUM_LAYERS_TEACHER" _text
            slmrec slmrec_4_8_text "e4srec_${NUM_LAYERS_TEACHER}_text" ;;
        efficiency)
            [ "$SEED" = 0 ] || return 0  # measured once
            [ -f "$DIR/efficiency.json" ] ||
                python -m reproduce.efficiency --data "$RUN_DIR/data" --json "$DIR/efficiency.json" "${BENCHMARK_FLAGS[@]}" ;;
        stats)  # the data stage has counted
            ;;
    esac
}

other_encoders() {  # other_encoders [FLAGS]: every conventional model but SASRec, and the references, which only count
    local model
    for model in $(python -c "from slmrec.encoders.registry import TRAINED; print(*TRAINED)"); do
        [ "$model" = sasrec ] || encoder "$model" "$@"
    done
    for model in popularity markov; do encoder "$model"; done
}

embed_titles() {  # embed_titles NAME [FLAGS]: once for all seeds
    python "$SLMREC/embed_titles.py" --data "$RUN_DIR/data" --output_dir "$RUN_DIR/$1" "${@:2}" "${OVERWRITE[@]}"
}

titled_sasrec() {  # titled_sasrec SUFFIX TEXT [FLAGS]: SASRec whose item table starts from text vectors
    train_encoder sasrec "$DIR/sasrec_$1" --text "$RUN_DIR/$2" "${@:3}" --seed "$SEED"
    evaluate "sasrec_$1"
}

other_widths() {  # teachers of half and of double width; the student compares its states after a learned map
    for WIDTH in $TEACHER_WIDTHS; do
        make_backbone "$DIR/backbone_w$WIDTH" --seed "$SEED" --hidden_size "$WIDTH"
        (export BASE_MODEL="$DIR/backbone_w$WIDTH"; e4srec "$NUM_LAYERS_TEACHER" "_w$WIDTH")
        slmrec "slmrec_w$WIDTH" "e4srec_${NUM_LAYERS_TEACHER}_w$WIDTH" --project_states
    done
}
