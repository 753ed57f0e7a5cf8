"""The benchmark: its counts of work against hand computation and torch's own counter, its timing, and a whole tiny run."""

import json
import statistics
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaModel

from reproduce.efficiency import __main__ as benchmark
from reproduce.efficiency import openp5_hours, paper_tables, speedups, timing, work
from reproduce.efficiency.arguments import BenchmarkArguments
from reproduce.efficiency.cases import Case, Models, split_batch
from reproduce.efficiency.memory import peak_memory
from reproduce.efficiency.speedups import encoding_work, teacher_work, tokens_computed
from reproduce.efficiency.workload import draw_lengths, make_workload, mean_history
from reproduce.published import TABLE_1, TABLE_5, TABLE_7
from slmrec.artifacts import write_json
from slmrec.data.dataset import load_dataset
from slmrec.distillation.teacher import FrozenTeacher
from slmrec.errors import InputError
from slmrec.llm.make_backbone import train_tokenizer

CPU = torch.device("cpu")
TINY = BenchmarkArguments(
    hidden_size=32,
    num_heads=2,
    num_layers=3,
    e4srec_layers=3,
    teacher_layers=2,
    student_layers=2,
    num_blocks=2,
    batch_size=8,
    num_items=60,
    repeats=1,
    device="cpu",
)


@pytest.fixture(scope="module")
def workload():
    return make_workload(TINY)


@pytest.fixture(scope="module")
def models(workload):
    return Models(TINY, workload.dataset.num_items, CPU)


# -- work ------------------------------------------------------------------------------------------------------------------------


def test_reference_work_by_hand():
    layer, shape = work.LayerShape(hidden=2, intermediate=3), work.RowShape(before=4, after=1, max_length=5)
    done = work.reference_work(layer, num_layers=2, num_rows=3, shape=shape)
    # 2 layers x 3 rows x 10 tokens; per token 4 products 2x2 and 3 products 2x3, 2 FLOPs each; attention: 10 keys, twice, width 2
    assert done.linear == 60 * 2 * (4 * 4 + 3 * 6)
    assert done.attention == 60 * 2 * 2 * 2 * 10
    assert done.lora == 0
    assert done.training(frozen=False) == 3 * done.forward
    assert done.training(frozen=True) == 2 * done.linear + 3 * done.attention


def test_tokens_by_hand():
    tokens = work.count_tokens(np.array([5, 30, 25, 20]), work.RowShape(before=62, after=7, max_length=30))
    assert tokens.reference == 4 * 99
    assert tokens.minimum == 62 + (12 + 37 + 32 + 27)
    # 37 + 32 stand in the first row of twice 37 slots, 27 + 12 in the second, each with two queries
    assert (tokens.packed_rows, tokens.width, tokens.queries) == (2, 74, 2)
    assert tokens.exact == 62 + 2 * 74
    kept = work.count_tokens(np.array([5]), work.RowShape(before=62, after=7, max_length=30), kept=True)
    assert (kept.prompt, kept.exact, kept.minimum, kept.width) == (0, 12, 12, 12)  # one history costs its own tokens


def test_minimum_work_by_hand():
    layer, shape = work.LayerShape(hidden=2, intermediate=3), work.RowShape(before=2, after=1, max_length=5)
    done = work.minimum_work(layer, 2, np.array([1, 2]), shape)  # rows of 2 and 3 tokens, 2 + 5 tokens in all
    assert done.linear == 7 * 68 + 7 * 16 + 2 * 52  # one whole layer; keys and values of the last; the rest of it for 2 tokens
    pairs = (1 + 2) + (3 + 4) + (3 + 4 + 5)  # prompt, then each row's tokens see 2 prompt tokens and themselves
    assert done.attention == 2 * 2 * 2 * (pairs + 4 + 5)
    kept = work.minimum_work(layer, 2, np.array([1, 2]), shape, kept=True)
    assert kept.linear == 5 * 68 + 5 * 16 + 2 * 52
    assert kept.attention == 2 * 2 * 2 * (pairs - 3 + 4 + 5)


@pytest.mark.parametrize("encoding", ["reference", "exact", "answering"])
@pytest.mark.parametrize("strategy", ["full", "lora"])
def test_counted_work_is_what_torch_counts(workload, encoding, strategy):
    arguments = replace(TINY, train_strategy=strategy, lora_r=4)
    models = Models(arguments, workload.dataset.num_items, CPU)
    batch = workload.batches("test", 30, 8, CPU)[0]
    step = models.step(Case(3, encoding, "forward"))
    step(batch)  # what only answers computes its prompt here
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # it does not know the CPU's fused attention
        step(batch)
    counted = encoding_work(models, Case(3, encoding, "forward"), 3, batch).forward
    heads = 2 * 32 * 128 * (len(batch["history"]) + len(batch["users"]))  # the two linear layers around the decoder
    assert counter.get_total_flops() == pytest.approx(counted + heads, rel=0.002)  # torch counts the rotary tables' products too


def test_a_frozen_teacher_keeps_its_prompt(models, workload):
    batch = workload.batches("train", 30, 8, CPU)[0]
    once = {encoding: encoding_work(models, Case(2, encoding, "train"), 2, batch) for encoding in ("reference", "exact")}
    kept = {encoding: teacher_work(models, Case(2, encoding, "train", "run"), batch, least=False) for encoding in once}
    layer = models.layer_shape()
    assert kept["reference"] == once["reference"]
    assert once["exact"].linear - kept["exact"].linear == 62 * (2 * layer.key_value + layer.others)  # of two layers


def test_hooks_see_the_tokens_that_are_predicted(models, workload):
    batches = workload.batches("test", 30, 8, CPU)
    seen = tokens_computed(models.recommender(3), batches)
    predicted = [work.count_tokens(batch["lengths"].numpy(), models.row_shape) for batch in batches]
    assert seen["reference_first_layer_per_row"] == seen["reference_last_layer_per_row"] == 99
    assert seen["exact_first_layer_per_row"] == sum(tokens.exact for tokens in predicted) / (8 * len(batches))
    assert seen["exact_last_layer_per_row"] == 1
    assert seen["token_ratio"] == pytest.approx(99 / seen["exact_first_layer_per_row"])


# -- users -----------------------------------------------------------------------------------------------------------------------


def test_mean_history_by_hand_and_by_drawing():
    assert mean_history(6.0, behind=1, max_length=4) == 4  # 5 actions or more: 4 items are always there
    assert mean_history(6.0, behind=1, max_length=6) == 4 + 0.5 + 0.25  # mean rest 1: P(rest >= k) = 1/2^k
    lengths = draw_lengths(np.random.default_rng(0), 11.5, 200_000)
    assert lengths.min() == 5
    assert lengths.mean() == pytest.approx(11.5, rel=0.01)
    assert mean_history(11.5, 3, 30) == pytest.approx(np.minimum(lengths - 3, 30).mean(), rel=0.01)


def test_users_of_a_data_set_are_its_own(tiny_data):
    sample = make_workload(replace(TINY, data=str(tiny_data))).dataset
    whole = load_dataset(tiny_data)
    theirs = {tuple(whole.sequence(user)) for user in range(whole.num_users)}
    assert {tuple(sample.sequence(user)) for user in range(sample.num_users)} <= theirs
    assert sample.num_items == whole.num_items


def test_too_few_users_for_a_batch(tiny_data):
    arguments = replace(TINY, data=str(tiny_data), batch_size=4000)
    with pytest.raises(InputError, match="48 test rows are less than a batch of 4000"):
        make_workload(arguments).batches("test", 30, 4000, CPU)


# -- steps -----------------------------------------------------------------------------------------------------------------------


def test_no_teacher_runs_while_a_cached_one_is_timed(models, workload, monkeypatch):
    batches, during = workload.batches("train", 30, 8, CPU), []
    signals = FrozenTeacher.signals

    def timed(sides, *_):
        during.clear()
        for repeat in range(4):
            sides["step"](repeat)

    monkeypatch.setattr(
        FrozenTeacher, "signals", lambda self, *given, **options: during.append(1) or signals(self, *given, **options)
    )
    monkeypatch.setattr(speedups, "in_turn", timed)
    for teacher, runs in (("cached", 0), ("run", 4)):
        speedups.time_cases(models, {"step": Case(2, "exact", "train", teacher)}, batches, 4, "test")
        assert len(batches) == 4 and len(during) == runs


def test_split_batch(make_batch):
    batch = make_batch([2, 1, 3])
    first, second = split_batch(batch, 2)
    assert first["history"].tolist() == batch["history"][:3].tolist()
    assert second["history"].tolist() == batch["history"][3:].tolist()
    assert second["targets"].tolist() == batch["targets"][2:].tolist()


CASES = [Case(3, "reference", "train"), Case(2, "exact", "train", "run"), Case(2, "exact", "train", "cached")]


@pytest.mark.parametrize("case", CASES)
def test_a_training_step_has_the_gradient_of_its_whole_batch(models, workload, case):
    batch = workload.batches("train", 30, 7, CPU)[0]
    gradients = []
    for micro in (None, 3):  # 7 rows as 3 + 3 + 1
        step = models.step(case)
        step.micro_batch_size = micro
        step.update = lambda: None
        step(batch)
        gradients.append([parameter.grad.clone() for parameter in step.parameters if parameter.grad is not None])
        step.optimiser.zero_grad()
    for whole, parts in zip(*gradients, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-5)


def test_steps_leave_the_weights(models, workload):
    step = models.step(Case(3, "exact", "train"))
    before = [parameter.clone() for parameter in step.parameters]
    step(workload.batches("train", 30, 8, CPU)[0])
    assert all(torch.equal(*pair) for pair in zip(before, step.parameters))


# -- timing ----------------------------------------------------------------------------------------------------------------------


def test_sides_take_turns_in_alternating_order():
    calls = []
    sides = {name: (lambda repeat, name=name: calls.append((name, repeat))) for name in "ab"}
    seconds = timing.in_turn(sides, 3, CPU, "test")
    assert [name for name, _ in calls[2:]] == ["a", "b", "b", "a", "a", "b"]  # the first call of each warms up
    assert [repeat for _, repeat in calls[2:]] == [0, 0, 1, 1, 2, 2]
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}


def test_processor_share_falls_while_waiting():
    share = timing.ProcessorShare()
    time.sleep(0.2)
    assert 0 <= share() < 0.5


def test_median_of_ratios():
    assert timing.median_ratio([4.0, 9.0, 10.0], [2.0, 3.0, 1.0]) == 3.0


def test_memory_of_the_loss_alone():
    measured = peak_memory(replace(TINY, num_items=100_000, batch_size=64), None)
    logits = 64 * 100_000 * 4 / 2**20  # MiB: held at least once
    assert logits * 0.9 < measured["step"] < 6 * logits
    assert measured["peak"] > measured["step"]


# -- the paper's tables ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", TABLE_7)
def test_table_5_is_the_mean_of_table_7(method):
    for column, digits in ((0, 2), (1, 3)):
        mean = statistics.mean(hours[column] for hours in TABLE_7[method].values())
        assert TABLE_5[method][column] == pytest.approx(mean, rel=1e-3, abs=0.6 * 10**-digits)


def test_parameters_at_llama_shape_are_those_of_table_5():
    counts = paper_tables.llama_parameters(TINY)
    for ours, theirs in (("E4SRec_32", "E4SRec"), ("SLMRec_4", "SLMRec_4<-8")):
        assert round(counts[ours]["trained_parameters"] / 1e9, 3) == TABLE_5[theirs][2]
        assert round(counts[ours]["parameters"] / 1e9, 3) == TABLE_5[theirs][3]


def test_extrapolated_hours_by_hand(models, workload):
    cost = paper_tables.SecondsPerRow(train=0.01, loss=0.002, infer=0.004, ranking=0.001, layers=2, exact=False)
    rows = list(paper_tables.table_7(models, workload, {"ours": cost}).values())[1]["ours"]
    users, items = TABLE_1["Music"].users, TABLE_1["Music"].items
    assert rows["Music"] == pytest.approx([users * (0.01 + 0.002 * items / 60) / 3600, users * 0.005 / 3600])
    longer = list(paper_tables.table_7(models, workload, {"ours": replace(cost, exact=True)}).values())[1]["ours"]
    assert longer["Music"][1] > rows["Music"][1]  # 12.8 actions a user where 9 were measured
    assert longer["Sport"] == pytest.approx(rows["Sport"])  # its mean length is unknown


def test_hours_of_an_open_p5_by_hand(models, workload, tmp_path, monkeypatch):
    directory = tmp_path / "openp5"
    stages = {
        directory: {"stage": "openp5", "device": "cpu", "digest": "d", "config": {"num_layers": 4}},
        directory / "generation-test": {"stage": "generation", "device": "cpu"},
    }
    stages[directory]["config"] |= {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}
    monkeypatch.setattr(openp5_hours, "read_manifest", lambda place, stage: stages[place])
    monkeypatch.setattr(openp5_hours, "input_directory", lambda place, name: tmp_path)
    with pytest.raises(InputError, match="reproduce.analysis.generation --model .* has to run first"):
        openp5_hours.openp5_costs(directory, CPU)
    (directory / "generation-test").mkdir(parents=True)
    ways = {"exact scores": {"seconds_per_user": 0.5}, "1000 beams": {"seconds_per_user": 36.0}}
    write_json(directory / "generation-test/metrics.json", {"ways": ways})
    trained = {"steps": 10, "train_seconds": 320.0, "parameters": 7, "trained_parameters": 3}
    write_json(directory / "metrics.json", trained)
    write_json(tmp_path / "stats.json", {"mean_length": 8.0})
    costs = openp5_hours.openp5_costs(directory, CPU)
    music, sport, per_prefix = TABLE_1["Music"], TABLE_1["Sport"], 2
    in_music = [per_prefix * (music.ratings - 3 * music.users) / 3600, music.users / 100]
    assert costs.hours["Open-P5_4 1000 beams"]["Music"] == pytest.approx(in_music)
    in_sport = [per_prefix * 5 * sport.users / 3600, sport.users / 7200]  # whose mean length is unknown
    assert costs.hours["Open-P5_4 exact scores"]["Sport"] == pytest.approx(in_sport)
    assert costs.parameters == {"Open-P5_4": {"parameters": 7, "trained_parameters": 3}} and costs.digest == "d"
    with pytest.raises(InputError, match="its openp5 ran on cpu, this benchmark runs on cuda"):
        openp5_hours.openp5_costs(directory, torch.device("cuda"))
    detailed = paper_tables.table_7(models, workload, {}, costs.hours)
    assert list(paper_tables.table_5(detailed, costs.parameters).values())[1].keys() == costs.hours.keys()


# -- the command -----------------------------------------------------------------------------------------------------------------


def flags(**changes):
    chosen = {
        "hidden_size": 32,
        "num_heads": 2,
        "num_layers": 3,
        "e4srec_layers": 3,
        "teacher_layers": 2,
        "student_layers": 2,
        "num_blocks": 2,
        "batch_size": 16,
        "num_items": 2000,
        "repeats": 2,
        "device": "cpu",
    } | changes
    words = {name: value if isinstance(value, list) else [str(value)] for name, value in chosen.items()}
    return [text for name, values in words.items() for text in (f"--{name}", *values)]


def test_a_whole_run(tmp_path, capsys):
    file, plot = tmp_path / "made" / "result.json", tmp_path / "plot.png"
    benchmark.main(flags(parts=["encoding", "models", "shares", "precision"], json=file, plot=plot))
    result = json.loads(file.read_text())
    for mode in ("forward", "train"):
        assert result[f"{mode}_speedup"] > 1
        assert result[f"predicted_{mode}_speedup"] > 3
        assert result[f"{mode}_achieved"] == pytest.approx(result[f"{mode}_speedup"] / result[f"predicted_{mode}_speedup"])
    assert result["token_ratio"] > 3
    assert result["max_abs_diff"] < 1e-5 and result["models"]["max_abs_diff"] < 1e-5
    gflop = {part: result["encoding"][part]["gflop"] for part in ("forward", "answering")}
    assert gflop["answering"]["answering"] < gflop["forward"]["exact"] and result["encoding"]["answering"]["speedup"] > 1
    assert 0 < result["precision"]["relative_difference"] < 0.1
    for shares in result["shares"].values():
        assert sum(shares["share"].values()) == pytest.approx(1)
    assert result["environment"]["command"].startswith("python -m reproduce.efficiency --hidden_size 32")
    assert plot.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    for words in (
        "Tokens per row: reference",
        "shares of time",
        "precision",
        "SLMRec_2<-2 exact, cached teacher",
        "Table 5",
        "Table 7",
        "Table 8",
    ):
        assert words in printed
    assert printed.startswith("Users: invented")
    assert ("times are rough" in printed) == (result["processor_share"] < 0.9)


def test_a_plot_alone(tmp_path, capsys):
    benchmark.main(flags(parts=["encoding"], plot=tmp_path / "plot.png"))
    assert (tmp_path / "plot.png").is_file()
    assert "Table 5" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parts": ["speed"]}, "--parts speed: choose one of"),
        ({"mean_length": 4}, "--mean_length 4: must be above 5"),
        ({"num_blocks": 3}, "--num_blocks 3 does not divide --teacher_layers 2"),
        ({"precision": "fp8"}, "--precision fp8: choose one of fp32, bf16"),
        ({"repeats": 0}, "--repeats 0: must be at least 1"),
        ({"data": "/nowhere"}, "/nowhere: no such directory"),
    ],
)
def test_bad_input(changes, message):
    with pytest.raises(InputError, match=message):
        benchmark.main(flags(**changes))


def test_a_real_base_model_gives_shape_weights_and_prompt(tmp_path):
    """Grouped queries, and a prompt that its own tokenizer makes: the tokens that the hooks see are those that are counted."""
    base = tmp_path / "base"
    config = LlamaConfig(vocab_size=170, hidden_size=32, intermediate_size=40, num_hidden_layers=4, num_attention_heads=4)
    config.num_key_value_heads = 2
    LlamaModel(config).save_pretrained(base)
    train_tokenizer().save_pretrained(base)
    file = tmp_path / "result.json"
    changes = {"base_model": base, "train_strategy": "lora", "num_layers": 4, "e4srec_layers": 4, "repeats": 1}
    benchmark.main(flags(parts=["encoding", "models"], json=file, **changes))
    result = json.loads(file.read_text())
    assert result["max_abs_diff"] < 1e-5 and result["models"]["max_abs_diff"] < 1e-5
    assert result["encoding"]["tokens"]["reference_first_layer_per_row"] == 99
    assert (
        result["configuration"]["base_model"]["base_model"] == "base"
        and len(result["configuration"]["base_model"]["digest"]) == 64
    )
    assert (result["configuration"]["intermediate_size"], result["configuration"]["num_key_value_heads"]) == (40, 2)
    weights = 4 * (32 * 32 * 2 + 2 * 32 * 16 + 3 * 32 * 40 + 2 * 32) + 170 * 32 + 32
    adapters = 4 * 3 * 16 * (32 + 40)
    assert result["parameters"]["E4SRec_4"] == {"parameters": weights + adapters, "trained_parameters": adapters}


def test_work_of_grouped_queries():
    """By hand, d = 4 with half as many key heads: k and v are 4 x 2 each."""
    assert work.LayerShape(hidden=4, intermediate=6, key_share=0.5).key_value == 2 * (4 * 2) * 2
