"""The sentences that lower bounds on ε carry: what must hold for the figure to hold, to be printed beside it."""

ASSUMES_FIXED_THRESHOLD = "The rule that calls a record a member was fixed before these records were looked at."
ASSUMES_INDEPENDENT_TRIALS = (
    "The trials are independent given membership: one training run for each, or, within one run, "
    "records that do not influence each other's scores, which this bound takes for granted and cannot check."
)
ASSUMES_PURE_HYPOTHESIS = (
    "The bound is on (ε, δ)-differential privacy in general, with no assumption on the shape of the mechanism's noise."
)
ASSUMES_BERNOULLI_INCLUSION = (
    "Each canary was included or left out by a fair coin of its own, independent of all else; a train/test split is "
    "not that."
)
ASSUMES_BLIND_GUESSES = (
    "Which canaries are guessed, and how, depends on what the mechanism gave out, never on the coins: the number of "
    "guesses was not tried out on the correct ones."
)
ASSUMES_GAUSSIAN = (
    "If the mechanism's trade-off is Gaussian: the figure says by how much noise such a mechanism would have to be "
    "weaker; of any other mechanism (randomised response, say) it may exceed the true ε."
)
ASSUMES_JEFFREYS = (
    "The bound is the end of a one-sided Bayesian credible interval under Jeffreys' prior for both error rates: the "
    "stated confidence is a degree of belief, and its frequency in repeated audits may differ by a little."
)
NOT_SAFETY = "A low bound is not safety: a better attack, or more records, may show more."


def assumes_delta(delta: float) -> str:
    """The sentence that ties a bound to its δ."""
    return f"The bound belongs to δ = {delta:g}."
