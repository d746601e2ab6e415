"""The ledger: an append-only list of privacy events, on disk before anything that they pay for leaves a client."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from securekd.errors import FolderError, RunError
from securekd.files import write_atomically
from securekd.privacy.events import UNITS, Entry, Unit

SCHEMA: Literal["securekd.ledger/1"] = "securekd.ledger/1"


class LedgerFile(BaseModel):
    """`ledger.json`: where noise came from, the δ of each unit's ε, and every entry as it was written."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schema_: Literal["securekd.ledger/1"] = Field(SCHEMA, alias="schema")
    noise: Literal["os", "seeded"]
    delta: dict[Unit, Annotated[float, Field(gt=0, lt=1)]]
    entries: tuple[Entry, ...] = ()

    @field_validator("delta")
    @classmethod
    def _every_unit(cls, delta: dict[Unit, float]) -> dict[Unit, float]:
        if set(delta) != set(UNITS):
            raise ValueError(f"a δ is needed for each of {', '.join(UNITS)}")
        return delta

    def until(self, number: int) -> "LedgerFile":
        """The ledger as it stood after a round."""
        return self.model_copy(update={"entries": tuple(e for e in self.entries if e.round <= number)})

    def to_json(self) -> bytes:
        """The file's bytes."""
        return self.model_dump_json(by_alias=True, indent=1).encode()


class Ledger:
    """A ledger that lives in a file; what was appended is never changed or taken out."""

    def __init__(
        self, path: Path, *, noise: Literal["os", "seeded"], delta: dict[Unit, float], private: bool = False
    ) -> None:
        """Open the ledger at `path`, or begin one with these δ; a private one its owner alone may read.

        Raises:
            FolderError: if there is a ledger that cannot be read, or one that states another δ.
        """
        self._path = path
        self._private = private
        self._file = read_ledger(path) if path.exists() else LedgerFile(schema=SCHEMA, noise=noise, delta=delta)
        if (self._file.delta, self._file.noise) != (delta, noise):
            raise FolderError(
                f"{path} is for δ = {self._file.delta} and {self._file.noise} noise, this run for {delta} and {noise}; "
                "resume with the run's own settings"
            )

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All entries, oldest first."""
        return self._file.entries

    @property
    def file(self) -> LedgerFile:
        """The ledger as it stands on disk."""
        return self._file

    def of(self, client: str) -> tuple[Entry, ...]:
        """The entries of one client, oldest first."""
        return tuple(entry for entry in self.entries if entry.client == client)

    def append(self, entries: Iterable[Entry]) -> None:
        """Write entries to disk, and return only when they are there.

        An entry that stands in the ledger already is the same event met again after a resumption (a release is stored
        before its event is written, and sent after): it is not charged twice.

        Raises:
            RunError: if the same client, round, phase, exchange, unit and view has another event already, or if the
                clients were asked about different transfer rows, or models, at a time.
        """
        known = {_key(e, view): e for e in self.entries for view in e.views}
        asked = {(e.round, e.phase, e.exchange): e.transfer for e in self.entries}
        new = []
        for entry in entries:
            if asked.setdefault((entry.round, entry.phase, entry.exchange), entry.transfer) != entry.transfer:
                raise RunError(
                    f"{entry.client} was asked about other transfer rows (or another model) than the ledger holds for "
                    f"round {entry.round}; nothing was released"
                )
            before = [known.get(_key(entry, view)) for view in entry.views]
            if all(b == entry for b in before):
                continue
            if any(b is not None for b in before):
                raise RunError(
                    f"the ledger holds another {entry.phase} event of {entry.client} in round {entry.round}; "
                    "nothing was released"
                )
            known |= {_key(entry, view): entry for view in entry.views}
            new.append(entry)
        if new:
            file = self._file.model_copy(update={"entries": self._file.entries + tuple(new)})
            write_atomically(self._path, file.to_json(), private=self._private)
            self._file = file


def read_ledger(path: Path) -> LedgerFile:
    """The ledger in a file.

    Raises:
        FolderError: if it is missing, or not a ledger of this version.
    """
    try:
        return LedgerFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise FolderError(f"cannot read the ledger {path}: {error.strerror}") from error
    except ValidationError as error:
        raise FolderError(f"{path} is not a {SCHEMA} ledger: {error.errors()[0]['msg']}") from error


def _key(entry: Entry, view: str) -> tuple[str, int, str, int, str, str]:
    return entry.client, entry.round, entry.phase, entry.exchange, entry.unit, view
