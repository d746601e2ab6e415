"""`Experiment`: everything that can change a result or a guarantee; `Runtime`: what never can.

Both are frozen pydantic models that refuse unknown keys. The defaults run the embedded experiment. Each setting's
meaning stands in its `description`, from which `securekd config` prints its table.
"""

from pydantic import Field

from securekd.plugins import PLUGIN as PLUGIN_NAME
from securekd.plugins import is_plugin
from securekd.settings.audit import Audit
from securekd.settings.centralized import Centralized
from securekd.settings.cohort import Cohort
from securekd.settings.data import Data
from securekd.settings.fedavg import FedAvgSettings
from securekd.settings.models import AnyClients, ClientModel, Clients
from securekd.settings.pate import Pate
from securekd.settings.privacy import Privacy
from securekd.settings.release import Release
from securekd.settings.runtime import Runtime
from securekd.settings.student import Student
from securekd.settings.table import PLUGIN, Settings
from securekd.settings.training import Training


class Experiment(Settings):
    """One federated run, complete: what `securekd run` does is a function of this and of the noise."""

    strategy: str = Field(
        "distil", description="who teaches whom: distil, pate (noisy votes), fedavg (weight updates), or " + PLUGIN
    )
    aggregation: str = Field(
        "masking",
        description="masking (the server sees only the sum), bfv or ckks (likewise; a decryptor apart from the server "
        "holds the key, and with ckks is trusted to look at nothing else), plain (it sees all), or " + PLUGIN,
    )
    rounds: int = Field(4, ge=1, le=1000, description="rounds of release, consensus and distillation")
    seed: int = Field(
        0,
        ge=0,
        lt=2**63,
        description="of splits, initial weights and public batches; of the noise only if it is 'seeded'",
    )
    data: Data = Field(default_factory=Data, description="where examples come from")
    clients: AnyClients = Field(
        default_factory=Clients, description="one table, or one [[clients]] table for each kind"
    )
    training: Training = Field(default_factory=Training, description="how a client trains")
    privacy: Privacy = Field(default_factory=Privacy, description="what is promised")
    release: Release = Field(default_factory=Release, description="what a client lets go of")
    pate: Pate = Field(default_factory=Pate, description="noisy votes, answered one by one")
    fedavg: FedAvgSettings = Field(default_factory=FedAvgSettings, description="weight updates instead of scores")
    cohort: Cohort = Field(default_factory=Cohort, description="who may fall silent or collude")
    student: Student = Field(default_factory=Student, description="the global model")
    centralized: Centralized = Field(default_factory=Centralized, description="the yardstick: all data in one place")
    audit: Audit = Field(default_factory=Audit, description="how leakage is measured")
    runtime: Runtime = Field(default_factory=Runtime, description="what cannot change a guarantee")

    def plugins(self) -> frozenset[str]:
        """The parts of the user's own (`module:attribute`) that these settings name: code that a run imports."""
        data, clients = self.data, self.clients
        models = clients.models if isinstance(clients, Clients) else tuple(client.model for client in clients)
        kinds = [model.kind for model in (*models, self.student.model, self.centralized.model) if model is not None]
        parts = [*kinds, self.strategy, self.aggregation, self.release.mechanism, *self.audit.attacks]
        sources = [name for name in (data.source, data.transfer_source, data.test_source) if name is not None]
        return frozenset(
            [part for part in parts if is_plugin(part)]
            + [name for name in sources if PLUGIN_NAME.fullmatch(name) and not name.startswith("hub:")]
        )

    def client_models(self, count: int) -> tuple[ClientModel, ...]:
        """The model of each of `count` clients, in order."""
        if isinstance(self.clients, Clients):
            return tuple(self.clients.models[i % len(self.clients.models)] for i in range(count))
        return tuple(c.model for c in self.clients for _ in range(c.count))

    def client_count(self) -> int | None:
        """Number of clients, or None where the data's institutions decide."""
        if isinstance(self.clients, tuple):
            return sum(c.count for c in self.clients)
        if self.clients.count is None and self.data.partition.kind != "column":
            return 5
        return self.clients.count
