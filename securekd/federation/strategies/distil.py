"""Federated distillation over a shared transfer set (FedMD, Li and Wang 2019; FedDF, Lin et al. 2020).

Clients train on private data and release bounded, noised scores on transfer rows; the server distils their mean into
the student, and clients learn it before they train again.
"""

import numpy as np

from securekd.errors import SettingError
from securekd.federation.strategies.consensus import Known, denoised, mean_of, remembered, scores_to_consensus
from securekd.federation.strategies.labels import LabelServer, LabelStrategy, consensus, lesson
from securekd.federation.strategies.seam import Ended, Played, ServerSide, Turn
from securekd.knowledge.questions import Wanted, answered_rows, label_shape
from securekd.learning.smoothing.bases import shared_bases
from securekd.learning.smoothing.noise_aware import settled_by_neighbours
from securekd.models.shape import InputShape
from securekd.settings.experiment import Experiment

# With fewer, neighbours are of other classes.
FEWEST_SETTLED = 50


class DistilServer(LabelServer):
    """Averages scores, remembers them from round to round, and distils them into the student."""

    def play(self, server: ServerSide, number: int, before: Played | None) -> Turn:
        """Have clients train and score; distil, from the student's initial weights."""
        yield from server.train(before.ended.taught if before else None)
        settings, question, transfer = server.agreement.settings, server.question("release"), len(server.transfer)
        rows = server.agreement.rows(number, question.labels.rows)
        summed = yield from server.ask("release", {"rows": rows})
        known = remembered(
            mean_of(question, summed),
            rows,
            None if before is None else before.ended.notes["known"],
            transfer,
            settings.student.memory,
        )
        learnt = np.flatnonzero(np.isfinite(known.scores).all(axis=1))
        taught = consensus(learnt, _log_probabilities(server, known, learnt))
        task = server.public_task(number, lessons=(lesson(server, learnt, taught.arrays["log_probabilities"]),))
        student = yield from server.learn(f"distil.{number}", task)
        return Ended(taught, student, {"known": known})


class Distil(LabelStrategy):
    """Both halves."""

    server = DistilServer()

    def asks(self, experiment: Experiment, shape: InputShape, transfer: int) -> tuple[Wanted, ...]:
        """Scores on the transfer rows of a round."""
        rows = answered_rows(experiment.release.rows, transfer, "release.rows")
        if experiment.student.settle and rows < FEWEST_SETTLED:
            raise SettingError(
                f"student.settle compares each row with those that are like it, and {rows} are answered; have "
                f"{FEWEST_SETTLED} or more (data.transfer, release.rows), or leave it out"
            )
        return (Wanted("release", label_shape(experiment, rows, shape.classes), experiment.release.noise),)


def _log_probabilities(server: ServerSide, known: Known, rows: np.ndarray) -> np.ndarray:
    """What the student learns of some rows that are known: (rows, C)."""
    settings = server.agreement.settings
    student = settings.student
    if not student.denoise and not student.settle:
        return scores_to_consensus(settings, known.scores[rows])
    features = server.features[rows]
    bases = shared_bases(server.machine.shared, features)
    believed = (
        denoised(known, rows, features, bases) if student.denoise else scores_to_consensus(settings, known.scores[rows])
    )
    return settled_by_neighbours(believed, bases) if student.settle else believed
