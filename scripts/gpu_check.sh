#!/usr/bin/env bash
# What only a GPU can show, in under ten minutes on one H100; the results go into a directory as JSON.
#
#   bash scripts/gpu_check.sh OUTPUT_DIR          one GPU: training, memory and speed at LLaMA-7B shape; several GPUs: NCCL too
#   bash scripts/gpu_check.sh OUTPUT_DIR --dry    the same commands at toy sizes on the CPU, to see that they run
#
# Needs no network and no data set. A part that fails is named at the end; the others run all the same.
set -uo pipefail
cd "$(dirname "$0")/.."
usage() { echo "error: $1; bash scripts/gpu_check.sh OUTPUT_DIR [--dry]" >&2; exit 2; }
case "${1:-}" in "") usage "no OUTPUT_DIR" ;; -*) usage "$1 is no directory" ;; esac
case "${2:-}${3:-}" in "" | --dry) ;; *) usage "unknown: ${*:2}" ;; esac
OUT="$1"
mkdir -p "$OUT" && OUT="$(cd "$OUT" && pwd)"
DEVICE=cuda PRECISION=bf16 REPEATS=3 PARTS=(encoding models shares memory) LIMIT=1
SHAPE=(--hidden_size 4096 --intermediate_size 11008 --num_heads 32 --vocab_size 32000 --e4srec_layers 32 --micro_batch_size 32)
BACKBONE=(--hidden_size 512 --num_layers 8 --num_heads 8)
ITEMS=(10000 100000 1000000)
if [ "${2:-}" = --dry ]; then
    DEVICE=cpu PRECISION=fp32 REPEATS=1 PARTS=(encoding) LIMIT=0  # no limits of time
    SHAPE=(--hidden_size 32 --num_heads 4 --e4srec_layers 8 --batch_size 16 --num_items 500)
    BACKBONE=(--hidden_size 32 --num_layers 4 --num_heads 4)
    ITEMS=(2000)
fi
FAILED=()
part() {  # part NAME SECONDS COMMAND...
    local began=$SECONDS
    timeout "$(($2 * LIMIT))" "${@:3}" >"$OUT/$1.log" 2>&1 || FAILED+=("$1")
    echo "$1: $((SECONDS - began)) s"
}

# Speed and memory at the shape of the paper's model; random weights cost the same as real ones
part llama7b 300 python -m reproduce.efficiency --device $DEVICE --precision $PRECISION --train_strategy lora \
    --repeats $REPEATS --parts "${PARTS[@]}" "${SHAPE[@]}" --json "$OUT/llama7b.json"

# The loss over large catalogues, beside torch's own and, where liger-kernel is installed, its fused one
part catalogue 120 python -m reproduce.efficiency.catalogue_size --device $DEVICE --items "${ITEMS[@]}" --json "$OUT/catalogue.json"

# A teacher with LoRA and its student, trained in full on the demo's data
DATA="$OUT/run"
part data 60 bash -c "python -m slmrec.data.demo --output_dir '$DATA/raw' --num_users 600 --num_items 300 &&
    python -m slmrec.data --input '$DATA/raw/reviews.json.gz' --output_dir '$DATA/data'"
part encoder 60 python train_sr_trad.py --model sasrec --data "$DATA/data" --output_dir "$DATA/sasrec" --num_epochs 2 --device $DEVICE
part embeddings 60 python extract_emb.py --encoder "$DATA/sasrec" --output_dir "$DATA/embeddings"
part backbone 60 python -m slmrec.llm.make_backbone --output_dir "$DATA/backbone" "${BACKBONE[@]}"
LLM=(--data "$DATA/data" --embeddings "$DATA/embeddings" --base_model "$DATA/backbone" --max_steps 20 --save_steps 10 --device $DEVICE)
part teacher 90 python finetune.py "${LLM[@]}" --num_layers 4 --train_strategy lora --output_dir "$DATA/teacher"
part student 90 python distill.py "${LLM[@]}" --num_layers 2 --num_blocks 2 --teacher "$DATA/teacher" --output_dir "$DATA/student"
part evaluate 60 python evaluate.py --model "$DATA/student" --full_ranking --output_dir "$DATA/ranks" --device $DEVICE

# The same with the frozen weights in 4 bits (bitsandbytes); without CUDA it is refused
FOUR_BITS=(--train_strategy lora --load_in_4bit)
TEACHER_4BIT=(python finetune.py "${LLM[@]}" "${FOUR_BITS[@]}" --num_layers 4 --output_dir "$DATA/teacher_4bit")
if [ $DEVICE = cuda ]; then
    part teacher_4bit 90 "${TEACHER_4BIT[@]}"
    part student_4bit 90 python distill.py "${LLM[@]}" "${FOUR_BITS[@]}" --num_layers 2 --num_blocks 2 --teacher "$DATA/teacher_4bit" \
        --output_dir "$DATA/student_4bit"
    part ranks_4bit 60 python evaluate.py --model "$DATA/student_4bit" --output_dir "$DATA/ranks_4bit" --device $DEVICE
else
    part refused_4bit 60 bash -c '"$@"; [ $? = 2 ]' - "${TEACHER_4BIT[@]}"
fi

# NCCL: as many processes as there are GPUs train and rank as one does
GPUS="$(python -c 'import torch; print(torch.cuda.device_count())')"
[ "${2:-}" != --dry ] || GPUS=2
if [ "$GPUS" -gt 1 ]; then
    part several 120 env LAUNCH="$GPUS" python evaluate.py --model "$DATA/student" --full_ranking --output_dir "$DATA/shared" --device $DEVICE
    part alike 30 python -c "import sys, numpy; a, b = (numpy.load(f'$DATA/{name}/ranks.npz') for name in ('ranks', 'shared'))
sys.exit(not all(numpy.array_equal(a[name], b[name]) for name in a.files))"
    part fsdp 120 accelerate launch --config_file scripts/accelerate/fsdp_13b.yaml --num_processes "$GPUS" finetune.py "${LLM[@]}" \
        --num_layers 4 --train_strategy lora --output_dir "$DATA/fsdp"  # its log says how much of the frozen weights each holds
fi
[ ${#FAILED[@]} = 0 ] || { echo "failed: ${FAILED[*]} (see $OUT/NAME.log)" >&2; exit 1; }
