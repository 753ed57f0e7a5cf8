import pytest
import torch

from slmrec.catalogue_loss import catalogue_cross_entropy
from slmrec.distillation.arguments import DistillationArguments
from slmrec.distillation.joint import JointRecommender
from slmrec.distillation.objective import DistillationObjective
from slmrec.distillation.teacher import FrozenTeacher, LearningTeacher, TeacherSignals
from slmrec.errors import InputError
from slmrec.llm.backbone import plain_backbone
from slmrec.llm.ellmrec import Encoded

# Two items (1, 0) and (0, 1) after PAD. User vectors (0, 0) give both the chance 1/2: a cross-entropy of log 2.
# User vector (log 3, 0) gives the first item the chance 3/4: a cross-entropy of log 4/3 for it and of log 4 for the second.
ITEMS = torch.tensor([[5.0, 5.0], [1.0, 0.0], [0.0, 1.0]])
LOG3, LOG_4_3, LOG4 = (float(torch.tensor(x).log()) for x in (3.0, 4 / 3, 4.0))
BATCH = {"targets": torch.tensor([1, 2])}
# The states of test_losses.py: mean cosines 0.48 and 0, mean squared distances 15.5 and 6.5. A third block agrees: 1 and 0.
TEACHER = [
    torch.tensor([[3.0, 4.0, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0]]),
    torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]]),
    torch.tensor([[1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]]),
]
STUDENT = {
    2: torch.tensor([[4.0, 3.0, 0.0, 0.0], [0.0, 0.0, 0.0, 5.0]]),
    4: torch.tensor([[-2.0, 0.0, 0.0, 0.0], [2.0, 2.0, 2.0, 2.0]]),
    6: torch.tensor([[1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]]),
}
FIRST_TWO_DISTANCES = [(2**0.5 + 29**0.5) / 2, 2.5]


class FixedTeacher:
    learns = False

    def signals(self, batch, attention=False):
        return TeacherSignals(TEACHER)


class NoTeacher:
    learns = False

    def signals(self, batch, attention=False):
        raise AssertionError("the teacher was asked")


def fixed_student(batch, layers, attention=False):
    """CE: log 4/3 and log 4, mean 0.837. Block 1: log 2 for both users. Block 2: log 4/3 and log 4 again."""
    users = torch.tensor([[LOG3, 0.0], [LOG3, 0.0]])
    states = {layer: STUDENT[layer] for layer in layers}
    return Encoded(users, ITEMS, states, {2: torch.zeros(2, 2), 4: users})


CE = (LOG_4_3 + LOG4) / 2
MS = [float(torch.tensor(2.0).log()), CE]


def terms_of(teacher=None, **arguments):
    settings = DistillationArguments("teacher", num_blocks=3, **arguments)
    terms = DistillationObjective(teacher or FixedTeacher(), (2, 4, 6), settings)(fixed_student, BATCH)
    return {name: float(term) for name, term in terms.items()}


def test_equation_6_by_hand():
    expected = {"ce": CE, "cos": 1 - (0.48 + 0 + 1) / 3, "norm": (15.5 + 6.5 + 0) / 3, "ms": sum(MS) / 2}
    expected["loss"] = expected["ce"] + 0.5 * expected["cos"] + 0.01 * expected["norm"] + 0.1 * expected["ms"]
    assert terms_of(lambda_cos=0.5, lambda_norm=0.01, lambda_ms=0.1) == pytest.approx(expected)


def test_without_the_last_block():
    expected = {"ce": CE, "cos": 1 - (0.48 + 0) / 2, "norm": (15.5 + 6.5) / 2, "ms": sum(MS) / 2}
    expected["loss"] = CE + expected["cos"] + 0.1 * expected["norm"] + expected["ms"]
    assert terms_of(distill_last_block=False) == pytest.approx(expected)


def test_released_protocol_sums_over_blocks():
    expected = {"ce": CE, "cos": (1 - 0.48) + (1 - 0) + (1 - 1), "norm": sum(FIRST_TWO_DISTANCES), "ms": sum(MS)}
    expected["loss"] = CE + expected["cos"] + 0.1 * expected["norm"] + expected["ms"]
    assert terms_of(protocol="released") == pytest.approx(expected)


@pytest.mark.parametrize("enabled", [(), ("cos",), ("norm",), ("ms",), ("cos", "ms"), ("norm", "ms"), ("cos", "norm")])
def test_only_enabled_terms_are_there(enabled):
    terms = terms_of(**{f"lambda_{name}": 1.0 if name in enabled else 0.0 for name in ("cos", "norm", "ms")})
    assert terms.keys() == {"ce", "loss", *enabled}
    assert terms["loss"] == pytest.approx(sum(value for name, value in terms.items() if name != "loss"))


def test_the_teacher_is_not_asked_without_feature_terms():
    assert terms_of(NoTeacher(), lambda_cos=0, lambda_norm=0).keys() == {"ce", "ms", "loss"}
    with pytest.raises(AssertionError, match="the teacher was asked"):
        terms_of(NoTeacher(), lambda_cos=0, lambda_norm=1)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_blocks": 1}, "no intermediate block to supervise"),
        ({"num_blocks": 1, "lambda_ms": 0, "distill_last_block": False}, "leaves no block"),
        ({"lambda_cos": -1}, "--lambda_cos -1: must be at least 0"),
        ({"protocol": "other"}, "--protocol other: choose one of paper, released"),
        ({"lambda_logits": -2}, "--lambda_logits -2: must be at least 0"),
        ({"temperature": 0}, "--temperature 0: must be above 0"),
        ({"online": True}, "give either --teacher .* or --online"),
        ({"teacher_layers": 4}, "--teacher_layers is only for --online"),
        ({"teacher_cache": "cache", "lambda_attention": 1}, "holds states, not the attention weights"),
    ],
)
def test_settings_without_a_meaning_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        DistillationArguments("teacher", **arguments)
    with pytest.raises(InputError, match="give either --teacher .* or --online"):
        DistillationArguments()
    with pytest.raises(InputError, match="--teacher_cache is for a trained teacher"):
        DistillationArguments(online=True, teacher_cache="cache")


# -- with real models ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def pair(make_recommender):
    """pair(targets="last", supervised=(1,), **weights): a student of 2 layers, a teacher of 4 and the objective, in 2 blocks."""

    def build(targets="last", supervised=(1,), lora=False, **weights):
        closing = 0 if targets == "all" else 7
        student = make_recommender(2, lora=lora, targets=targets, closing=closing, supervised_layers=supervised)
        teacher_model = make_recommender(4, seed=1, lora=lora, lora_dropout=0.5, targets=targets, closing=closing)
        arguments = DistillationArguments("teacher", num_blocks=2, **weights)
        return student, DistillationObjective(FrozenTeacher(teacher_model, (2, 4)), (1, 2), arguments)

    return build


@pytest.mark.parametrize("targets", ["last", "all"])
@pytest.mark.parametrize("lora", [False, True])
def test_the_full_objective_reaches_every_student_tensor(pair, make_batch, targets, lora):
    student, objective = pair(targets, lora=lora)
    objective(student, make_batch([3, 8, 30, 1], targets))["loss"].backward()
    for name, parameter in student.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert student.block_projections["1"].weight.grad is not None


def test_terms_are_those_of_the_models_states(pair, make_batch):
    """Worked out here from the states of both models, block by block."""
    student, objective = pair("all")
    batch = make_batch([3, 8], "all")
    with torch.no_grad():
        terms = objective(student, batch)
        ours, theirs = student(batch, layers=(1, 2)), objective.teacher.model(batch, layers=(2, 4))
        cosines, squares = [], []
        for own, other in ((ours.states[1], theirs.states[2]), (ours.states[2], theirs.states[4])):
            assert own.shape == (11, 32)
            cosines += [(own * other).sum(1) / own.norm(dim=1) / other.norm(dim=1)]
            squares += [((own - other) ** 2).sum(1)]
        torch.testing.assert_close(terms["cos"], 1 - torch.stack(cosines).mean())
        torch.testing.assert_close(terms["norm"], torch.stack(squares).mean())
        torch.testing.assert_close(terms["ms"], catalogue_cross_entropy(ours.block_users[1], ours.items, batch["targets"]))


def test_a_student_that_is_its_teacher_has_only_its_own_loss(make_recommender, make_batch):
    model = make_recommender(4)
    arguments = DistillationArguments("teacher", num_blocks=2, lambda_ms=0)
    objective = DistillationObjective(FrozenTeacher(make_recommender(4), (2, 4)), (2, 4), arguments)
    terms = objective(model, make_batch([3, 8]))
    assert float(terms["cos"].detach()) == pytest.approx(0, abs=1e-6) and float(terms["norm"].detach()) == 0


def test_the_teacher_is_in_eval_mode_without_gradients_and_stays_as_it_was(pair, make_batch):
    student, objective = pair(lora=True)
    teacher, batch = objective.teacher.model, make_batch([3, 8, 30])
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    optimiser = torch.optim.AdamW(student.parameters(), lr=0.01)
    student.train()
    first = objective.teacher.signals(batch).blocks
    objective(student, batch)["loss"].backward()
    optimiser.step()
    assert not any(module.training for module in teacher.modules())
    assert all(not parameter.requires_grad and parameter.grad is None for parameter in teacher.parameters())
    assert not any(states.requires_grad for states in first)
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert all(map(torch.equal, objective.teacher.signals(batch).blocks, first))  # its dropout of 0.5 is off


@torch.no_grad()
def test_the_teacher_computes_its_prompt_once(make_recommender, make_batch):
    """62 tokens before the first batch; the states are those of a model that computes them for every batch."""
    teacher, plain, tokens = FrozenTeacher(make_recommender(4, lora=True), (2, 4)), make_recommender(4, lora=True).eval(), []
    first = plain_backbone(teacher.model.backbone).layers[0]
    first.register_forward_pre_hook(lambda _, inputs: tokens.append(inputs[0].shape[:2].numel()))
    for lengths in ([3, 8], [30, 1, 5]):
        batch = make_batch(lengths)
        signals, expected = teacher.signals(batch), plain(batch, layers=(2, 4))
        assert all(torch.equal(*pair) for pair in zip(signals.blocks, expected.states.values(), strict=True))
        assert torch.equal(signals.users, expected.users)
    assert tokens == [62, 3 + 8 + 2 * 7, 30 + 1 + 5 + 3 * 7]


def test_a_missing_adapter_is_an_error_and_not_a_missing_term(pair, make_batch):
    student, objective = pair(supervised=())
    with pytest.raises(KeyError):
        objective(student, make_batch([3, 8]))


def test_a_missing_teacher_block_is_an_error(pair, make_batch):
    student, objective = pair()
    objective.teacher.layers = (2,)
    with pytest.raises(ValueError):
        objective(student, make_batch([3, 8]))


# -- terms of other methods, and a teacher that learns --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["logits", "attention", "contrastive"])
def test_other_terms_stand_alone_and_reach_the_student(pair, make_batch, name):
    off = {"lambda_cos": 0, "lambda_norm": 0, "lambda_ms": 0}
    student, objective = pair("all", supervised=(), **off, **{f"lambda_{name}": 0.5})
    terms = objective(student, make_batch([3, 8], "all"))
    assert terms.keys() == {"ce", name, "loss"}
    torch.testing.assert_close(terms["loss"], terms["ce"] + 0.5 * terms[name])
    terms[name].backward()
    assert student.backbone.layers[1].self_attn.q_proj.weight.grad.abs().sum() > 0


def test_other_terms_vanish_for_a_student_that_is_its_teacher(make_recommender, make_batch):
    arguments = DistillationArguments("teacher", num_blocks=2, lambda_ms=0, lambda_logits=1, lambda_attention=1)
    objective = DistillationObjective(FrozenTeacher(make_recommender(4), (2, 4)), (2, 4), arguments)
    terms = objective(make_recommender(4), make_batch([3, 8]))
    assert float(terms["logits"].detach()) == pytest.approx(0, abs=1e-6)
    assert float(terms["attention"].detach()) == pytest.approx(0, abs=1e-6)


@pytest.fixture
def joint(make_recommender):
    """joint(**weights): a student of 2 layers and an untrained teacher of 4 as one model, and their objective in 2 blocks."""

    def build(**weights):
        model = JointRecommender(make_recommender(2, supervised_layers=(1,)), make_recommender(4, seed=1))
        arguments = DistillationArguments(online=True, num_blocks=2, **weights)
        return model, DistillationObjective(LearningTeacher(model.teacher, (2, 4)), (1, 2), arguments)

    return build


def test_the_online_objective_misses_no_term(joint, make_batch):
    model, objective = joint(lambda_norm=0.01, lambda_ms=0.5, lambda_logits=0.3)
    batch = make_batch([3, 8, 30])
    terms = objective(model, batch)
    assert terms.keys() == {"ce", "teacher_ce", "cos", "norm", "ms", "logits", "loss"}
    teacher = model.teacher(batch)
    torch.testing.assert_close(terms["teacher_ce"], catalogue_cross_entropy(teacher.users, teacher.items, batch["targets"]))
    weights = {"ce": 1, "teacher_ce": 1, "cos": 1, "norm": 0.01, "ms": 0.5, "logits": 0.3}
    torch.testing.assert_close(terms["loss"], sum(weight * terms[name] for name, weight in weights.items()))


@pytest.mark.parametrize("name", ["cos", "norm", "logits"])
def test_gradients_of_each_shared_term_reach_both_models(joint, make_batch, name):
    model, objective = joint(lambda_logits=1)
    objective(model, make_batch([3, 8, 30]))[name].backward()
    for part in (model.student, model.teacher):
        assert part.backbone.layers[0].mlp.up_proj.weight.grad.abs().sum() > 0


def test_each_next_item_loss_reaches_its_own_model_only(joint, make_batch):
    for name, reached, spared in (("ce", "student", "teacher"), ("teacher_ce", "teacher", "student")):
        model, objective = joint()
        objective(model, make_batch([3, 8, 30]))[name].backward()
        assert getattr(model, reached).user_projection.weight.grad.abs().sum() > 0
        assert all(parameter.grad is None for parameter in getattr(model, spared).parameters())


def test_without_shared_terms_a_learning_teacher_still_learns(joint, make_batch):
    model, objective = joint(lambda_cos=0, lambda_norm=0)
    assert objective(model, make_batch([3, 8])).keys() == {"ce", "ms", "teacher_ce", "loss"}


def test_the_joint_model_recommends_as_its_student(joint, make_batch):
    model, _ = joint()
    torch.testing.assert_close(model.encode(make_batch([3, 8])), model.student.encode(make_batch([3, 8])))


# -- a teacher of another width -------------------------------------------------------------------------------------------------


def test_states_are_compared_after_their_learned_map(make_recommender, make_batch):
    student = make_recommender(2, projected_layers={1: 48, 2: 48})
    teacher = make_recommender(4, seed=1, hidden_size=48)
    arguments = DistillationArguments("teacher", num_blocks=2, lambda_ms=0, project_states=True)
    objective = DistillationObjective(FrozenTeacher(teacher, (2, 4)), (1, 2), arguments)
    batch = make_batch([3, 8])
    terms = objective(student, batch)
    ours, theirs = student(batch, layers=(1, 2)).states, teacher(batch, layers=(2, 4)).states
    pairs = [(ours[1] @ student.state_projections["1"].weight.T, theirs[2])]
    pairs += [(ours[2] @ student.state_projections["2"].weight.T, theirs[4])]
    expected = torch.stack([((own - other) ** 2).sum(1).mean() for own, other in pairs]).mean()
    torch.testing.assert_close(terms["norm"], expected)
    terms["cos"].backward()
    assert student.state_projections["1"].weight.grad.abs().sum() > 0
