"""Data of a federation: sources, splits that never overlap, public encodings, partitions.

`load_federated` does it all; `load` gives any source as a `datasets.Dataset`. Importing this package loads numpy and
the settings, and none of the libraries behind the sources.
"""

from securekd.data.examples import Examples, FederatedData, Modality
from securekd.data.federated import load_federated
from securekd.data.holdings import Holdings, holdings
from securekd.data.partition import partition
from securekd.data.sources import load

__all__ = ["Examples", "FederatedData", "Holdings", "Modality", "holdings", "load", "load_federated", "partition"]
