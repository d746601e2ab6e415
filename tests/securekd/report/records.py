"""A record as a run writes it, and ways to change it."""

from typing import Any

from securekd.records.record import SCHEMA, Result
from securekd.settings.experiment import Experiment

CLASSES = tuple(str(digit) for digit in range(10))
CLIENTS = tuple(f"client-{i:02d}" for i in range(1, 7))
MODELS = ("logistic", "mlp", "cnn", "transformers", "logistic", "mlp")

Tree = dict[str, Any]


def utility(accuracy: float) -> Tree:
    return {
        "accuracy": accuracy,
        "precision": accuracy + 0.004,
        "recall": accuracy - 0.003,
        "f1": accuracy - 0.006,
        "examples": 359,
    }


def guarantee(view: str, unit: str, epsilon: float | None, why: str | None = None) -> Tree:
    relation = None if epsilon is None else "add_remove" if unit == "example" else "zero_out"
    return {
        "view": view,
        "unit": unit,
        "neighbours": relation,
        "epsilon": epsilon,
        "delta": 1e-5,
        "events": 12,
        "why": why,
    }


def leak(point: str, attack: str, auc: float, epsilon_lower: float, seen_by: str) -> Tree:
    return {
        "point": point,
        "attack": attack,
        "auc": auc,
        "auc_ci": [auc - 0.036, auc + 0.035],
        "tpr_at_fpr": {
            "0.1": {"value": 0.1175, "low": 0.0985, "high": 0.1387, "resolved": True},
            "0.01": {"value": 0.0125, "low": 0.0066, "high": 0.0214, "resolved": True},
            "0.001": {"value": 0.00771, "low": 0.00333, "high": 0.01513, "resolved": False},
        },
        "epsilon_lower": epsilon_lower,
        "confidence": 0.95,
        "members": 1038,
        "nonmembers": 359,
        "epsilon": 7.9951,
        "comparable": True,
        "assumptions": ["records do not influence one another's scores"],
        "seen_by": seen_by,
    }


def tree() -> Tree:
    """The record as JSON: the default experiment with six clients."""
    per_class = [[17 + (3 * i + 5 * c) % 9 for c in range(10)] for i in range(6)]
    seen = {
        "client_model": "the client itself, and whoever takes its model",
        "client_release": "the client alone: the server gets sums",
        "aggregate": "the server, and in the next round the clients",
        "student": "everybody to whom the student is given",
    }
    aucs = {"client_model": 0.5788, "client_release": 0.5477, "aggregate": 0.5169, "student": 0.5172}
    return {
        "schema": SCHEMA,
        "experiment": _experiment(),
        "environment": {
            "securekd": "0.1.0",
            "python": "3.11.7",
            "platform": "Linux-6.1-x86_64-with-glibc2.36",
            "versions": {"torch": "2.13.0+cpu", "opacus": "1.6.0"},
            "seed": 4,
            "noise": "os",
        },
        "data": {"classes": CLASSES, "clients": CLIENTS, "counts": per_class, "transfer": 400, "test": 359},
        "rounds": [
            {
                "round": number,
                "student": utility(student),
                "clients_mean_accuracy": mean,
                "survivors": 6 - len(dropped),
                "dropped": dropped,
                "clipped_rows": 0.8333,
                "zeroed_rows": 0,
                "zeroed_gradients": 17,
                "gradients": {"closed_form": 4, "hooks": 2},
            }
            for number, student, mean, dropped in ((1, 0.8552, 0.6314, []), (2, 0.9220, 0.7985, ["client-03"]))
        ],
        "utility": {
            "student": utility(0.9220),
            "local_mean": utility(0.7071),
            "local_best": utility(0.7632),
            "centralized": utility(0.9471),
            "centralized_nonprivate": utility(0.9777),
            "locals": [
                {"client": name, "model": model, "examples": sum(row), "utility": utility(0.6 + 0.02 * i)}
                for i, (name, model, row) in enumerate(zip(CLIENTS, MODELS, per_class, strict=True))
            ],
        },
        "privacy": {
            "guarantees": [guarantee(view, "example", 7.9951) for view in ("server", "clients", "public")]
            + [
                guarantee(view, "client", epsilon)
                for view, epsilon in (("server", 108635.54), ("clients", 108635.54), ("public", 81704.96))
            ],
            "dp_sgd_noise_multiplier": 2.46696,
            "release_noise": 0.1,
            "release_sensitivity": 40.0,
            "server_sees": "only sums of at least 4 of 6 clients' noised releases, in each of 2 rounds",
        },
        "leakage": [
            leak(point, attack, aucs[point] - less, lower, seen[point])
            for point in seen
            for attack, less, lower in (("loss", 0.0, 0.0991), ("entropy", 0.0021, 0.0))
        ],
        "communication": {
            "upload_bytes_per_client": {"mean": 69968.0, "max": 69968},
            "download_bytes_per_client": {"mean": 63672.0, "max": 63700},
            "by_phase": {
                "masked_input": {"upload": 387360, "download": 3696},
                "consensus": {"upload": 0, "download": 288000},
            },
            "rounds": 2,
            "fedavg_bytes_per_client": {"mean": 631493.3, "max": 1547840},
        },
        "compute": {
            "wall_s": 23.795,
            "by_phase": {"train": 10.578, "distil": 2.374, "audit": 75.2},
            "peak_rss_bytes": 647254016,
        },
    }


def _experiment() -> Tree:
    # What the page's tests look at is set here, so that the defaults may move.
    chosen = Experiment.model_validate(
        {
            "strategy": "distil",
            "aggregation": "masking",
            "rounds": 2,
            "seed": 4,
            "data": {"source": "digits", "partition": {"kind": "iid"}},
            "training": {"sampling_rate": 0.25},
            "student": {"model": "mlp", "loss": "forward_kl"},
        }
    )
    return chosen.model_dump(mode="json")


def result(changed: Tree | None = None) -> Result:
    """The record as a value."""
    return Result.model_validate(changed if changed is not None else tree())


def observed() -> Tree:
    """Every point after both rounds, canaries, and replayed releases."""
    changed = tree()
    last = [x | {"round": 2} for x in changed["leakage"]]
    further = [
        leak("raw_release", "loss", 0.571, 0.0, "the client’s own process") | {"round": 2},
        leak("aggregate_minus_colluders", "loss", 0.531, 0.0, "the server, told by 1 client") | {"round": 2},
    ]
    first = [x | {"round": 1, "auc": x["auc"] - 0.01, "auc_ci": [0.4, 0.65]} for x in (*last, *further)]
    changed["leakage"] = [*first, *last, *further]
    changed["canaries"] = {
        "planted": [
            {"client": CLIENTS[i % 6], "id": i, "kind": kind, "label": i % 10, "included": i % 3 == 0}
            for kind in ("mislabelled", "natural")
            for i in range(30)
        ],
        "bounds": [
            {
                "point": point, "round": 2, "kind": kind, "attack": "loss", "auc": 0.64, "auc_ci": [0.47, 0.79],
                "canaries": 30, "guesses": 15, "correct": 11, "epsilon_lower": 0.12, "epsilon_largest": 0.81,
                "confidence": 0.95, "epsilon": 7.9951, "delta": 1e-5, "assumptions": ["a fair coin each"],
                "warnings": [], "seen_by": "the client itself, and whoever takes its model",
            }
            for point in ("client_model", "student")
            for kind in ("mislabelled", "natural")
        ],
    }  # fmt: skip
    changed["replays"] = [
        {
            "point": point, "round": 2, "view": view, "unit": "client", "neighbours": "zero_out", "clients": clients,
            "colluders": colluders, "trials": 4000, "mu": mu, "auc": 0.76, "auc_ci": [0.75, 0.77],
            "auc_promised": 0.7602,
            "tpr_at_fpr": last[0]["tpr_at_fpr"], "tpr_promised": {"0.1": 0.38, "0.01": 0.0924, "0.001": 0.02},
            "epsilon_lower": 1.41, "epsilon_lower_gaussian": gaussian, "epsilon_largest": 40.2, "confidence": 0.95,
            "epsilon": epsilon, "delta": 1e-5, "why": None if epsilon else "no other party is at this point",
            "assumptions": [], "assumptions_gaussian": [], "seen_by": seen,
        }
        for point, view, clients, colluders, mu, gaussian, epsilon, seen in (
            ("client_release", None, 1, 0, 2.0, None, None, "the client alone: the server gets sums"),
            ("aggregate", "public", 4, 0, 1.0, 3.92, 4.61, "whoever sees the sum"),
            ("aggregate_minus_colluders", "clients", 4, 1, 1.2, 4.71, 5.52, "a participant, or the server"),
        )
    ]  # fmt: skip
    return changed


def without_epsilon() -> Tree:
    """No DP-SGD and no release noise: nothing is promised."""
    changed = tree()
    units = {"example": "the clients train without DP-SGD", "client": "the releases carry no noise"}
    changed["privacy"]["guarantees"] = [
        guarantee(view, unit, None, why) for unit, why in units.items() for view in ("server", "clients", "public")
    ]
    changed["privacy"] |= {"dp_sgd_noise_multiplier": None, "release_noise": 0.0}
    for x in changed["leakage"]:
        x["epsilon"] = None
    return changed


def seeded() -> Tree:
    """Seeded noise, with guarantees that a careless writer left in the record."""
    changed = tree()
    changed["environment"]["noise"] = "seeded"
    changed["experiment"]["privacy"]["noise"] = "seeded"
    return changed


def hostile(name: str) -> Tree:
    """A name of the attacker's choice wherever the record takes text."""
    changed = tree()
    changed["data"]["clients"] = [name, *CLIENTS[1:]]
    changed["data"]["classes"] = [name, *CLASSES[1:]]
    changed["rounds"][1]["dropped"] = [name]
    changed["utility"]["locals"][0] |= {"client": name, "model": name}
    changed["privacy"]["server_sees"] = name
    changed["privacy"]["guarantees"][0] |= {"epsilon": None, "neighbours": None, "why": name}
    changed["leakage"][0] |= {"attack": name, "seen_by": name}
    changed["environment"] |= {"platform": name, "versions": {name: name}}
    changed["communication"]["by_phase"] = {name: {"upload": 1, "download": 1}}
    changed["compute"]["by_phase"] = {name: 1.0}
    changed["experiment"] |= {"strategy": name, "aggregation": name}
    changed["experiment"]["data"] |= {"source": name, "test_source": name}
    changed["experiment"]["student"] |= {"loss": name, "model": {"kind": name, "options": {name: name}}}
    return changed


def large() -> Tree:
    """A thousand clients, a hundred classes, a thousand rounds."""
    changed = tree()
    names = [f"institution-{i:04d}" for i in range(1000)]
    changed["data"] |= {
        "clients": names,
        "classes": [f"species-{c:03d}" for c in range(100)],
        "counts": [[(7 * i + 3 * c) % 23 for c in range(100)] for i in range(1000)],
    }
    changed["utility"]["locals"] = [
        {"client": name, "model": "mlp", "examples": 100, "utility": utility(0.6)} for name in names
    ]
    last = changed["rounds"][1]
    changed["rounds"] = [last | {"round": number, "dropped": names[:300]} for number in range(1, 1001)]
    changed["communication"]["rounds"] = 1000
    return changed
