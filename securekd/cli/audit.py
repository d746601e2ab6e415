"""The arguments of `securekd audit`."""

import math
from pathlib import Path
from typing import Any

import click

HELP = """Audit a deployed model: what its answers tell about who was in its training data.

TARGET is a Hugging Face model folder (image or text classifier, causal language model), an http(s):// endpoint, a
module:callable, or a signals file (.npz, .parquet). Members are records that it was trained with, non-members are
drawn as they are, but were kept from it.

\b
Files of records: .csv, .jsonl or .parquet with a column `text` (or other columns,
which together are the record), `label` (class number) and `id`; or .npz with arrays
`inputs`, `labels` and `ids` (images: uint8, height x width x channels). Without ids,
records are named after their content.
Signals file: `log_probs`, `probs` or `logits` (n, C) or (n, models, C), `membership`
(n,) or (n, models), `labels` (n,); if wanted `ids`, `features`, `population`. With
--members and --nonmembers too, these are matched by their ids.
Endpoint: POST {"inputs": [...]} answers one of {"log_probs": [[...]]}, {"probs": [[...]]},
{"logits": [[...]]}, {"labels": [...]}, {"token_log_probs": [[...]]}.
References: a folder of model folders (each with members.txt, the ids of its training
records), a store of shadow signals, or a signals file of several models.

\b
Examples:
  securekd audit models/classifier --members in.csv --nonmembers out.csv
  securekd audit deployed:predict --members in.npz --nonmembers out.npz --out audits/one
  securekd audit https://host/predict --members in.jsonl --nonmembers out.jsonl --rate 5 --token-env TOKEN
  securekd audit signals.npz --attacks loss --attacks lira_online_residual
  securekd audit models/gpt --members planted.jsonl --nonmembers candidates.jsonl --canaries
  securekd audit signals.npz --fail-above tpr@0.01=0.05 --fail-above epsilon_lower=2

Exit codes: 0 done; 1 the target failed, go on with --resume; 2 refused input; 3 a --fail-above is exceeded; 130
interrupted, go on with --resume.
"""


@click.command(help=HELP)
@click.argument("target")
@click.option("--members", type=click.Path(path_type=Path), help="File of records that TARGET was trained with.")
@click.option("--nonmembers", type=click.Path(path_type=Path), help="File of records that it was not trained with.")
@click.option(
    "--population", type=click.Path(path_type=Path), help="File of further non-members that attacks learn from."
)
@click.option("--references", type=click.Path(path_type=Path), help="Folder or file of reference models.")
@click.option(
    "--references-disjoint", "disjoint", is_flag=True, help="The references were trained with none of these records."
)
@click.option(
    "--attacks",
    multiple=True,
    metavar="NAME[,NAME]",
    help="Attacks to run (lira, rmia: each in two forms). Default: all that fit.",
)
@click.option(
    "--bounds",
    multiple=True,
    metavar="NAME[,NAME]",
    help="Further bounds on ε: bayesian, gdp (if Gaussian), one_run (needs --inclusion bernoulli).",
)
@click.option(
    "--inclusion",
    type=click.Choice(["split", "bernoulli"]),
    default="split",
    show_default=True,
    help="How membership was decided: bernoulli is a fair coin for each record.",
)
@click.option("--canaries", is_flag=True, help="Members are planted texts, non-members random ones of the same form.")
@click.option(
    "--fpr",
    "fprs",
    multiple=True,
    type=float,
    help="FPR at which the TPR is told. Default: 0.1, 0.01, 0.001. At 0, unresolved.",
)
@click.option("--delta", type=float, default=1e-5, show_default=True, help="δ of every bound.")
@click.option("--confidence", type=float, default=0.95, show_default=True, help="Of every interval and bound.")
@click.option("--copies", type=int, default=10, show_default=True, help="Altered copies of a record (labels alone).")
@click.option("--strength", type=float, default=0.1, show_default=True, help="How much a copy is altered, in (0, 1).")
@click.option("--batch", type=int, default=64, show_default=True, help="Records that are asked about at once.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of order, alterations and halves.")
@click.option("--text", default="text", show_default=True, help="Column with the text.")
@click.option("--label", default="label", show_default=True, help="Column with the class number.")
@click.option("--id", "id_column", default="id", show_default=True, help="Column with the record's name.")
@click.option("--inputs", default="inputs", show_default=True, help="Array with the records in a .npz file.")
@click.option("--rate", type=float, default=math.inf, help="Requests a second at most. Default: no limit.")
@click.option("--timeout", type=float, default=30.0, show_default=True, help="Seconds until a request has failed.")
@click.option("--retries", type=int, default=5, show_default=True, help="Further attempts after 429, 5xx or silence.")
@click.option("--token-env", help="Environment variable that holds a bearer token.")
@click.option("--out", type=click.Path(path_type=Path), help="The audit's folder. Default: the next audits/audit-N.")
@click.option("--resume", is_flag=True, help="Go on in --out: what was answered is not asked again.")
@click.option(
    "--fail-above",
    "limits",
    multiple=True,
    metavar="FIGURE=VALUE",
    help="Exit 3 where a figure is larger: tpr@FPR=VALUE, auc=VALUE, epsilon_lower=VALUE.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON on standard output.")
def audit(**given: Any) -> None:
    """See HELP."""
    from securekd.cli import audit_console
    from securekd.errors import FolderError
    from securekd.files import next_folder

    if given["resume"] and given["out"] is None:
        raise FolderError("--resume goes on in a folder: name it with --out")
    out = given["out"] or next_folder(Path("audits"), "audit")
    audit_console.audit(_request(given), out, resume=given["resume"], as_json=given["as_json"])


def _request(given: dict[str, Any]) -> Any:
    from securekd.audit.auditing import AuditRequest, Limit
    from securekd.audit.files import Columns
    from securekd.errors import SettingError
    from securekd_attacks import AttackInputError
    from securekd_attacks.audit import AuditSettings
    from securekd_attacks.targets import Manners

    try:
        settings = AuditSettings(
            attacks=_names(given["attacks"]),
            fprs=given["fprs"] or AuditSettings.fprs,
            delta=given["delta"],
            confidence=given["confidence"],
            # any words: the settings refuse those that name no bound
            bounds=_names(given["bounds"]) or AuditSettings.bounds,  # type: ignore[arg-type]
            inclusion=given["inclusion"],
            canaries=given["canaries"],
            copies=given["copies"],
            strength=given["strength"],
            batch=given["batch"],
            seed=given["seed"],
        )
        manners = Manners(
            timeout=given["timeout"],
            retries=given["retries"],
            rate=given["rate"],
            token_variable=given["token_env"],
        )
    except AttackInputError as error:
        raise SettingError(str(error)) from error
    return AuditRequest(
        target=given["target"],
        members=given["members"],
        nonmembers=given["nonmembers"],
        population=given["population"],
        references=given["references"],
        disjoint=given["disjoint"],
        columns=Columns(given["text"], given["label"], given["id_column"], given["inputs"]),
        manners=manners,
        settings=settings,
        limits=tuple(Limit.parse(text) for text in given["limits"]),
    )


def _names(given: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name.strip() for text in given for name in text.split(",") if name.strip())
