"""Noisy votes on transfer rows, and a student that learns each row's winner (GNMax, Papernot et al. 2018).

With `pate.threshold`, a first noisy count finds rows with a clear winner (confident GNMax, section 4.1 there); these
are answered first, and only they are learnt. Counts are secure sums: the server sees all of a noisy count, not its
winner alone, and the ledger charges for all of it, whatever the votes were.
"""

import numpy as np

from securekd.errors import RunError, SettingError
from securekd.federation.strategies.consensus import mean_of, remembered, winners
from securekd.federation.strategies.labels import LabelServer, LabelStrategy, consensus, lesson
from securekd.federation.strategies.seam import Ended, Played, ServerSide, Turn
from securekd.knowledge.questions import Wanted, answered_rows, label_shape, refuse_denoise, refuse_settle
from securekd.models.shape import InputShape
from securekd.settings.experiment import Experiment


class PateServer(LabelServer):
    """Counts votes, and distils winners."""

    def play(self, server: ServerSide, number: int, before: Played | None) -> Turn:
        """Have clients train and vote; distil the winners, from the student's initial weights."""
        yield from server.train(before.ended.taught if before else None)
        question = server.question("release")
        rows, clear = server.agreement.rows(number, question.labels.rows), None
        if server.agreement.settings.pate.threshold is not None:
            rows, clear = yield from self._clear_rows(server, number)
        summed = yield from server.ask("release", {"rows": rows})
        known = remembered(mean_of(question, summed), rows, None, len(server.transfer), 0.0)
        learnt = rows if clear is None else clear
        taught = consensus(learnt, winners(known.scores[learnt]))
        task = server.public_task(number, lessons=(lesson(server, learnt, taught.arrays["log_probabilities"]),))
        student = yield from server.learn(f"distil.{number}", task)
        return Ended(taught, student)

    def _clear_rows(self, server: ServerSide, number: int) -> Turn:
        """The rows to be answered, as many as the ledger is charged for, and those of them that have a clear winner."""
        threshold = server.agreement.settings.pate.threshold or 0.0
        check, answers = server.question("threshold"), server.question("release").labels.rows
        every = np.arange(check.labels.rows)
        counted = yield from server.ask("threshold", {"rows": every})
        shares = check.mean(counted.total, len(counted.survivors)) + 1 / check.labels.classes
        clear = shares.max(axis=1) >= threshold
        order = server.agreement.randomness.public("rows", number).permutation(len(every))
        chosen = np.sort(np.concatenate([order[clear[order]], order[~clear[order]]])[:answers])
        if not clear.any():
            raise RunError(
                f"no transfer row has a noisy winner with {threshold:.0%} of the votes; lower pate.threshold in a new "
                "run"
            )
        return chosen, chosen[clear[chosen]]


class Pate(LabelStrategy):
    """Both halves."""

    server = PateServer()

    def asks(self, experiment: Experiment, shape: InputShape, transfer: int) -> tuple[Wanted, ...]:
        """Votes on the rows that are answered; for confident GNMax, also on all rows, before."""
        refuse_denoise(experiment)
        refuse_settle(experiment)
        if experiment.release.scores != "votes":
            raise SettingError("strategy = 'pate' counts votes; set release.scores = 'votes'")
        pate, noise = experiment.pate, experiment.release.noise
        answers = label_shape(experiment, answered_rows(pate.answers, transfer, "pate.answers"), shape.classes)
        if pate.threshold is None:
            return (Wanted("release", answers, noise),)
        votes, share = label_shape(experiment, transfer, shape.classes), pate.threshold_budget
        return (Wanted("release", answers, noise, 1 - share), Wanted("threshold", votes, noise, share))
