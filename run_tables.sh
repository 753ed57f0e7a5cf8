#!/usr/bin/env bash
# The paper's experiments: run what is missing, then render all tables and figures, and one report.
#
#   bash run_tables.sh EXPERIMENT DATASET [--seeds N] [any flag of run_pipeline.sh]
#   bash run_tables.sh --render [RUNS_DIR]      render what there is below RUNS_DIR (default: runs)
#
#   main             Tables 2, 3    every conventional model, E4SRec with all layers, 8 and 4, SLMRec_4<-8
#   encoders         Tables 2, 3    the conventional models alone (FLAGS go to train_sr_trad.py)
#   depth-infer      Fig. 2, 5 a-c  the deepest E4SRec read at its last ten layers, without training
#   depth-train      Fig. 2, 5 d-f  E4SRec with 1, 2, 4, 8, 16, 24, 32 layers, as many as the backbone has
#   ablation         Tables 4, 9    cos; cos + norm; cos + ms; all three
#   blocks           Fig. 4         B = 1, 2, 4, and with 8 layers 8
#   online           RQ4            teacher and student trained together
#   student-size     -              students of 1, 2 and 4 layers, each beside the same depth without a teacher
#   teacher-size     -              one student, teachers of other depths and widths
#   kd-kinds         -              logits, attention and contrastive distillation instead of feature alignment
#   cold             -              the models of main by history length and target popularity
#   text             -              SASRec from titles and controls, E4SRec and SLMRec on the table that knows titles
#   layers           -              block influence and CKA of the teacher's layers
#   efficiency       Tables 5, 7, 8 the benchmark (FLAGS go to python -m reproduce.efficiency)
#   stats            Table 1        counts of the data set
#   theory           Prop. 1, 2     numeric check (needs no DATASET)
#   hyper-parameters Table 6        the scripts' values beside the paper's (needs no DATASET)
#
# DATASET is demo, cloth, movie, music, sport, or any name with --reviews FILE (not needed once RUNS/DATASET/data is there).
# TEACHER_STATES=1 keeps a teacher's states on disk for all its students (same results; disk instead of time).
# Seed 0 lies in runs/DATASET, as run_pipeline.sh leaves it, seed N in runs/DATASET/seed_N: each has its own SASRec and backbone.
set -euo pipefail
source "$(dirname "$0")/setup_env.sh" requirements.txt
source "$SLMREC/common_options.sh"
usage() { sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0"; }

render() {  # render RUNS_DIR [TABLE]: everything below it; shows one table
    mkdir -p "$1/tables"
    python -m reproduce --render "$1"
    [ -z "${2:-}" ] || cat "$1/tables/$2.md"
}

EXPERIMENT="${1:-}"
case "$EXPERIMENT" in
    main | encoders | depth-infer | depth-train | ablation | blocks | online | student-size | teacher-size | kd-kinds | cold | text | layers | efficiency | stats) ;;
    theory) python -m reproduce.theory --output runs/tables/theory.json; render runs theory; exit ;;
    hyper-parameters) render runs hyperparameters; exit ;;
    --render)
        [ -d "${2:-runs}" ] || { echo "error: ${2:-runs}: no such directory; bash run_tables.sh main demo makes runs" >&2; exit 2; }
        render "${2:-runs}"; exit ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
esac
if [ $# -lt 2 ] || [[ "$2" == -* ]]; then
    echo "error: bash run_tables.sh $EXPERIMENT needs a DATASET" >&2
    exit 2
fi

SEEDS=1 FLAGS=()
for ((i = 2; i <= $#; i++)); do
    if [ "${!i}" = --seeds ]; then
        i=$((i + 1)); value_of --seeds "${@:i:1}"; SEEDS="$VALUE"
    else
        FLAGS+=("${!i}")
    fi
done
[[ "$SEEDS" =~ ^[1-9][0-9]*$ ]] || { echo "error: --seeds $SEEDS: must be a number from 1 on" >&2; exit 2; }
if [ "$EXPERIMENT" = efficiency ]; then
    BENCHMARK_FLAGS=("${FLAGS[@]:1}") FLAGS=("${FLAGS[0]}")
fi
read_options "${FLAGS[@]}"
[ -z "$REVIEWS" ] && [ -d "$RUN_DIR/data" ] || process_reviews
GIVEN_BASE_MODEL="$BASE_MODEL"

evaluate() { python "$SLMREC/evaluate.py" --model "$DIR/$1" --split test --full_ranking "${OVERWRITE[@]}"; }
encoder() {  # encoder NAME [FLAGS]
    train_encoder "$1" "$DIR/$1" "${@:2}" --seed "$SEED"
    evaluate "$1"
}
e4srec() {  # e4srec LAYERS [SUFFIX]: tuned to predict the next item
    bash "$SLMREC/run_finetune.sh" "$DIR/e4srec_$1${2:-}" "${LLM[@]}" --num_layers "$1"
    evaluate "e4srec_$1${2:-}"
}
slmrec() {  # slmrec NAME TEACHER [FLAGS]: a student; TEACHER is a model of this seed, or online
    local teacher="$2" cache blocks="$NUM_BLOCKS"
    [ "$teacher" = online ] || teacher="$DIR/$2"
    [[ "${DISTILL_FLAGS[*]} $*" =~ .*--num_blocks\ ([0-9]+) ]] && blocks="${BASH_REMATCH[1]}"  # the last one counts
    cache=(--teacher_cache "$DIR/teacher_states/$2_$blocks")
    [[ -n "${TEACHER_STATES:-}" && "$teacher" != online && "${DISTILL_FLAGS[*]} $*" != *lambda_attention* ]] || cache=()
    bash "$SLMREC/run_distill.sh" "$teacher" "$DIR/$1" "${LLM[@]}" --num_layers "$NUM_LAYERS_STUDENT" --protocol "$PROTOCOL" \
        "${DISTILL_FLAGS[@]}" "${cache[@]}" "${@:3}"
    evaluate "$1"
}
student() { slmrec slmrec_4_8 "e4srec_$NUM_LAYERS_TEACHER"; }
base_layers() {  # starts Python: once an experiment is enough
    python -c 'import sys; from transformers import AutoConfig; print(AutoConfig.from_pretrained(sys.argv[1]).num_hidden_layers)' "$BASE_MODEL"
}
source "$SLMREC/experiments.sh"

for ((SEED = 0; SEED < SEEDS; SEED++)); do
    DIR="$RUN_DIR"
    [ "$SEED" = 0 ] || DIR="$RUN_DIR/seed_$SEED"
    case "$EXPERIMENT" in encoders | stats | efficiency) ;; *) prepare_seed ;; esac  # these need no LLM
    run_experiment "$EXPERIMENT"
done
render "$(dirname "$RUN_DIR")" "$(basename "$RUN_DIR")/$EXPERIMENT"
