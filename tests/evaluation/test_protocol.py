import logging
import math

import numpy as np
import pytest
import torch

from slmrec.data.candidates import draw_candidates
from slmrec.data.dataset import PAD, SequenceDataset
from slmrec.errors import InputError
from slmrec.evaluation import protocol
from slmrec.evaluation.protocol import evaluate_recommender
from slmrec.progress import STAGE
from slmrec.recommender import Recommender


class TableRecommender(Recommender):
    """Scores read from a table [U, N + 1]: a user's vector is a one-hot row, so that every dot product is exact."""

    max_length = 4

    def __init__(self, table):
        super().__init__()
        self.table = torch.as_tensor(table, dtype=torch.float32)
        self.dropout = torch.nn.Dropout(0.9)
        self.frozen = torch.nn.Dropout(0.9)
        self.frozen.eval()

    def encode(self, batch):
        return self.dropout(torch.eye(len(self.table))[batch["users"]])

    def item_matrix(self):
        return self.table.T


class MeanRecommender(Recommender):
    """User vector = mean of the history's random item vectors; nothing but the batch's own rows enters."""

    max_length = 3

    def __init__(self, num_items: int, width: int = 8):
        super().__init__()
        self.items = torch.randn(num_items + 1, width, generator=torch.Generator().manual_seed(0))

    def encode(self, batch):
        rows = torch.split(batch["history"], batch["lengths"].tolist())
        return torch.stack([self.items[row].mean(0) for row in rows])

    def item_matrix(self):
        return self.items


def make_dataset(sequences: list[list[int]], num_items: int) -> SequenceDataset:
    offsets = np.cumsum([0] + [len(sequence) for sequence in sequences])
    return SequenceDataset(np.array(sum(sequences, []), dtype=np.int32), offsets, num_items)


def random_dataset(num_users: int, num_items: int, seed: int = 0) -> SequenceDataset:
    generator = np.random.default_rng(seed)
    sequences = [generator.integers(1, num_items + 1, generator.integers(3, 12)).tolist() for _ in range(num_users)]
    return make_dataset(sequences, num_items)


# One user touched 1, 2, 3 (test target 3, validation target 2); items 4..7 are the rivals.
ONE_USER = make_dataset([[1, 2, 3]], 7)
#        PAD  1  2  3  4  5  6  7
SCORES = [9.0, 8, 6, 5, 5, 4, 7, 1]


def both_ranks(dataset, table, split="test", **settings):
    ranks = evaluate_recommender(TableRecommender(table), dataset, split, full_ranking=True, **settings).ranks
    return ranks["sampled"].tolist(), ranks["full"].tolist()


def test_ranks_by_hand():
    # test target 3 scores 5: item 4 ties (counts), item 6 is ahead; touched 1 and 2 and PAD would be ahead but do not count
    assert both_ranks(ONE_USER, [SCORES]) == ([3], [3])
    # validation target 2 scores 6: only item 6 is ahead
    assert both_ranks(ONE_USER, [SCORES], "valid") == ([2], [2])


def test_full_ranking_of_validation_does_not_look_ahead():
    # validation target 2 scores 6; the test item 3 (9) has not been seen yet, so it is a rival, though never a sampled candidate
    scores = [9.0, 8, 6, 9, 5, 4, 7, 1]
    assert both_ranks(ONE_USER, [scores], "valid") == ([2], [3])


def test_two_users_of_unlike_length_keep_their_own_ranks():
    dataset = make_dataset([[1, 2, 3], [7, 6, 5, 4, 3, 2]], 7)
    # user 1: target 2, untouched rival 1 only, which scores higher
    assert both_ranks(dataset, [SCORES, SCORES]) == ([3, 2], [3, 2])


def test_constant_scores_give_the_last_rank():
    assert both_ranks(ONE_USER, np.zeros((1, 8))) == ([5], [5])


def test_target_that_was_touched_before_is_not_masked():
    dataset = make_dataset([[3, 1, 3]], 7)
    # target 3 scores 5: untouched 2 (6), 4 (5), 6 (7) are at least as high; item 1 (8) is masked; 3 itself counts once, as target
    assert both_ranks(dataset, [SCORES]) == ([4], [4])


def test_rank_among_drawn_candidates_only():
    dataset = random_dataset(30, 300)
    table = np.random.default_rng(1).integers(0, 50, (30, 301)).astype(float)  # many ties
    evaluation = evaluate_recommender(TableRecommender(table), dataset, "test", seed=5, num_candidates=40, full_ranking=True)
    for user in range(30):
        sequence = dataset.sequence(user)
        drawn = draw_candidates(5, "test", np.array([user]), sequence, np.array([len(sequence)]), 300, 40)[0]
        rivals = np.setdiff1d(np.arange(1, 301), sequence)
        target = table[user, sequence[-1]]
        assert evaluation.ranks["sampled"][user] == 1 + (table[user, drawn] >= target).sum()
        assert evaluation.ranks["full"][user] == 1 + (table[user, rivals] >= target).sum()
    assert evaluation.metrics["sampled"]["candidates"] == 40
    assert evaluation.metrics["sampled"]["small_catalogue"] is False
    assert evaluation.metrics["full"]["items"] == 300
    assert evaluation.ranks["sampled"].dtype == evaluation.ranks["full"].dtype == np.int32


@pytest.mark.parametrize("num_items", [2000, 20_000])  # the larger one scores by gathering, the smaller by one product
def test_batch_size_and_pieces_change_nothing(num_items, monkeypatch):
    dataset, model = random_dataset(100, num_items), MeanRecommender(num_items)
    whole = evaluate_recommender(model, dataset, "test", num_candidates=200, full_ranking=True)
    monkeypatch.setattr(protocol, "SCORE_FLOATS", 5 * num_items)
    for batch_size in (1, 7, 64):
        other = evaluate_recommender(model, dataset, "test", num_candidates=200, full_ranking=True, batch_size=batch_size)
        assert other.metrics == whole.metrics
        assert all(np.array_equal(other.ranks[name], whole.ranks[name]) for name in ("sampled", "full"))


def test_seed_and_split_change_the_digest():
    dataset, model = random_dataset(20, 2000), MeanRecommender(2000)

    def digest(split, seed):
        return evaluate_recommender(model, dataset, split, seed=seed, num_candidates=50).metrics["sampled"]["candidates_digest"]

    assert len({digest("test", 0), digest("test", 1), digest("valid", 0)}) == 3
    assert digest("test", 0) == digest("test", 0)


def test_small_catalogue_is_said_once_and_recorded(caplog, monkeypatch):
    protocol._warn_small_catalogue.cache_clear()
    monkeypatch.delenv(STAGE, raising=False)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            metrics = evaluate_recommender(TableRecommender([SCORES]), ONE_USER, "test").metrics["sampled"]
    assert metrics["candidates"] == 4 and metrics["small_catalogue"] is True
    assert len(caplog.records) == 1 and "7 items" in caplog.text and "999" in caplog.text


def test_small_catalogue_is_left_to_the_table_of_a_pipeline(caplog, monkeypatch):
    protocol._warn_small_catalogue.cache_clear()
    monkeypatch.setenv(STAGE, "6/9 evaluate sasrec")
    assert evaluate_recommender(TableRecommender([SCORES]), ONE_USER, "test").metrics["sampled"]["small_catalogue"] is True
    assert not caplog.records


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("full_ranking", [False, True])
def test_non_finite_scores_stop_the_run(value, full_ranking):
    dataset = make_dataset([[1, 2, 3], [1, 2, 3]], 7)
    table = np.array([SCORES, SCORES])
    table[:, 5] = value
    with pytest.raises(InputError, match="score that is not finite"):
        evaluate_recommender(TableRecommender(table), dataset, "test", sampled=not full_ranking, full_ranking=full_ranking)


def test_non_finite_user_vector_names_the_user():
    class Broken(MeanRecommender):
        def encode(self, batch):
            return super().encode(batch).masked_fill((batch["users"] == 4).unsqueeze(1), math.nan)

    with pytest.raises(InputError, match="user 4: the model gives a user vector that is not finite"):
        evaluate_recommender(Broken(50), random_dataset(9, 50), "test", batch_size=2)


def test_what_the_model_gives_pad_is_ignored():
    table = np.array([SCORES])
    expected = both_ranks(ONE_USER, table)
    table[:, PAD] = math.nan
    assert both_ranks(ONE_USER, table) == expected


def test_modes_and_gradients_are_as_before():
    model = TableRecommender([SCORES]).train()
    model.frozen.eval()
    first = evaluate_recommender(model, ONE_USER, "test").ranks["sampled"]
    assert first.tolist() == [3]  # dropout of 0.9 was off
    assert model.training and model.dropout.training and not model.frozen.training
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def test_modes_are_restored_after_an_error():
    model = TableRecommender([[math.nan] * 8]).train()
    with pytest.raises(InputError):
        evaluate_recommender(model, ONE_USER, "test")
    assert model.training and model.dropout.training


def test_user_with_two_actions_is_refused():
    with pytest.raises(InputError, match=r"user 1 has 2 actions where 3 are needed \(1 such users\)"):
        evaluate_recommender(MeanRecommender(9), make_dataset([[1, 2, 3], [4, 5]], 9), "valid")


def test_nothing_to_rank_is_refused():
    with pytest.raises(InputError, match="no users"):
        evaluate_recommender(MeanRecommender(9), make_dataset([], 9), "test")
    with pytest.raises(ValueError, match="train"):
        evaluate_recommender(MeanRecommender(9), ONE_USER, "train")


def test_seconds_name_every_part():
    seconds = evaluate_recommender(MeanRecommender(2000), random_dataset(50, 2000), "test").seconds
    assert set(seconds) == {"encode", "candidates", "score"} and all(value > 0 for value in seconds.values())


def test_users_without_a_rival_are_counted_and_left_out():
    """Users 0 and 2 have touched all four items; user 1 leaves two candidates, of which one is ahead of the target."""
    dataset = make_dataset([[1, 2, 3, 4], [1, 1, 2], [4, 3, 2, 1]], 4)
    table = [[0, 1, 2, 3, 4], [0, 1, 2, 3, 1], [0, 1, 2, 3, 4]]
    evaluation = evaluate_recommender(TableRecommender(table), dataset, "test", full_ranking=True)
    assert evaluation.ranks["sampled"].tolist() == [0, 2, 0] == evaluation.ranks["full"].tolist()
    for metrics in evaluation.metrics.values():
        assert metrics["users"] == 1 and metrics["users_without_rivals"] == 2
        assert (metrics["HR@1"], metrics["HR@5"], metrics["MRR"]) == (0.0, 1.0, 0.5)
    assert evaluation.metrics["sampled"]["candidates"] == 2
    with pytest.raises(InputError, match="every user has touched every item"):
        evaluate_recommender(TableRecommender(table[:1]), make_dataset([[1, 2, 3, 4]], 4), "test")


def test_asking_for_nearly_the_whole_catalogue_is_bounded_in_memory(monkeypatch):
    """Pieces of users change no rank, and no more candidates than SCORE_FLOATS exist at once."""
    dataset, model = random_dataset(40, 300), MeanRecommender(300)
    whole = evaluate_recommender(model, dataset, "test", num_candidates=280)
    sizes, draw = [], protocol.draw_candidates

    def watched(*arguments):
        drawn = draw(*arguments)
        sizes.append(drawn.size)
        return drawn

    monkeypatch.setattr(protocol, "SCORE_FLOATS", 2000)
    monkeypatch.setattr(protocol, "draw_candidates", watched)
    pieces = evaluate_recommender(model, dataset, "test", num_candidates=280)
    assert pieces.metrics == whole.metrics and pieces.ranks["sampled"].tolist() == whole.ranks["sampled"].tolist()
    assert len(sizes) > 5 and max(sizes) <= 2000
