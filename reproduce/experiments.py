"""The paper's experiments and ours, each described once: what runs, what it is called, what is compared, how it is drawn.

`run_tables.sh` (`reproduce.run`), its `-h`, the summaries, tables, figures and report, and the table in docs/experiments.md all
come from EXPERIMENTS. A new experiment that compares models is one entry there. Only Python's standard library is needed here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

TEACHER, STUDENT, NUM_BLOCKS = 8, 4, 4  # paper, Section 5: SLMRec_4<-8 with B = 4
PAPER_DEPTHS = (1, 2, 4, 8, 16, 24, 32)  # paper, Section 2
DEPTHS = range(1, 129)  # that any backbone may have
TEACHER_WIDTHS = (64, 256)  # our choice, beside the 128 of the random backbone


@dataclass(frozen=True)
class Model:
    """One model of an experiment.

    Attributes:
        name: its directory below that of its seed.
        label: in tables and figures.
        stage: which stage trains it: encoder, finetune, distill, openp5; "" for what another model's run leaves behind.
        layers: of its decoder; None for a conventional model.
        teacher: name of the model that a student learns from; "online" for one that is trained along.
        flags: of its stage, those that make it differ from the stage's defaults; $NAME is a variable of hyperparameters.sh.
        encoder: name of a conventional model in the registry, where it is not `name`.
        text: the text vectors that a conventional model is given, a name in TEXTS.
        reads: the conventional model whose item embeddings an E-LLMRec reads; by another one than SASRec it is guided too.
        width: of the random backbone it is trained on, where that is not the run's.
        random: trained on random weights of its base model's shape, not on the base model.
        x: what a curve plots it over.
        paper: the row of the paper's tables that it repeats: a method of Tables 2 and 3, or loss terms of Tables 4 and 9.
        optional: shown only where it has run.
    """

    name: str
    label: str
    stage: str
    layers: int | None = None
    teacher: str = ""
    flags: str = ""
    encoder: str = ""
    text: str = ""
    reads: str = "sasrec"
    width: int | None = None
    random: bool = False
    x: int | None = None
    paper: str | tuple[str, ...] = ""
    optional: bool = False


@dataclass(frozen=True)
class Backbone:
    """The decoder that a run starts from: its depth, and whether it is a random one of this project's."""

    layers: int = 8
    random: bool = True

    def depths(self, wanted: tuple[int, ...]) -> list[int]:
        """Those of the wanted depths that it has, and all its layers where more are wanted than it has."""
        return sorted({min(depth, self.layers) for depth in wanted})


@dataclass(frozen=True)
class Experiment:
    """One experiment.

    Attributes:
        name: of its tables.
        paper: what of the paper it repeats; "" for experiments of ours.
        runs: what runs, in a few words.
        kind: which summary, tables and figure it has; "models" compares models.
        models: in the order of the table; a function of the backbone where they depend on it.
        pairs: names of two models each that are compared over users, where both are among the models and have run.
        reference: the model that a figure shows the others' differences to.
        axis: name of the numbers that a figure plots models over; then it draws curves, not differences.
        shows: beside metrics and paired tests: "paper" (its numbers of the same models), "others" (methods that are not run
            here), "rank" (mean rank over the metrics), "public" (numbers that others published), "training" (what it took).
        dataset: whether it needs a data set.
        pretrained: whether it needs a pretrained base model.
    """

    name: str
    paper: str
    runs: str
    kind: str = "models"
    models: list[Model] | Callable[[Backbone], list[Model]] = field(default_factory=list)
    pairs: list[tuple[str, str]] = field(default_factory=list)
    reference: str = ""
    axis: str = ""
    shows: tuple[str, ...] = ()
    dataset: bool = True
    pretrained: bool = False

    @property
    def title(self) -> str:
        return f"{self.name} ({self.paper})" if self.paper else self.name


# -- models -------------------------------------------------------------------------------------------------------------------

ENCODER_LABELS = {
    "caser": "Caser",
    "gru4rec": "GRU4Rec",
    "bert4rec": "BERT4Rec",
    "sasrec": "SASRec",
    "hgn": "HGN",
    "lightsans": "LightSANs",
    "s3rec": "S3-Rec",
    "duorec": "DuoRec",
    "maerec": "MAERec",
    "popularity": "Popularity",
    "markov": "Markov (item to item)",
    "nearest": "Nearest texts",
}
ENCODERS = [Model(name, label, "encoder", paper=label) for name, label in ENCODER_LABELS.items() if name != "nearest"]


def e4srec(layers: int, width: int | None = None) -> Model:
    """E4SRec with the first `layers` of the backbone. The paper's E4SRec without a number has LLaMA-7B's 32."""
    suffix, words = (f"_w{width}", f", width {width}") if width else ("", "")
    paper = "" if width else "E4SRec" if layers == 32 else f"E4SRec_{layers}"
    return Model(f"e4srec_{layers}{suffix}", f"E4SRec_{layers}{words}", "finetune", layers, width=width, x=layers, paper=paper)


def slmrec(name: str, label: str, flags: str = "", layers: int = STUDENT, teacher: str = f"e4srec_{TEACHER}", **shown) -> Model:
    """A student with these flags of distill.py beside the defaults."""
    return Model(name, label, "distill", layers, teacher, flags, **shown)


def student(layers: int, teacher: int) -> Model:
    """SLMRec_n<-m with as many blocks, at most four, as divide both depths; a single one leaves nothing to supervise (Eq. 5)."""
    blocks = min(NUM_BLOCKS, math.gcd(layers, teacher))
    flags = "" if blocks == NUM_BLOCKS else f"--num_blocks {blocks}" + " --lambda_ms 0" * (blocks == 1)
    label = f"SLMRec_{layers}<-{teacher}" + (f", B = {blocks}" if flags else "")
    return slmrec(f"slmrec_{layers}_{teacher}", label, flags, layers, f"e4srec_{teacher}", paper=label)


FULL = student(STUDENT, TEACHER)
BASE = [e4srec(TEACHER), e4srec(STUDENT)]
NO_FEATURES = "--lambda_cos 0 --lambda_norm 0 --lambda_ms 0"
COS_NORM = slmrec("slmrec_cos_norm", "cos + norm", "--lambda_ms 0", paper=("cos", "norm"))
ABLATION = [
    slmrec("slmrec_none", "none: the teacher's maps alone", NO_FEATURES, optional=True),
    slmrec("slmrec_cos", "cos", "--lambda_norm 0 --lambda_ms 0", paper=("cos",)),
    COS_NORM,
    slmrec("slmrec_cos_ms", "cos + ms", "--lambda_norm 0", paper=("cos", "ms")),
    replace(FULL, label="cos + norm + ms", paper=("cos", "norm", "ms")),
]
BLOCKS = [
    slmrec("slmrec_b1", "B = 1 (without ms)", "--num_blocks 1 --lambda_ms 0", x=1),
    slmrec("slmrec_b2", "B = 2", "--num_blocks 2", x=2),
    replace(FULL, label="B = 4", flags="--num_blocks 4", x=4),
    slmrec("slmrec_b8", "B = 8 (8 layers)", "--num_blocks 8", layers=8, x=8),
]
ONLINE = [  # the released code's online mode adds the divergence of the logits
    slmrec("slmrec_online", "SLMRec_4<-8 online", teacher="online"),
    slmrec("slmrec_online_logits", "SLMRec_4<-8 online, with logits", "--lambda_logits $KD_LAMBDA_LOGITS", teacher="online"),
    Model("slmrec_online/teacher", "its teacher E4SRec_8, trained along", "", TEACHER),
]
KD_KINDS = [
    slmrec("slmrec_logits", "logits", f"{NO_FEATURES} --lambda_logits $KD_LAMBDA_LOGITS"),
    slmrec("slmrec_attention", "attention weights", f"{NO_FEATURES} --lambda_attention $KD_LAMBDA_ATTENTION"),
    slmrec("slmrec_contrastive", "contrastive", f"{NO_FEATURES} --lambda_contrastive $KD_LAMBDA_CONTRASTIVE"),
    replace(COS_NORM, label="features (cos + norm)"),
    replace(FULL, label="features and supervision (SLMRec)"),
]
CONTROL = (  # what the base model itself is given, as the run scripts would give random weights values of their own
    "--targets $TARGETS --item_dropout $ITEM_DROPOUT --warmup_steps $WARMUP_STEPS --max_steps $MAX_STEPS "
    "--num_train_epochs $NUM_TRAIN_EPOCHS --save_steps $SAVE_STEPS"
)
WHOLE = f"--train_strategy full --learning_rate $WHOLE_LEARNING_RATE {CONTROL}"


def controls(depth: int) -> list[Model]:
    """E4SRec of this depth: pretrained and trained whole, and with random weights, with LoRA and whole."""
    name, lora = f"e4srec_{depth}", f"--train_strategy lora --learning_rate $LEARNING_RATE {CONTROL}"
    label = f"E4SRec_{depth}"
    return [
        Model(f"{name}_whole", f"{label}, trained whole", "finetune", depth, flags=WHOLE),
        Model(f"{name}_random_lora", f"{label}, random weights, LoRA", "finetune", depth, flags=lora, random=True),
        Model(f"{name}_random", f"{label}, random weights, trained whole", "finetune", depth, flags=WHOLE, random=True),
    ]


# Kind of experiment -> module that looks into its last model, or, of quantise, into each
ANALYSES = {"depth-infer": "depth_infer", "layers": "layers", "quantise": "quantise"}
OPENP5 = Model("openp5", "Open-P5", "openp5", paper="Open-P5", optional=True)
OPENP5_RANDOM = Model(
    "openp5_random",
    "Open-P5, random weights, trained whole",
    "openp5",
    flags="--train_strategy full --softmax $OPENP5_SOFTMAX --num_train_epochs $OPENP5_NUM_TRAIN_EPOCHS",
    random=True,
    optional=True,
)
TEXTS = {"text": "", "text_minilm": "--encoder minilm"}  # directory of text vectors -> flags of embed_titles.py
TITLED = (
    "--start passing --user_length $TITLED_USER_LENGTH --item_dropout $TITLED_ITEM_DROPOUT --learning_rate $TITLED_LEARNING_RATE"
)
TITLES = [  # TF-IDF unless said
    Model("nearest", "Nearest title, nothing trained", "encoder", text="text", flags="--text_exponent 1"),
    Model("sasrec", "SASRec", "encoder"),
    Model(
        "sasrec_shuffled",
        "SASRec from shuffled titles",
        "encoder",
        encoder="sasrec",
        text="text",
        flags="--text_control shuffled",
    ),
    Model("sasrec_gaussian", "SASRec from noise", "encoder", encoder="sasrec", text="text", flags="--text_control gaussian"),
    Model("sasrec_text", "SASRec from titles", "encoder", encoder="sasrec", text="text"),
    Model("sasrec_minilm", "SASRec from titles (MiniLM)", "encoder", encoder="sasrec", text="text_minilm", optional=True),
    Model("sasrec_256", "SASRec, width 256", "encoder", encoder="sasrec", flags="--hidden_size 256", optional=True),
    Model(
        "sasrec_text_256",
        "SASRec from titles, width 256",
        "encoder",
        encoder="sasrec",
        text="text",
        flags="--hidden_size 256",
        optional=True,
    ),
    Model("duorec_text", "DuoRec from titles", "encoder", encoder="duorec", text="text", optional=True),
    Model("e4srec_8_text", "E4SRec_8 on it, guided", "finetune", 8, flags=TITLED, reads="sasrec_text", optional=True),
    slmrec("slmrec_4_8_text", "SLMRec_4<-8 on it, guided", TITLED, teacher="e4srec_8_text", reads="sasrec_text", optional=True),
]


def main_models(backbone: Backbone) -> list[Model]:
    """Conventional models, Open-P5, E4SRec with all layers where those are more than the teacher's, and the paper's three."""
    encoders = [replace(model, optional=model.name != "sasrec") for model in ENCODERS]
    return [*encoders, OPENP5, *(e4srec(depth) for depth in {backbone.layers} if depth > TEACHER), *BASE, FULL]


def teacher_sizes(backbone: Backbone) -> list[Model]:
    """One student of teachers of other depths and, on a random backbone, of other widths, met by a learned linear map."""
    depths = [depth for depth in backbone.depths((4, 8, 16, 32)) if depth >= STUDENT]
    models = [model for depth in depths for model in (e4srec(depth), student(STUDENT, depth))]
    for width in TEACHER_WIDTHS if backbone.random else ():
        wide = e4srec(TEACHER, width)
        label = f"SLMRec_4<-8, teacher's width {width}"
        models += [wide, slmrec(f"slmrec_w{width}", label, "--project_states", teacher=wide.name)]
    return models


def against(reference: str, models: list[Model]) -> list[tuple[str, str]]:
    """Each of the models against the reference."""
    return [(model.name, reference) for model in models if model.name != reference]


def pairs(model: str, *others: str) -> list[tuple[str, str]]:
    """The model against each of the others."""
    return [(model, other) for other in others]


# -- the list, in the order of the report -------------------------------------------------------------------------------------

EXPERIMENTS = {
    "stats": Experiment("Data sets", "Table 1", "counts of the data set", "stats"),
    "main": Experiment(
        "Models compared",
        "Tables 2 and 3",
        "every conventional model, Open-P5, E4SRec with all layers, 8 and 4, SLMRec_4<-8; mean ranks",
        models=main_models,
        pairs=[
            *pairs("slmrec_4_8", "e4srec_4", "e4srec_8"),
            ("e4srec_8", "e4srec_4"),
            *against("sasrec", [FULL, e4srec(8), OPENP5]),
        ],
        reference="sasrec",
        shows=("paper", "others", "rank"),
    ),
    "encoders": Experiment(
        "Conventional models",
        "",
        "the conventional models alone: metrics, paired tests against Markov and SASRec, what training took",
        models=ENCODERS,
        pairs=[*against("markov", ENCODERS[:-2]), *against("sasrec", ENCODERS[:-2])],
        reference="sasrec",
        shows=("rank", "public", "others", "training"),
    ),
    "ablation": Experiment(
        "Terms of the loss",
        "Tables 4 and 9",
        "no term, from the teacher's maps; cos; cos + norm; cos + ms; all three",
        models=[e4srec(4), *ABLATION],
        pairs=[
            *against("e4srec_4", ABLATION),
            *pairs("slmrec_4_8", "slmrec_none", "slmrec_cos", "slmrec_cos_norm", "slmrec_cos_ms"),
        ],
        reference="e4srec_4",
        shows=("paper",),
    ),
    "depth-train": Experiment(
        "Depth: a model trained at each depth",
        "Figures 2 and 5, d to f",
        "E4SRec with 1, 2, 4, 8, 16, 24 and 32 layers, as many as the backbone has",
        models=lambda backbone: [e4srec(depth) for depth in backbone.depths(PAPER_DEPTHS)],
        pairs=[("e4srec_8", f"e4srec_{depth}") for depth in DEPTHS if depth != 8],
        axis="decoder layers",
    ),
    "pretrained": Experiment(
        "Pretrained or random weights",
        "",
        "E4SRec_8 and _4 on a pretrained base model and its shape with random weights, each with LoRA and whole; Open-P5 on both",
        models=[e4srec(8), *controls(8), e4srec(4), *controls(4), OPENP5, OPENP5_RANDOM],
        pairs=[
            *(pair for depth in (8, 4) for pair in pairs(f"e4srec_{depth}", *(model.name for model in controls(depth)))),
            *((f"e4srec_{depth}_whole", f"e4srec_{depth}_random") for depth in (8, 4)),
            (OPENP5.name, OPENP5_RANDOM.name),
        ],
        reference="e4srec_8",
        pretrained=True,
    ),
    "depth-infer": Experiment(
        "Depth: the layers of one trained model",
        "Figures 2 and 5, a to c",
        "the deepest E4SRec read at its last ten layers, without training",
        "depth-infer",
        models=lambda backbone: [e4srec(backbone.layers)],
    ),
    "blocks": Experiment(
        "Number of blocks B",
        "Figure 4",
        "B = 1, 2, 4, and with 8 layers 8",
        models=BLOCKS,
        pairs=pairs("slmrec_4_8", "slmrec_b1", "slmrec_b2", "slmrec_b8"),
        axis="blocks B",
    ),
    "online": Experiment(
        "Teacher and student trained together",
        "RQ4",
        "teacher and student trained together, also with a divergence of the logits",
        models=[*BASE, FULL, *ONLINE],
        pairs=[
            *pairs("slmrec_online", "slmrec_4_8", "e4srec_4"),
            ("slmrec_online/teacher", "e4srec_8"),
            ("slmrec_online_logits", "slmrec_online"),
        ],
        reference="slmrec_4_8",
    ),
    "kd-kinds": Experiment(
        "Kinds of distillation",
        "",
        "logits, attention and contrastive distillation instead of feature alignment",
        models=[*BASE, *KD_KINDS],
        pairs=[*against("e4srec_4", KD_KINDS), *pairs("slmrec_4_8", "slmrec_logits", "slmrec_attention", "slmrec_contrastive")],
        reference="e4srec_4",
    ),
    "student-size": Experiment(
        "Depth of the student",
        "",
        "students of 1, 2 and 4 layers, each beside the same depth without a teacher",
        models=[e4srec(8), *(model for depth in (1, 2, 4) for model in (e4srec(depth), student(depth, 8)))],
        pairs=[
            *((f"slmrec_{depth}_8", f"e4srec_{depth}") for depth in (1, 2, 4)),
            *pairs("e4srec_8", "e4srec_1", "e4srec_2", "e4srec_4"),
            ("slmrec_1_8", "e4srec_8"),
        ],
        reference="e4srec_8",
    ),
    "teacher-size": Experiment(
        "Depth and width of the teacher",
        "",
        "one student, teachers of 4, 8, 16 and all layers, and of other widths where the backbone is random",
        models=teacher_sizes,
        pairs=[
            (f"slmrec_{teacher}", "slmrec_4_8") for teacher in [*(f"4_{depth}" for depth in DEPTHS if depth != 8), "w64", "w256"]
        ],
        reference="e4srec_4",
    ),
    "regimes": Experiment(
        "Training settings that were tried",
        "",
        "nothing: shows runs of finetune.py, distill.py, train_openp5.py and train_sr_trad.py in RUNS/DATASET/search",
        "regimes",
    ),
    "layers": Experiment(
        "What each layer changes",
        "",
        "block influence and CKA of the layers of the teacher, and of the whole backbone where it is deeper",
        "layers",
        models=lambda backbone: [e4srec(depth) for depth in backbone.depths((TEACHER, backbone.layers))],
    ),
    "cold": Experiment(
        "Short histories and rare targets",
        "",
        "main's models by history and popularity of the target",
        "cold",
        models=main_models,
    ),
    "text": Experiment(
        "Titles, beyond the paper",
        "",
        "SASRec from titles and from controls, the nearest title, E4SRec and SLMRec on the table that knows titles",
        models=TITLES,
        pairs=[
            *against("sasrec", [model for model in TITLES if model.name != "nearest"]),
            *against("sasrec_text", [model for model in TITLES if model.name not in ("nearest", "sasrec")]),
            ("sasrec_text_256", "sasrec_256"),
        ],
        reference="sasrec",
        shows=("public",),
    ),
    "quantise": Experiment(
        "Fewer bits and fewer weights, beyond the paper",
        "",
        "teacher and student as bf16, int8, int4, pruned, under onnxruntime: size, speed, MRR (needs `.[export,quantise]`)",
        "quantise",
        models=[
            e4srec(8),
            FULL,
            *(replace(model, label=model.label.replace("on it, guided", "from titles")) for model in TITLES if model.layers),
        ],
    ),
    "efficiency": Experiment(
        "Efficiency",
        "Tables 5, 7 and 8",
        "the benchmark; flags go to python -m reproduce.efficiency",
        "efficiency",
    ),
    "theory": Experiment(
        "Propositions 1 and 2",
        "Section 6",
        "a numeric check; needs no DATASET",
        "theory",
        dataset=False,
    ),
    "hyper-parameters": Experiment(
        "Hyper-parameters",
        "Table 6",
        "the scripts' values beside the paper's; needs no DATASET",
        "hyper-parameters",
        dataset=False,
    ),
}


def models_of(experiment: str, backbone: Backbone) -> list[Model]:
    """The models of an experiment, in the order of its table."""
    models = EXPERIMENTS[experiment].models
    return models(backbone) if callable(models) else models


def run_command(experiment: str, summary: dict, seed: int = 0) -> str:
    """The command that makes an experiment of the runs which a summary names."""
    base_model = f" --base_model {summary['base_model']}" if "base_model" in summary else ""
    seeds = f" --seeds {seed + 1}" if seed else ""
    return f"bash run_tables.sh {experiment} {summary.get('data', summary['dataset'])}{base_model}{seeds}"


def paper_rows(experiment: str) -> dict[str, str | tuple[str, ...]]:
    """Name of a model -> the row of the paper's tables that it repeats, for models that repeat one."""
    return {model.name: model.paper for model in models_of(experiment, Backbone(layers=32)) if model.paper}


def as_text() -> str:
    """The list for `-h`."""
    return "\n".join(f"  {name:<17}{entry.paper or '-':<25}{entry.runs}" for name, entry in EXPERIMENTS.items())


def as_markdown() -> str:
    """The list as the table of docs/experiments.md."""
    rows = [f"| `{name}` | {entry.paper or '-'} | {entry.runs} |" for name, entry in EXPERIMENTS.items()]
    return "\n".join(["| experiment | paper | what runs |", "|---|---|---|", *rows])
