"""Which models there are."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from securekd.settings.table import PLUGIN, Settings


class Model(Settings):
    """A model by name, with the options of its constructor."""

    kind: str = Field(description="logistic, mlp, cnn, hog, tfidf, kernel, transformers, or " + PLUGIN)
    options: dict[str, Any] = Field(default_factory=dict, description="arguments of the constructor")


def _named_model(value: object) -> object:
    return {"kind": value} if isinstance(value, str) else value


AnyModel = Annotated[Model, BeforeValidator(_named_model)]


PrivateLoss = Literal["cross_entropy", "background", "class_sums"]


class ClientModel(Model):
    """A model as a client trains it."""

    learning_rate: float | None = Field(
        None, gt=0, description="of SGD on private data, for this model; unset: training.learning_rate"
    )
    loss: PrivateLoss = Field(
        "cross_entropy",
        description="on private data: cross_entropy; background: with one class more, which public transfer rows are "
        "of; class_sums: of a head on whitened public components. The last two need no example of another class",
    )


def loss_of(model: Model) -> PrivateLoss:
    """What a model is trained with on private data; one that learns what is public alone has the default."""
    return model.loss if isinstance(model, ClientModel) else "cross_entropy"


AnyClientModel = Annotated[ClientModel, BeforeValidator(_named_model)]


TINY_VIT = ClientModel(
    kind="transformers",
    learning_rate=0.1,
    options={
        "model_type": "vit",
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "patch_size": 4,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    },
)


class Clients(Settings):
    """A number of clients and the models that they take in turn."""

    count: int | None = Field(
        None, ge=1, description="number of clients; unset: 5, or one for each value of partition.column"
    )
    models: tuple[AnyClientModel, ...] = Field(
        (
            ClientModel(kind="logistic", learning_rate=0.6),
            ClientModel(kind="mlp", learning_rate=0.3),
            ClientModel(kind="cnn", learning_rate=0.6),
            TINY_VIT,
        ),
        min_length=1,
        description="models, dealt to the clients in turn",
    )


class Client(Settings):
    """One client (or `count` alike) and its model, as one `[[clients]]` table."""

    model: AnyClientModel = Field(description="this client's model")
    count: int = Field(1, ge=1, description="how many clients are like this one")


def _table_or_list(value: object) -> str:
    return "list" if isinstance(value, list | tuple) else "table"


AnyClients = Annotated[
    Annotated[Clients, Tag("table")] | Annotated[tuple[Client, ...], Tag("list")], Discriminator(_table_or_list)
]
