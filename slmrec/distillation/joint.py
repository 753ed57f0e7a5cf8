"""Teacher and student as one model, for training them together (online distillation, Section 5.3)."""

from __future__ import annotations

import torch

from slmrec.distillation.teacher import LearningTeacher, Teacher
from slmrec.llm.ellmrec import EllmModel, EllmRecommender, Encoded
from slmrec.recommender import Recommender

TEACHER = "teacher"  # sub-directory of the teacher in a checkpoint; the student lies in the checkpoint itself


class JointRecommender(Recommender):
    """Trains and saves both; recommends, and is validated, as the student.

    Args:
        student, teacher: two E-LLMRecs over the same item embeddings.
    """

    def __init__(self, student: EllmRecommender, teacher: EllmRecommender):
        super().__init__()
        self.student, self.teacher = student, teacher
        self.max_length = student.max_length

    def forward(self, batch: dict[str, torch.Tensor], **options) -> Encoded:
        """The student's forward pass; the objective asks the teacher itself (`distillation.teacher.LearningTeacher`)."""
        return self.student(batch, **options)

    def encode(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self(batch, read="last").users  # by the forward pass that the Trainer's autocast covers

    def item_matrix(self) -> torch.Tensor:
        return self.student.item_matrix()

    def parts(self) -> dict[str, EllmRecommender]:
        return {"": self.student, TEACHER: self.teacher}


def trained_model(student: EllmRecommender, teacher: Teacher) -> EllmModel:
    """What is trained and saved: the student, and its teacher with it where that learns."""
    return JointRecommender(student, teacher.model) if isinstance(teacher, LearningTeacher) else student
