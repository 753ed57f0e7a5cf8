import pytest
import torch
from accelerate.data_loader import SeedableRandomSampler
from transformers import TrainerCallback

from slmrec.data import batches
from slmrec.data.batches import ShuffledRows, SplitRows
from slmrec.data.dataset import load_dataset
from slmrec.distillation.arguments import DistillationArguments
from slmrec.distillation.objective import DistillationObjective
from slmrec.distillation.teacher import FrozenTeacher
from slmrec.evaluation.protocol import Evaluation
from slmrec.llm.ellmrec import next_item_objective
from slmrec.training import trainer as trainer_module
from slmrec.training.arguments import LlmTrainingArguments
from slmrec.training.trainer import RecommenderTrainer, hugging_face_arguments


class KeepGradients(TrainerCallback):
    """Copies of the gradients that reached the optimiser, one dictionary per step."""

    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.steps.append({name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad})


@pytest.fixture
def train(tiny_data, make_recommender, tmp_path):
    """train(targets, objective, **settings): a trainer that has trained a fresh model, and the gradients of its steps."""

    def run(targets="last", objective=next_item_objective, supervised_layers=(), callback=None, **settings):
        closing = 0 if targets == "all" else 7
        model = make_recommender(2, targets=targets, closing=closing, supervised_layers=supervised_layers)
        chosen = {"max_steps": 1, "warmup_steps": 0, "save_steps": 50, "learning_rate": 0.01, "max_grad_norm": 0.0}
        arguments = LlmTrainingArguments(**chosen | {"num_candidates": 20, "device": "cpu"} | settings)
        directory = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        rows = SplitRows(load_dataset(tiny_data), "train", 30, targets)
        trainer = RecommenderTrainer(
            model,
            hugging_face_arguments(arguments, directory, bf16=False),
            objective=objective,
            rows=rows,
            settings=arguments,
            base_model="none",
        )
        gradients = KeepGradients()
        trainer.add_callback(gradients)
        if callback:
            trainer.add_callback(callback)
        trainer.train()
        return trainer, gradients.steps

    return run


@pytest.mark.parametrize("targets", ["last", "all"])
def test_accumulated_batches_give_the_gradients_of_the_whole(train, targets):
    """Also where the batches hold different numbers of targets: with "all", every user has another number."""
    whole_run, (whole,) = train(targets, per_device_train_batch_size=8)
    parts_run, (parts,) = train(targets, per_device_train_batch_size=4, gradient_accumulation_steps=2)
    for name, gradient in whole.items():
        assert (parts[name] - gradient).norm() <= 1e-4 * gradient.norm(), name
    logged = [run.state.log_history[0] for run in (whole_run, parts_run)]
    for term in ("loss", "loss_ce"):
        assert logged[1][term] == pytest.approx(logged[0][term], rel=1e-5)


def test_accumulation_over_a_short_last_batch(train):
    """48 users in batches of 32, or of 16 taken by twos: the second step of the epoch has 16 users, in one batch, either way."""
    whole_run, whole = train("all", per_device_train_batch_size=32, max_steps=2)
    parts_run, parts = train("all", per_device_train_batch_size=16, gradient_accumulation_steps=2, max_steps=2)
    assert len(whole) == len(parts) == 2
    for (name, expected), gradient in zip(whole[0].items(), parts[0].values(), strict=True):
        assert (gradient - expected).norm() <= 1e-4 * expected.norm(), name
    assert parts_run.state.log_history[1]["loss"] == pytest.approx(whole_run.state.log_history[1]["loss"], rel=1e-3)


def test_gradients_are_those_of_the_objective(train, tiny_data, make_recommender):
    """One step of plain gradient on the batch that the trainer saw."""
    seen = []

    def objective(model, batch):
        seen.append(batch)
        return next_item_objective(model, batch)

    _, (gradients,) = train("last", objective, per_device_train_batch_size=8)
    (batch,) = seen
    assert batch["lengths"].shape == (8,)
    model = make_recommender(2)
    next_item_objective(model, batch)["loss"].backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, msg=lambda text, name=name: f"{name}: {text}")


@pytest.fixture
def distillation(make_recommender):
    teacher = FrozenTeacher(make_recommender(4, targets="all", closing=0, seed=1), (2, 4))
    return DistillationObjective(teacher, (1, 2), DistillationArguments("teacher", num_blocks=2))


def test_every_term_is_logged_under_its_name(train, distillation):
    trainer, _ = train("all", distillation, (1,), per_device_train_batch_size=8, max_steps=2)
    for entry in trainer.state.log_history[:2]:
        assert {name for name in entry if name.startswith("loss")} == {"loss", "loss_ce", "loss_cos", "loss_norm", "loss_ms"}
        total = entry["loss_ce"] + entry["loss_cos"] + 0.1 * entry["loss_norm"] + entry["loss_ms"]
        assert entry["loss"] == pytest.approx(total, rel=1e-5)


def test_logged_terms_add_up_over_accumulated_batches_of_different_size(train, distillation):
    settings = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "max_steps": 4, "logging_steps": 2}
    trainer, _ = train("all", distillation, (1,), **settings)
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["step"] for entry in entries] == [2, 4]
    for entry in entries:
        total = entry["loss_ce"] + entry["loss_cos"] + 0.1 * entry["loss_norm"] + entry["loss_ms"]
        assert entry["loss"] == pytest.approx(total, rel=1e-5)


def test_the_order_of_an_epoch_is_that_of_accelerates_sampler(monkeypatch):
    monkeypatch.setattr(batches, "LISTED", 4)  # several lists, the last of them short
    ours, theirs = ShuffledRows(10, seed=3), SeedableRandomSampler(range(10), data_seed=3)
    assert [list(ours), list(ours)] == [list(theirs), list(theirs)]
    for sampler in (ours, theirs):
        sampler.set_epoch(5)
    assert list(ours) == list(theirs) and sorted(ours) == list(range(10)) and len(ours) == 10


def test_the_best_validation_mrr_is_what_is_kept(train, monkeypatch):
    """Validation is made to answer 0.1, 0.3, 0.2; the weights at the second one must be those of the trained model."""
    mrr, weights = [0.1, 0.3, 0.2], []

    def evaluate(model, dataset, split, **settings):
        assert split == "valid" and settings["num_candidates"] == 20
        weights.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        names = ("HR@1", "HR@5", "HR@10", "NDCG@5", "NDCG@10")
        return Evaluation({"sampled": dict.fromkeys(names, 0.0) | {"MRR": mrr[len(weights) - 1]}}, {}, {})

    monkeypatch.setattr(trainer_module, "evaluate_recommender", evaluate)
    trainer, _ = train(per_device_train_batch_size=8, max_steps=6, save_steps=2)
    assert len(weights) == 3 and trainer.state.best_metric == 0.3
    final = trainer.model.state_dict()
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in final.items())
    assert not all(torch.equal(tensor, weights[2][name]) for name, tensor in final.items())


def test_a_run_shorter_than_save_steps_is_validated_at_its_end(train):
    trainer, _ = train(max_steps=3, save_steps=50, per_device_train_batch_size=8)
    assert [entry["step"] for entry in trainer.state.log_history if "eval_MRR" in entry] == [3]


def test_checkpoints_hold_no_item_embeddings_and_no_pickled_model(train, tmp_path):
    train(max_steps=2, save_steps=2, per_device_train_batch_size=8)
    names = {path.name for path in tmp_path.glob("run*/checkpoint-2/*")}
    assert names >= {"recommender.json", "heads.safetensors", "backbone", "trainer_state.json", "optimizer.pt"}
    assert not names & {"item_embeddings.safetensors", "training_args.bin", "pytorch_model.bin"}


def test_training_arguments_reach_the_trainer(tmp_path):
    ours = LlmTrainingArguments(adam_beta2=0.98, lr_scheduler_type="linear", weight_decay=0.1, save_steps=7, device="cpu", seed=5)
    theirs = hugging_face_arguments(ours, tmp_path, bf16=False)
    assert (theirs.adam_beta2, theirs.weight_decay, theirs.seed, theirs.lr_scheduler_type) == (0.98, 0.1, 5, "linear")
    assert theirs.save_steps == theirs.eval_steps == 7 and theirs.device.type == "cpu" and theirs.optim.startswith("adamw")
    default = hugging_face_arguments(LlmTrainingArguments(device="cpu"), tmp_path, bf16=False)
    assert (default.lr_scheduler_type, default.max_grad_norm, default.adam_beta1) == ("cosine", 1.0, 0.9)
