"""Which models each experiment of run_tables.sh consists of, by directory name, and which pairs of them are compared.

The names are those that experiments.sh gives them; tests/paper/test_experiments.py holds the two together.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from slmrec.artifacts import MANIFEST, read_json

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
}
COUNTING = ("popularity", "markov")  # references, which train nothing
TRAINED = tuple(name for name in ENCODER_LABELS if name not in COUNTING)
PAPER_DEPTHS = (1, 2, 4, 8, 16, 24, 32)  # Section 2
STUDENT = "slmrec_4_8"


@dataclass(frozen=True)
class Model:
    """One model of an experiment: its directory below the seed's, its label, and the number that a figure plots it over."""

    name: str
    label: str
    x: int | None = None


FULL = Model(STUDENT, "SLMRec_4<-8")
ABLATION = (
    Model("slmrec_cos", "cos"),
    Model("slmrec_cos_norm", "cos + norm"),
    Model("slmrec_cos_ms", "cos + ms"),
    Model(STUDENT, "cos + norm + ms"),
)
BLOCKS = (
    Model("slmrec_b1", "B = 1 (without ms)", 1),
    Model("slmrec_b2", "B = 2", 2),
    Model(STUDENT, "B = 4", 4),
    Model("slmrec_b8", "B = 8 (8 layers)", 8),
)
ONLINE = (
    FULL,
    Model("slmrec_online", "SLMRec_4<-8 online"),
    Model("slmrec_online_logits", "SLMRec_4<-8 online, with logits"),
    Model("slmrec_online/teacher", "its teacher E4SRec_8, trained along"),
)
KD_KINDS = (
    Model("slmrec_logits", "logits"),
    Model("slmrec_attention", "attention weights"),
    Model("slmrec_contrastive", "contrastive"),
    Model("slmrec_cos_norm", "features (cos + norm)"),
    Model(STUDENT, "features and supervision (SLMRec)"),
)
STUDENT_SIZES = (
    Model("slmrec_1_8", "SLMRec_1<-8, B = 1"),
    Model("slmrec_2_8", "SLMRec_2<-8, B = 2"),
    FULL,
)
PAIRS = {
    "encoders": [(name, against) for against in ("markov", "sasrec") for name in TRAINED if name != against],
    "main": [(STUDENT, "e4srec_4"), (STUDENT, "e4srec_8"), ("e4srec_8", "e4srec_4"), (STUDENT, "sasrec"), ("e4srec_8", "sasrec")],
    "depth-train": [("e4srec_8", "e4srec_1"), ("e4srec_8", "e4srec_2"), ("e4srec_8", "e4srec_4")],
    "ablation": [(model.name, "e4srec_4") for model in ABLATION] + [(STUDENT, model.name) for model in ABLATION[:-1]],
    "blocks": [(STUDENT, model.name) for model in BLOCKS if model.name != STUDENT],
    "online": [
        ("slmrec_online", STUDENT),
        ("slmrec_online", "e4srec_4"),
        ("slmrec_online/teacher", "e4srec_8"),
        ("slmrec_online_logits", "slmrec_online"),
    ],
    "kd-kinds": [(model.name, "e4srec_4") for model in KD_KINDS] + [(STUDENT, model.name) for model in KD_KINDS[:3]],
    "student-size": [
        *((f"slmrec_{depth}_8", f"e4srec_{depth}") for depth in (1, 2, 4)),
        *(("e4srec_8", f"e4srec_{depth}") for depth in (1, 2, 4)),
        ("slmrec_1_8", "e4srec_8"),
    ],
    "teacher-size": [("slmrec_4_4", STUDENT)],
}
MODEL_EXPERIMENTS = tuple(PAIRS)


def e4srec(layers: int) -> Model:
    return Model(f"e4srec_{layers}", f"E4SRec_{layers}", layers)


def models_of(experiment: str, run_dir: Path) -> list[Model]:
    """The models that make an experiment, whether they are there or not; depths and widths depend on the run's backbone."""
    base = [e4srec(8), e4srec(4)]
    if experiment == "encoders":
        return [Model(name, label) for name, label in ENCODER_LABELS.items()]
    if experiment == "main":
        return [*_encoders(run_dir), *(e4srec(depth) for depth in _deeper(run_dir)), *base, FULL]
    if experiment == "depth-train":
        deepest = backbone_layers(run_dir)
        return [e4srec(depth) for depth in PAPER_DEPTHS if depth <= deepest]
    if experiment == "teacher-size":
        return _teacher_sizes(run_dir)
    if experiment == "student-size":
        return [e4srec(8), *(model for depth, student in zip((1, 2, 4), STUDENT_SIZES) for model in (e4srec(depth), student))]
    return {"ablation": [e4srec(4), *ABLATION], "blocks": [*BLOCKS], "online": [*base, *ONLINE], "kd-kinds": [*base, *KD_KINDS]}[
        experiment
    ]


def backbone_layers(run_dir: Path) -> int:
    """Layers of the run's backbone: of the random one there, else of the deepest E4SRec that was trained (at least 8)."""
    config = run_dir / "backbone" / "config.json"
    return read_json(config)["num_hidden_layers"] if config.is_file() else max([8, *_depths(run_dir)])


def _depths(run_dir: Path) -> list[int]:
    found = (re.fullmatch(r"e4srec_(\d+)", path.name) for path in run_dir.glob("e4srec_*"))
    return sorted((int(match[1]) for match in found if match), reverse=True)


def _deeper(run_dir: Path) -> list[int]:
    """All layers of the backbone, where that is more than the teacher's 8 (the paper's E4SRec has 32)."""
    return [depth for depth in {backbone_layers(run_dir)} if depth > 8]


def _encoders(run_dir: Path) -> list[Model]:
    """The conventional models that are there; SASRec belongs to every run."""
    there = {"sasrec"} | {name for name in ENCODER_LABELS if (run_dir / name / MANIFEST).is_file()}
    return [Model(name, label) for name, label in ENCODER_LABELS.items() if name in there]


def _teacher_sizes(run_dir: Path) -> list[Model]:
    depths = [depth for depth in (4, 8, 16, 32) if depth <= backbone_layers(run_dir)]
    models = [model for depth in depths for model in (e4srec(depth), Model(f"slmrec_4_{depth}", f"SLMRec_4<-{depth}"))]
    for path in sorted(run_dir.glob("backbone_w*"), key=lambda path: int(path.name.removeprefix("backbone_w"))):
        width = path.name.removeprefix("backbone_w")
        teacher = Model(f"e4srec_8_w{width}", f"E4SRec_8, width {width}")
        models += [teacher, Model(f"slmrec_w{width}", f"SLMRec_4<-8, teacher's width {width}")]
    return models
