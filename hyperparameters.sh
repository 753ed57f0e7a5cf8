# Hyper-parameters per data set (DATASET) and kind of backbone (BASE_MODEL), sourced by run_pipeline.sh, run_finetune.sh,
# run_distill.sh, run_openp5.sh and run_tables.sh. An environment variable of the same name overrides a value, a flag overrides both.
# Pretrained, or random and trained whole
BASE_MODEL="${BASE_MODEL:-}"
case "$DATASET" in
    cloth | movie | music | sport) BASE_MODEL="${BASE_MODEL:-meta-llama/Llama-2-7b-hf}" ;;   # paper, Section 5 (LLaMA-7B)
esac
BACKBONE=pretrained
if [ -z "$BASE_MODEL" ] || grep -qs '"stage": "backbone"' "$BASE_MODEL/manifest.json"; then
    BACKBONE=random                     # none is given and one is made, or this is one that was made
fi

FROM_ENVIRONMENT="$(export -p)"         # see the end

# All data sets
NUM_LAYERS_TEACHER=8                    # paper, Section 5: E4SRec_8 is the teacher
NUM_LAYERS_STUDENT=4                    # paper, Section 5: SLMRec_4<-8
NUM_BLOCKS=4                            # paper, Table 6 (b) and Figure 4
LAMBDA_COS=1.0                          # paper, Table 6 (lambda 1)
LAMBDA_NORM=0.1                         # paper, Table 6 (lambda 2)
PER_DEVICE_TRAIN_BATCH_SIZE=256         # paper, Table 5
PER_DEVICE_EVAL_BATCH_SIZE=512          # paper, Table 5
MAX_LENGTH=30                           # released code
ITEM_DROPOUT=0.0                        # none in the paper
TARGETS=last                            # paper, Section 5.1: one training target per user
LR_SCHEDULER_TYPE=cosine                # paper, Table 6
ADAM_BETA1=0.9                          # paper, Table 6
ADAM_BETA2=0.999                        # paper, Table 6 (its 9.999 for Sport is a typo)
ADAM_EPSILON=1e-8                       # paper, Table 6
MAX_GRAD_NORM=1.0                       # paper, Table 6
LOGGING_STEPS=1                         # paper, Table 6
NUM_TRAIN_EPOCHS=3                      # released code (run_finetune.sh); counts where MAX_STEPS is -1
SASREC_NUM_EPOCHS=100                   # a bound that early stopping is not meant to reach
SASREC_LEARNING_RATE=0.001              # Kang and McAuley, Section 4.2; slmrec/encoders/sasrec.py has the rest
SASREC_BATCH_SIZE=256                   # paper, Table 5
TEXT_USE=off                            # titles: none in the paper; auto, start, sum, adapter or alphafuse

# What experiments of run_tables.sh give to some of their models, all our choice
KD_LAMBDA_LOGITS=1.0                    # kd-kinds and online, where this kind of distillation is on
KD_LAMBDA_ATTENTION=1.0                 # kd-kinds, likewise
KD_LAMBDA_CONTRASTIVE=0.1               # kd-kinds, likewise
TITLED_LEARNING_RATE=0.001              # text, like the next two: E-LLMRecs on a table that knows titles; docs/titles.md has the search
TITLED_ITEM_DROPOUT=0.1
TITLED_USER_LENGTH=11
WHOLE_LEARNING_RATE=0.0003              # pretrained: models that are trained whole

case "$BACKBONE $DATASET" in
    "pretrained cloth")                 # paper, Table 6
        LEARNING_RATE=0.003 MAX_STEPS=1500 WARMUP_STEPS=50 SAVE_STEPS=50 LAMBDA_MS=1.0 ;;
    "pretrained movie")                 # paper, Table 6
        LEARNING_RATE=0.001 MAX_STEPS=-1 WARMUP_STEPS=50 SAVE_STEPS=100 LAMBDA_MS=1.0 ;;
    "pretrained music")                 # paper, Table 6
        LEARNING_RATE=0.002 MAX_STEPS=800 WARMUP_STEPS=100 SAVE_STEPS=100 LAMBDA_MS=0.01 ;;
    "pretrained sport")                 # paper, Table 6
        LEARNING_RATE=0.002 MAX_STEPS=2000 WARMUP_STEPS=50 SAVE_STEPS=100 LAMBDA_MS=0.1 ;;
    "pretrained "*)                     # our choice, for any other data set
        LEARNING_RATE=0.002 MAX_STEPS=-1 WARMUP_STEPS=50 SAVE_STEPS=100 LAMBDA_MS=0.1
        TARGETS=all                     # every position is a target: a few thousand users are few rows
        ITEM_DROPOUT=0.1
        LAMBDA_NORM=0.001               # like the learning rate: the best of the searched on Scientific
        NUM_TRAIN_EPOCHS=5              # the best of the searched on Scientific (results/tables/scientific-smollm2-135m/regimes.md)
        LOGGING_STEPS=20 ;;
    "random "*)                         # our choice, for any data set
        LEARNING_RATE=0.0003 MAX_STEPS=-1 WARMUP_STEPS=20 SAVE_STEPS=66 LAMBDA_MS=0.1
        TARGETS=all                     # every position is a target: a random backbone has no knowledge to build on
        ITEM_DROPOUT=0.5                # like the learning rate: the best of those in results/early_sasrec/scientific-early-sasrec/regimes.md
        LAMBDA_NORM=0.01                # the squared distance grows with the width and the norm of the states; at 0.1 it would dominate
        NUM_TRAIN_EPOCHS=20
        LOGGING_STEPS=20 ;;
esac
case "$BACKBONE $DATASET" in
    "random demo")                      # our choice: the whole demo in about five minutes on two CPU cores
        LEARNING_RATE=0.002 ITEM_DROPOUT=0.0 SAVE_STEPS=22 NUM_TRAIN_EPOCHS=6
        SASREC_NUM_EPOCHS=16 SASREC_LEARNING_RATE=0.003 SASREC_BATCH_SIZE=128 ;;
    *" beauty")                         # our choice: an epoch has 88 steps; validation MRR stops rising before 12 on a random backbone
        if [ "$BACKBONE" = pretrained ]; then NUM_TRAIN_EPOCHS=3; else NUM_TRAIN_EPOCHS=12; fi
        SAVE_STEPS=88 ;;
    *" scientific")                     # our choice: an epoch has 33 steps; 5 epochs gave 13.47 on validation, 3 gave 13.41
        if [ "$BACKBONE" = pretrained ]; then NUM_TRAIN_EPOCHS=3 WARMUP_STEPS=20 SAVE_STEPS=33; fi ;;
    "pretrained musical_instruments")   # our choice: 526 users are 3 steps of 256 rows; these of 64 are the cheapest near the best on validation
        LEARNING_RATE=0.001 PER_DEVICE_TRAIN_BATCH_SIZE=64 NUM_TRAIN_EPOCHS=6 SAVE_STEPS=9 ;;
esac
case "$DATASET" in
    demo | cloth | movie | music | sport) ;;   # the paper's way
    *) TEXT_USE=auto ;;                 # our choice: SASRec starts from titles where more than half of the items have one
esac

# Open-P5; its other values are those of its released code, and the defaults of train_openp5.py
OPENP5_NUM_TRAIN_EPOCHS=2               # OpenP5
OPENP5_SOFTMAX=vocabulary               # OpenP5
OPENP5_INDEXING=sequential              # OpenP5
OPENP5_TRAIN_STRATEGY=auto              # OpenP5: LoRA
OPENP5_LEARNING_RATE=0.001              # OpenP5
OPENP5_WARMUP_STEPS=100                 # OpenP5
OPENP5_PER_DEVICE_TRAIN_BATCH_SIZE=64   # OpenP5
OPENP5_GRADIENT_ACCUMULATION_STEPS=8    # OpenP5
OPENP5_SAVE_STEPS=100                   # our choice, like the next one
OPENP5_VALID_USERS=500                  # validating on all users takes longer than training on them
case "$DATASET" in
    cloth | movie | music | sport) ;;   # as released
    *)                                  # our choice, the best of the searched for SmolLM2 on Scientific: a few thousand users are few steps
        if [ "$BASE_MODEL" = smollm2-135m ]; then OPENP5_TRAIN_STRATEGY=full; fi
        OPENP5_INDEXING=collaborative OPENP5_SOFTMAX=ids
        OPENP5_PER_DEVICE_TRAIN_BATCH_SIZE=32 OPENP5_GRADIENT_ACCUMULATION_STEPS=1 OPENP5_WARMUP_STEPS=50 OPENP5_SAVE_STEPS=200 ;;
esac
case "$DATASET" in                      # our choice: an epoch takes SmolLM2's first four layers 45 minutes of one core, or four times as long
    scientific) OPENP5_NUM_TRAIN_EPOCHS=1 OPENP5_SAVE_STEPS=355 ;;
    beauty) OPENP5_NUM_TRAIN_EPOCHS=1 OPENP5_SAVE_STEPS=685 ;;
esac
if [ "$BACKBONE" = random ]; then       # our choice: it has all to learn, and no other words
    OPENP5_NUM_TRAIN_EPOCHS=10 OPENP5_SOFTMAX=ids
fi

eval "$FROM_ENVIRONMENT"                # LEARNING_RATE=0.001 bash run_finetune.sh ... counts

# What SASRec is given of the above
SASREC_SETTINGS=(
    --num_epochs "$SASREC_NUM_EPOCHS"
    --learning_rate "$SASREC_LEARNING_RATE"
    --batch_size "$SASREC_BATCH_SIZE"
)

# Both LLM stages
STAGE_FLAGS=(
    --targets "$TARGETS"
    --max_length "$MAX_LENGTH"
    --item_dropout "$ITEM_DROPOUT"
    --learning_rate "$LEARNING_RATE"
    --lr_scheduler_type "$LR_SCHEDULER_TYPE"
    --warmup_steps "$WARMUP_STEPS"
    --max_steps "$MAX_STEPS"
    --num_train_epochs "$NUM_TRAIN_EPOCHS"
    --save_steps "$SAVE_STEPS"
    --logging_steps "$LOGGING_STEPS"
    --per_device_train_batch_size "$PER_DEVICE_TRAIN_BATCH_SIZE"
    --per_device_eval_batch_size "$PER_DEVICE_EVAL_BATCH_SIZE"
    --adam_beta1 "$ADAM_BETA1"
    --adam_beta2 "$ADAM_BETA2"
    --adam_epsilon "$ADAM_EPSILON"
    --max_grad_norm "$MAX_GRAD_NORM"
)

# Open-P5 alone
OPENP5_FLAGS=(
    --num_train_epochs "$OPENP5_NUM_TRAIN_EPOCHS"
    --softmax "$OPENP5_SOFTMAX"
    --indexing "$OPENP5_INDEXING"
    --train_strategy "$OPENP5_TRAIN_STRATEGY"
    --learning_rate "$OPENP5_LEARNING_RATE"
    --warmup_steps "$OPENP5_WARMUP_STEPS"
    --per_device_train_batch_size "$OPENP5_PER_DEVICE_TRAIN_BATCH_SIZE"
    --gradient_accumulation_steps "$OPENP5_GRADIENT_ACCUMULATION_STEPS"
    --save_steps "$OPENP5_SAVE_STEPS"
    --valid_users "$OPENP5_VALID_USERS"
)

# And the student alone
DISTILLATION_FLAGS=(
    --num_blocks "$NUM_BLOCKS"
    --lambda_cos "$LAMBDA_COS"
    --lambda_norm "$LAMBDA_NORM"
    --lambda_ms "$LAMBDA_MS"
)
