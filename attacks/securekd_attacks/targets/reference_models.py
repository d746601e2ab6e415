"""Reference models for an audit: a store of shadow signals, a signals file, or a folder of model folders.

In a folder of models, each sub-folder may hold `members.txt`, a line for the id of each record that it was trained
with. All have it, or none; where none has, attacks that must know it are not possible, unless it is said that the
references were trained with no record of the audit.
"""

from pathlib import Path

import numpy as np

from securekd_attacks.errors import BadLabels, BadSetting, ShapeMismatch
from securekd_attacks.references.inclusion import BoolArray
from securekd_attacks.references.store import SignalStore
from securekd_attacks.signals.classes import scaled_logit
from securekd_attacks.targets.answers import AnswerStore, Progress, ask_all, in_order
from securekd_attacks.targets.errors import TargetUnusable
from securekd_attacks.targets.huggingface import FolderTarget
from securekd_attacks.targets.records import Answers, Records, taken
from securekd_attacks.targets.sides import References
from securekd_attacks.targets.signals_file import SignalsFile


def from_store(folder: Path, records: Records) -> References:
    """A store that `train_shadows` wrote, whose records are those of the audit: members, non-members, population.

    Raises:
        ShapeMismatch: another number of records.
        BadSetting: it holds another signal than scaled logits.
        DamagedStore, TooFewRecords: see `SignalStore`.
    """
    store = SignalStore.read(folder)
    if store.design.signal != "scaled_logit":
        raise BadSetting("a store of other signals", value=store.design.signal, remedy="store scaled logits")
    if store.design.records != len(records):
        raise ShapeMismatch(
            "the store is of other records",
            value=f"{store.design.records}, the audit has {len(records)}",
            remedy="give the records that it was made of, in their order",
        )
    return References(ids=records.ids, signals=store.signals(), inclusion=store.inclusion)


def from_file(path: Path) -> References:
    """A signals file of several models; its ids say which records they are. Errors as in `SignalsFile.read`."""
    return SignalsFile.read(path).references()


def from_models(
    folder: Path,
    records: Records,
    store: AnswerStore,
    *,
    batch: int,
    seed: int,
    disjoint: bool = False,
    progress: Progress | None = None,
) -> References:
    """Ask every model of a folder about all records; what is in the store already is not asked again.

    Args:
        folder: a model folder, or one of model folders.
        records: all of the audit.
        store: where answers are kept.
        batch: records asked about at once.
        seed: of their order.
        disjoint: the references were trained with none of the records.
        progress: called after every batch.

    Raises:
        TargetUnusable: no model in the folder, or one that cannot be loaded.
        BadLabels: classifiers without labels.
        ShapeMismatch: models of different kinds, several language models, or `members.txt` for some only.
    """
    folders = [folder] if (folder / "config.json").exists() else sorted(folder.glob("*/config.json"))
    folders = [each.parent if each.name == "config.json" else each for each in folders]
    if not folders:
        raise TargetUnusable("no model folder", value=str(folder), remedy="give one, or a folder of them")
    order = np.random.default_rng(seed).permutation(len(records))
    names = [records.ids[row] for row in order]
    found: list[Answers] = []
    for each in folders:
        model = FolderTarget.open(each)
        part = f"reference-{each.name}"
        asked = ask_all(model, taken(records.inputs, order), store, part, batch, progress, names)
        found.append(in_order(asked, order))
    if all(answers.token_log_probs is not None for answers in found):
        if len(found) > 1:
            raise ShapeMismatch("several reference language models", value=len(found), remedy="give one")
        return References(ids=records.ids, token_log_probs=found[0].token_log_probs)
    if records.labels is None:
        raise BadLabels("references of a classifier", value="no labels", remedy="give labels")
    rows = [answers.log_probs for answers in found if answers.log_probs is not None]
    if len(rows) < len(found):
        raise ShapeMismatch("references of different kinds", value=len(found), remedy="give classifiers alone")
    signals = np.stack([scaled_logit(row, records.labels) for row in rows])
    inclusion = _inclusion(folders, records, disjoint)
    return References(ids=records.ids, signals=signals, inclusion=inclusion, log_probs=np.stack(rows))


def _inclusion(folders: list[Path], records: Records, disjoint: bool) -> BoolArray | None:
    lists = [each / "members.txt" for each in folders]
    there = [path.exists() for path in lists]
    if disjoint or not any(there):
        if any(there):
            raise ShapeMismatch("references with members, called disjoint", value="members.txt", remedy="drop one")
        return np.zeros((len(folders), len(records)), dtype=np.bool_) if disjoint else None
    if not all(there):
        missing = folders[there.index(False)].name
        raise ShapeMismatch("only some references say their members", value=missing, remedy="write members.txt for all")
    named = [set(path.read_text(encoding="utf-8").splitlines()) for path in lists]
    return np.array([[name in names for name in records.ids] for names in named], dtype=np.bool_)
