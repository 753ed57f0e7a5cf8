"""The commands that make an experiment on a data set, in the order in which they run and as they can be typed.

Data and conventional models lie in runs/DATASET, and so do E-LLMRecs on the data set's own backbone: a random one, or the paper's
LLaMA for the paper's data. E-LLMRecs on a named base model lie in runs/DATASET-BASE_MODEL, so that no table holds both. Seed N is
in seed_N below; it has its own SASRec and random backbone.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Template

from reproduce.experiments import ANALYSES, EXPERIMENTS, NUM_BLOCKS, TEACHER, TEXTS, Backbone, Model, e4srec, models_of
from reproduce.hyperparameters import SCRIPT, shell_values
from slmrec.artifacts import MANIFEST, read_json
from slmrec.command_line import grouped
from slmrec.errors import InputError
from slmrec.llm.known_models import KNOWN_MODELS
from slmrec.pipeline.front_door import PAPER_DATA, PipelineArguments
from slmrec.pipeline.steps import Step

ROOT = Path(__file__).resolve().parents[1]
Shares = dict[str, list[str]]  # stage -> the user's flags for it
SASREC_SETTINGS = {  # SASRec's flags -> variables of hyperparameters.sh
    "--num_epochs": "SASREC_NUM_EPOCHS",
    "--learning_rate": "SASREC_LEARNING_RATE",
    "--batch_size": "SASREC_BATCH_SIZE",
}


@dataclass(frozen=True)
class ScriptStep(Step):
    """run_finetune.sh, run_distill.sh or run_openp5.sh, which put the values of hyperparameters.sh before these flags.

    Attributes:
        program: the stage that the script starts.
        places: the script's words before its flags; the last one is the output directory.
    """

    program: str = ""
    places: tuple[str, ...] = ()

    @property
    def flags(self) -> list[str]:
        *teacher, output = self.places
        named = ["--online"] if teacher == ["online"] else [word for place in teacher for word in ("--teacher", place)]
        start = len(self.words) - self.words[::-1].index(output)
        return [*self.words[start:], *named, "--output_dir", output]

    @property
    def output_dir(self) -> Path:
        return Path(self.places[-1])

    def typed(self) -> str:
        return shlex.join(self.words).removeprefix("env ")


@dataclass(frozen=True)
class Place:
    """Where an experiment runs, and on what.

    Attributes:
        shared: directory of the data and the conventional models.
        own: directory of the E-LLMRecs.
        base_model: "" where every seed has its own random backbone.
        values: of the variables of hyperparameters.sh that the models' flags name, and of those that SASRec is given.
        text: directory and use (--text_use ...) of the text vectors that every SASRec is given; empty without.
    """

    dataset: str
    shared: Path
    own: Path
    base_model: str
    backbone: Backbone
    values: dict[str, str]
    text: tuple[str, ...] = ()

    def flags(self, model: Model) -> list[str]:
        """The model's own flags."""
        return Template(model.flags).substitute(self.values).split()


def find_place(experiment: str, dataset: str, own: PipelineArguments, shares: Shares, text_use: str) -> Place:
    """Where an experiment runs; `text_use` is that of the SASRec there, "" without one.

    Raises InputError when the base model is not there, or its runs would mix with others.
    """
    run_dir, shared = own.run_dir, Path(own.run_dir or f"runs/{dataset}")
    base_model = own.base_model or os.environ.get("BASE_MODEL")
    named = {name for model in models_of(experiment, Backbone()) for name in re.findall(r"\$(\w+)", model.flags)}
    variables = ["BASE_MODEL", *SASREC_SETTINGS.values()]  # not those of a base model: SASRec is shared by all
    values = shell_values(dataset, variables, ROOT, os.environ | {"BASE_MODEL": ""})
    usual = values["BASE_MODEL"]
    name = base_model or usual
    values |= shell_values(dataset, sorted(named), ROOT, os.environ | {"BASE_MODEL": name})
    if EXPERIMENTS[experiment].pretrained and not name:
        raise InputError(f"{experiment} compares a pretrained base model with random weights: give --base_model")
    short = re.sub(r"[^a-z0-9.]+", "-", Path(name).name.lower()).removesuffix(".gguf")
    where = shared if run_dir or name == usual else shared.with_name(f"{shared.name}-{short}")
    if base_model and (where / "backbone" / MANIFEST).is_file():
        raise InputError(f"{where}: holds runs on a random backbone; give those on {base_model} another --run_dir")
    layers = base_model_layers(name, shares) if name else int(last(shares, "backbone", "num_layers", "8"))
    text_use = last(shares, "sasrec", "text_use", os.environ.get("TEXT_USE") or text_use or "off")
    text = () if text_use == "off" else (str(shared / "text"), "--text_use", text_use)
    return Place(dataset, shared, where, name, Backbone(layers, random=not name), values, text)


def base_model_layers(name: str, shares: Shares) -> int:
    """How many layers a base model has; nothing is fetched of one that is known by name."""
    directory = Path(name if Path(name).is_dir() else os.path.join(last(shares, "teacher", "models_dir", "models"), name))
    if name in KNOWN_MODELS:
        return KNOWN_MODELS[name].layers
    if (directory / "config.json").is_file():
        return read_json(directory / "config.json")["num_hidden_layers"]
    from slmrec.llm.backbone import load_backbone_config  # which needs transformers
    from slmrec.llm.base_model import local_base_model

    return load_backbone_config(local_base_model(name, directory.parent)).num_hidden_layers


def last(shares: Shares, stage: str, flag: str, default: str) -> str:
    """The value that a stage is given for a flag."""
    return dict(grouped(shares.get(stage, []))).get(flag, [default])[-1]


# -- commands -----------------------------------------------------------------------------------------------------------------


def python(name: str, program: str, *flags: object, given: list[str] | None = None) -> Step:
    """A step `python PROGRAM FLAGS`, PROGRAM being a script in the project's directory or -m MODULE, `given` the user's flags."""
    script = program.split() if program.startswith("-m ") else [os.path.relpath(ROOT / program)]
    return Step(name, ("python", *script, *map(str, flags), *(given or [])))


def script(name: str, dataset: str, shell: str, places: list[object], flags: list[object]) -> ScriptStep:
    """A step `env DATASET=... bash SHELL PLACES FLAGS`, with the hyper-parameters that the environment overrides in sight."""
    known = re.findall(r"[A-Z][A-Z0-9_]+", (ROOT / SCRIPT).read_text(encoding="utf-8"))
    changed = [f"{variable}={os.environ[variable]}" for variable in dict.fromkeys(known) if variable in os.environ]
    changed = [word for word in changed if not word.startswith(("DATASET=", "BASE_MODEL="))]
    words = ["env", f"DATASET={dataset}", *changed, "bash", os.path.relpath(ROOT / shell), *places, *flags]
    programs = {"run_finetune.sh": "finetune.py", "run_distill.sh": "distill.py", "run_openp5.sh": "train_openp5.py"}
    program = f"python {programs[shell]}"
    return ScriptStep(name, tuple(map(str, words)), program, tuple(map(str, places)))


def data_steps(place: Place, reviews: str | None, shares: Shares) -> Iterator[Step]:
    """The data stage: the user's reviews, those generated for the demo, or the paper's; other data that are there stay."""
    data, raw, meta = place.shared / "data", place.shared / "raw", []
    if not reviews and place.dataset == "demo":
        yield python("reviews", "-m slmrec.data.demo", "--output_dir", raw, given=shares["demo"])
        reviews, meta = raw / "reviews.json.gz", ["--meta", raw / "meta.json.gz"]
    elif not reviews and place.dataset in PAPER_DATA:
        yield Step("download", ("bash", os.path.relpath(ROOT / "datasets/download.sh"), place.dataset))
        raw, name = os.path.relpath(ROOT / "datasets/raw"), PAPER_DATA[place.dataset]
        reviews, meta = f"{raw}/{name}_5.json.gz", ["--meta", f"{raw}/meta_{name}.json.gz"]
    elif not reviews and (data / MANIFEST).is_file():
        return
    elif not reviews:
        raise InputError(f"{place.dataset} is no data set of the paper: give its reviews with --reviews FILE")
    yield python("data", "-m slmrec.data", "--input", reviews, *meta, "--output_dir", data, given=shares["data"])


def experiment_steps(experiment: str, place: Place, seeds: int, reviews: str | None, shares: Shares) -> list[Step]:
    """Every command of an experiment, each once; what is finished is among them."""
    steps = list(data_steps(place, reviews, shares))
    if EXPERIMENTS[experiment].kind == "efficiency":
        result = place.shared / "efficiency.json"
        flags = ("--data", place.shared / "data", "--json", result)
        benchmark = python("benchmark", "-m reproduce.efficiency", *flags, given=shares["efficiency"])
        return steps + [benchmark] * (bool(shares["efficiency"]) or not result.is_file())  # measured once, unless asked for
    for seed in range(seeds):
        steps += Seed(seed, place, shares).steps(experiment)
    return list(dict.fromkeys(steps))


@dataclass(frozen=True)
class Seed:
    """Where the runs of one seed lie, and the mark that its steps carry."""

    number: int
    place: Place
    shares: Shares

    @property
    def conventional(self) -> Path:
        return self.place.shared / f"seed_{self.number}" if self.number else self.place.shared

    @property
    def own(self) -> Path:
        return self.place.own / f"seed_{self.number}" if self.number else self.place.own

    @property
    def mark(self) -> str:
        return f" seed {self.number}" if self.number else ""

    def steps(self, experiment: str) -> Iterator[Step]:
        """SASRec where E-LLMRecs need it, then every model after what it needs, evaluated."""
        kind = ANALYSES.get(EXPERIMENTS[experiment].kind)
        models = with_teacher(models_of(experiment, self.place.backbone))
        if kind:  # looks into models that are there; the optional ones are those of other experiments
            models = [model for model in models if not model.optional]
        if any(model.layers for model in models):
            yield from self.encoder(Model("sasrec", "SASRec", "encoder"))
        for model in models:
            if model.stage == "encoder":
                yield from self.encoder(model)
            else:
                trains = {"": lambda _: (), "openp5": self.openp5}.get(model.stage, self.llm)
                yield from trains(model)
                yield self.evaluation(self.own / model.name)
        if kind:
            for model in (self.own / model.name for model in (models[-1:] if kind == "depth_infer" else models)):
                flags = ("--model", model, "--split", "test", "--output_dir", model / f"{kind}-test")
                yield python(f"{kind} {model.name}{self.mark}", f"-m reproduce.analysis.{kind}", *flags)

    def encoder(self, model: Model) -> Iterator[Step]:
        """A conventional model, after the text vectors that it is given. What must be fetched is left out of the demo."""
        name, data, output = model.encoder or model.name, self.place.shared / "data", self.conventional / model.name
        text = [self.place.shared / model.text, *TEXTS[model.text].split()] if model.text else list(self.place.text)
        if "--encoder" in text and self.place.dataset == "demo":
            return
        flags = ["--model", name, "--data", data, "--output_dir", output, "--seed", self.number, *self.place.flags(model)]
        if name == "sasrec":
            flags += [word for flag, variable in SASREC_SETTINGS.items() for word in (flag, self.place.values[variable])]
        if text and (model.text or name == "sasrec"):
            directory, *how = text
            encoder = how if model.text else ["--min_share", "0.5"] if how[-1] == "auto" else []
            embedding = ("--data", data, "--output_dir", directory, *encoder)
            yield python(f"titles {Path(directory).name}", "embed_titles.py", *embedding, given=self.shares["text"])
            flags += ["--text", directory, *([] if model.text else how)]
        yield python(f"{model.name}{self.mark}", "train_sr_trad.py", *flags, given=self.shares[name])
        yield self.evaluation(output)

    def evaluation(self, model: Path) -> Step:
        flags = ("--model", model, "--split", "test", "--full_ranking", "--output_dir", model / "evaluation-test")
        return python(f"evaluate {model.name}{self.mark}", "evaluate.py", *flags, given=self.shares["evaluate"])

    def llm(self, model: Model) -> Iterator[Step]:
        """E4SRec or a student, after the embeddings that it reads and the random backbone that it starts from."""
        source = self.conventional / model.reads
        embeddings = self.conventional / model.reads.replace("sasrec", "embeddings", 1)
        flags = ("--encoder", source, "--output_dir", embeddings)
        yield python(f"{embeddings.name}{self.mark}", "extract_emb.py", *flags, given=self.shares["embeddings"])
        base_model = yield from self.base_model(model)
        flags = ["--data", self.place.shared / "data", "--embeddings", embeddings, "--base_model", base_model]
        flags += ["--num_layers", model.layers, "--seed", self.number]
        flags += ["--guide", source] if model.reads != "sasrec" else []
        shell, stage, places = "run_finetune.sh", "teacher", [self.own / model.name]
        if model.stage == "distill":
            shell, stage = "run_distill.sh", "student"
            places.insert(0, "online" if model.teacher == "online" else self.own / model.teacher)
            flags += ["--teacher_layers", TEACHER] if model.teacher == "online" else []
        flags += [*self.shares[stage], *self.place.flags(model)]
        flags += teacher_cache(model, self.own, flags) if model.stage == "distill" else []
        yield script(f"{model.name}{self.mark}", self.place.dataset, shell, places, flags)

    def base_model(self, model: Model) -> Generator[Step, None, str | Path]:
        """The named base model, or the random backbone, after the step that makes it."""
        named = self.place.base_model
        if named and not model.random:
            return named
        base_model = self.own / ("backbone_random" if model.random else f"backbone_w{model.width}" if model.width else "backbone")
        flags = ["--output_dir", base_model, "--seed", self.number, *self.shares["backbone"]]
        flags += ["--like", named, "--num_layers", TEACHER] if model.random else []
        flags += ["--hidden_size", model.width] if model.width else []
        yield python(f"{base_model.name}{self.mark}", "-m slmrec.llm.make_backbone", *flags)
        return base_model

    def openp5(self, model: Model) -> Iterator[Step]:
        """Open-P5, which reads no embeddings."""
        flags = ["--data", self.place.shared / "data", "--base_model", (yield from self.base_model(model)), "--seed", self.number]
        flags += [*self.shares["openp5"], *self.place.flags(model)]
        yield script(f"{model.name}{self.mark}", self.place.dataset, "run_openp5.sh", [self.own / model.name], flags)


def with_teacher(models: list[Model]) -> list[Model]:
    """The models, after the teacher of their students where their table does not show it."""
    teacher = e4srec(TEACHER)
    needed = any(model.teacher == teacher.name for model in models) and teacher not in models
    return [teacher] * needed + models


def teacher_cache(model: Model, own: Path, flags: list[object]) -> list[object]:
    """With TEACHER_STATES set, a teacher's states on disk for all its students that compare states at the same layers."""
    given = dict(grouped(list(map(str, flags))))
    if not os.environ.get("TEACHER_STATES") or model.teacher == "online" or "lambda_attention" in given:
        return []
    blocks = given.get("num_blocks", [str(NUM_BLOCKS)])[-1]
    return ["--teacher_cache", own / "teacher_states" / f"{model.teacher}_{blocks}"]
