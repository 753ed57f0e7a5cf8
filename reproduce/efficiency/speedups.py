"""What is compared with what: the two encodings, E4SRec with SLMRec, and the two precisions.

A forward pass of the two encodings is one of the same model. Where E4SRec as published is compared with SLMRec, SLMRec answers as
`evaluate.py` asks it: its weights are final, so adapters are merged and the prompt's keys and values kept.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import numpy as np
import torch

from reproduce.efficiency import work
from reproduce.efficiency.cases import EMBEDDING_SIZE, SLMREC_ENCODING, Case, Models
from reproduce.efficiency.timing import DTYPES, Seconds, in_turn, matrix_product_rate, median_ratio
from reproduce.efficiency.workload import Workload
from slmrec.data.batches import Batch
from slmrec.llm.backbone import count_parameters, plain_backbone
from slmrec.llm.ellmrec import EllmRecommender


def compare_encodings(models: Models, workload: Workload, repeats: int) -> dict:
    """Reference against exact for one model on test rows: user vectors, tokens, forward pass and training step, answering."""
    arguments = models.arguments
    model, layers = models.recommender(arguments.num_layers), arguments.num_layers
    batches = {mode: _batches(models, workload, mode, "test") for mode in ("forward", "train")}
    sides = {"forward": "exact", "train": "exact", "answering": "answering"}
    result: dict = {"max_abs_diff": largest_difference(models, batches["forward"][0], layers)}
    result["tokens"] = tokens_computed(model, batches["forward"])
    ceiling = matrix_product_rate(models.device, DTYPES[arguments.precision])
    for part, fast in sides.items():
        mode = "train" if part == "train" else "forward"
        cases = {encoding: Case(layers, encoding, mode) for encoding in ("reference", fast)}
        seconds = time_cases(models, cases, batches[mode], repeats, f"encodings: {part}")
        flops = {name: _flops(models, case, batches[mode]) for name, case in cases.items()}
        result[part] = _speedup(seconds, flops, "reference", fast)
        result[part]["utilisation"] = _utilisation(models, cases[fast], batches[mode], seconds[fast], ceiling)
    return result | {"matrix_product_gflops": ceiling / 1e9}


def compare_models(models: Models, workload: Workload, repeats: int) -> dict:
    """E4SRec_l as published (reference encoding) against SLMRec, by depth alone and with exact encoding."""
    arguments = models.arguments
    layers = arguments.student_layers
    base, student = f"E4SRec_{arguments.e4srec_layers} reference", f"SLMRec_{layers}<-{arguments.teacher_layers}"
    ceiling = matrix_product_rate(models.device, DTYPES[arguments.precision])
    result: dict = {"baseline": base}
    for mode, split in (("forward", "test"), ("train", "train")):
        cases = {base: Case(arguments.e4srec_layers, "reference", mode)}
        cases[f"{student} reference"] = Case(layers, "reference", mode, "run")
        cases[f"{student} exact"] = Case(layers, SLMREC_ENCODING[mode], mode, "run")
        if mode == "train":
            cases[f"{student} exact, cached teacher"] = Case(layers, "exact", mode, "cached")
        batches = _batches(models, workload, mode, split)
        seconds = time_cases(models, cases, batches, repeats, f"models: {mode}")
        flops = {name: _flops(models, case, batches) for name, case in cases.items()}
        result[mode] = {name: _speedup(seconds, flops, base, name) for name in cases if name != base}
        if mode == "forward":
            result["max_abs_diff"] = largest_difference(models, batches[0], layers, "answering")
        for name, entry in result[mode].items():
            entry["utilisation"] = _utilisation(models, cases[name], batches, seconds[name], ceiling)
    return result


def compare_precisions(models: Models, workload: Workload, repeats: int) -> dict:
    """float32 against bf16 mixed precision, exact encoding, on train and test rows."""
    arguments = models.arguments
    rates = {name: matrix_product_rate(models.device, dtype) / 1e9 for name, dtype in DTYPES.items()}
    result: dict = {"matrix_product_gflops": rates}
    for mode, split in (("forward", "test"), ("train", "train")):
        batches = _batches(models, workload, mode, split)
        case = Case(arguments.num_layers, "exact", mode)
        steps = {precision: models.step(case, precision) for precision in DTYPES}
        if mode == "forward":
            vectors = {precision: step(batches[0]).float() for precision, step in steps.items()}
            result["relative_difference"] = float((vectors["bf16"] - vectors["fp32"]).norm() / vectors["fp32"].norm())
        seconds = in_turn(_over(steps, batches), repeats, models.device, f"precisions: {mode}")
        result[mode] = {"seconds": _medians(seconds), "bf16_speedup": median_ratio(seconds["fp32"], seconds["bf16"])}
    return result


def parameters(models: Models) -> dict:
    """Parameters of the decoders with their adapters, as Table 5 counts them (no lm_head, no heads of ours)."""
    e4srec, student = models.arguments.e4srec_layers, models.arguments.student_layers
    depths = {f"E4SRec_{e4srec}": e4srec, f"SLMRec_{student}": student}
    return {name: count_parameters(models.recommender(layers).backbone) for name, layers in depths.items()}


def largest_difference(models: Models, batch: Batch, layers: int, fast: str = "exact") -> float:
    """Largest absolute difference between the user vectors of the reference encoding and of a faster one."""
    vectors = [models.step(Case(layers, encoding, "forward"))(batch) for encoding in ("reference", fast)]
    return float((vectors[0] - vectors[1]).abs().max())


def tokens_computed(model: EllmRecommender, batches: list[Batch]) -> dict:
    """Tokens per row that go through the first and the last decoder layer's MLP, seen by hooks, beside the least possible."""
    rows = sum(len(batch["users"]) for batch in batches)
    shape = work.RowShape(len(model.before), len(model.after), model.max_length)
    counts = {encoding: _seen_tokens(model, encoding, batches) for encoding in ("reference", "exact")}
    minimum = sum(work.count_tokens(batch["lengths"].cpu().numpy(), shape).minimum for batch in batches)
    seen = {f"{name}_first_layer_per_row": pair[0] / rows for name, pair in counts.items()}
    seen |= {f"{name}_last_layer_per_row": pair[1] / rows for name, pair in counts.items()}
    return seen | {
        "minimum_per_row": minimum / rows,
        "token_ratio": counts["reference"][0] / counts["exact"][0],
        "exact_over_minimum": counts["exact"][0] / minimum,
        "mean_history": sum(int(batch["lengths"].sum()) for batch in batches) / rows,
        "batch_size": len(batches[0]["users"]),
    }


def time_cases(models: Models, cases: dict[str, Case], batches: list[Batch], repeats: int, title: str) -> Seconds:
    steps = {name: models.step(case) for name, case in cases.items()}
    for name, case in cases.items():
        if case.teacher == "cached":  # the cache of every batch is filled before anything is timed
            for batch in batches:
                steps[name](batch)
    return in_turn(_over(steps, batches), repeats, models.device, title)


def _seen_tokens(model: EllmRecommender, encoding: str, batches: list[Batch]) -> tuple[int, int]:
    layers, seen = plain_backbone(model.backbone).layers, [0, 0]

    def counter(place: int) -> Callable:
        def count(_, inputs: tuple[torch.Tensor]) -> None:
            seen[place] += inputs[0].shape[:-1].numel()

        return count

    hooks = [layers[index].mlp.register_forward_pre_hook(counter(place)) for place, index in enumerate((0, -1))]
    model.encoding = encoding
    with torch.inference_mode(), torch.autocast(model.item_embeddings.device.type, torch.bfloat16):  # counts are the same
        for batch in batches:
            model.encode(batch)
    for hook in hooks:
        hook.remove()
    return seen[0], seen[1]


def _over(steps: dict[str, Callable[[Batch], object]], batches: list[Batch]) -> dict[str, Callable[[int], object]]:
    """Each step as a function of the repeat, which chooses the batch."""
    return {name: lambda repeat, step=step: step(batches[repeat % len(batches)]) for name, step in steps.items()}


def _batches(models: Models, workload: Workload, mode: str, split: str) -> list[Batch]:
    arguments = models.arguments
    size = arguments.infer_batch_size if mode == "forward" else arguments.train_batch_size
    return workload.batches(split, arguments.max_length, size, models.device)


def _flops(models: Models, case: Case, batches: list[Batch], least: bool = False) -> float:
    """FLOPs of one step of `case`, mean over the batches."""
    return float(np.mean([_batch_flops(models, case, batch, least) for batch in batches]))


def _batch_flops(models: Models, case: Case, batch: Batch, least: bool) -> float:
    done = encoding_work(models, case, case.layers, batch, least)
    if case.mode == "forward":
        return done.forward
    losses = models.arguments.num_blocks if case.teacher else 1
    loss = work.loss_flops(len(batch["users"]), models.num_items, EMBEDDING_SIZE)
    teacher = teacher_work(models, case, batch, least).forward if case.teacher == "run" else 0.0
    return done.training(frozen=models.arguments.train_strategy == "lora") + losses * loss + teacher


def _utilisation(models: Models, case: Case, batches: list[Batch], seconds: list[float], ceiling: float) -> float:
    """Model FLOP utilisation: the arithmetic that the result needs at least, per second, over what matrix products reach."""
    return _flops(models, case, batches, least=True) / statistics.median(seconds) / ceiling


def teacher_work(models: Models, case: Case, batch: Batch, least: bool) -> work.Work:
    """Of a frozen teacher, which with exact encoding keeps its prompt."""
    return encoding_work(models, case, models.arguments.teacher_layers, batch, least, kept=case.encoding == "exact")


def encoding_work(
    models: Models, case: Case, layers: int, batch: Batch, least: bool = False, kept: bool | None = None
) -> work.Work:
    """What the encoding of `case` computes of a batch, or the `least` that would give the same.

    `kept`: the prompt's keys and values are there already, by default where the model only answers.
    """
    lengths, shape, final = batch["lengths"].cpu().numpy(), models.row_shape, case.encoding == "answering"
    layer, kept = models.layer_shape(merged=final), final if kept is None else kept
    if least:
        return work.minimum_work(layer, layers, lengths, shape, kept)
    if case.encoding == "reference":
        return work.reference_work(layer, layers, len(lengths), shape)
    return work.exact_work(layer, layers, len(lengths), shape, work.count_tokens(lengths, shape, kept))


def _speedup(seconds: Seconds, flops: dict[str, float], slow: str, fast: str) -> dict:
    measured, predicted = median_ratio(seconds[slow], seconds[fast]), flops[slow] / flops[fast]
    return {
        "seconds": {name: statistics.median(seconds[name]) for name in (slow, fast)},
        "gflop": {name: flops[name] / 1e9 for name in (slow, fast)},
        "speedup": measured,
        "predicted": predicted,
        "achieved": measured / predicted,
    }


def _medians(seconds: Seconds) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in seconds.items()}
