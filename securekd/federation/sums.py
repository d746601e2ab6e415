"""The terms of a sum, which each party works out from the agreement and from what is asked."""

from securekd.federation.aggregation.seam import Terms
from securekd.federation.agreement import Agreement
from securekd.federation.messages import Instruction
from securekd.knowledge.questions import Question


def terms_of(agreement: Agreement, question: Question, told: Instruction) -> Terms:
    """What the parties of a session insist on."""
    mechanism = question.release.mechanism
    return Terms(
        clients=len(agreement.members),
        values=question.knowledge.length,
        magnitude=mechanism.magnitude,
        threshold=agreement.threshold,
        colluders=agreement.settings.cohort.colluders,
        context=agreement.context(told.digest),
        round_number=told.round,
        noise_variance=int((mechanism.sigma / mechanism.step) ** 2),
    )
