"""Which models DP-SGD can train: those whose examples it can keep apart, found out before anything private is seen."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from securekd.errors import ModelError
from securekd.learning.dp.hooks import OutputHooks, place
from securekd.models.trial import reason, try_out

# What takes the place of layers that torch computes in one piece.
REPLACEMENTS: dict[type[nn.Module], str] = {
    nn.LSTM: "opacus.layers.DPLSTM",
    nn.GRU: "opacus.layers.DPGRU",
    nn.RNN: "opacus.layers.DPRNN",
    nn.MultiheadAttention: "opacus.layers.DPMultiheadAttention or a transformers model",
}

# What runs a model's layers elsewhere than where they are watched: compiled, or in copies on several devices.
WRAPPERS: dict[type[nn.Module], str] = {
    torch.jit.ScriptModule: "torch.jit.script or torch.jit.trace",
    nn.DataParallel: "nn.DataParallel",
}


def refuse_unsuited(model: nn.Module, inputs: Tensor) -> None:
    """Refuse a model whose examples DP-SGD could not keep apart.

    Layers with batch statistics, and those that torch computes in one piece, are refused by type. What types do not
    tell is tried out on a few inputs: logits must not depend on the other examples of the batch, no buffer may keep
    what inputs hold, and each parameter's per-example gradients must equal those of the example alone (where the model
    is deterministic in training: with dropout only their batch sizes and their sum are compared).

    Args:
        model: to be trained.
        inputs: three or so inputs of the right shape; they are replaced by random ones of the same kind.

    Raises:
        ModelError: with what is wrong.
    """
    name = type(model).__name__
    for path, layer in model.train().named_modules():
        _refuse_layer(layer, f"{name} cannot train with DP-SGD: {place(path, layer)}")
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    if not trainable:
        raise ModelError(f"{name} has no trainable parameter")
    for parameter, value in trainable.items():
        if value.dtype != torch.float32:
            raise ModelError(
                f"{name} has parameters other than float32, for which alone clip and noise are exact: {parameter} is "
                f"{str(value.dtype).removeprefix('torch.')}; convert it, a complex one to two real ones"
            )
    drawn = torch.rand(inputs.shape, generator=torch.Generator().manual_seed(0))
    x = drawn if inputs.is_floating_point() else (inputs + (drawn > 0.5).to(inputs.dtype))
    _refuse_half(model, x)
    _refuse_mixing(model, x, 1 - x if inputs.is_floating_point() else 2 * inputs + 1 - x)
    with torch.no_grad():
        deterministic = torch.equal(model(x.clone()), model(x.clone()))
    _compare_gradients(model, trainable, x, deterministic)


def _refuse_layer(layer: nn.Module, where: str) -> None:
    """Refuse a layer whose type, or whose parameters and buffers, tell that there is no per-example gradient."""
    for kind, wrapper in WRAPPERS.items():
        if isinstance(layer, kind) and any(p.requires_grad for p in layer.parameters()):
            raise ModelError(
                f"{where} hides its layers, and per-example gradients need to watch them; take the model without "
                f"{wrapper}, or set privacy.dp_sgd = false"
            )
    if layer.training and isinstance(layer, _BatchNorm):
        raise ModelError(f"{where} normalises over the batch, which mixes its examples; use group or layer norm")
    if layer.training and isinstance(layer, _InstanceNorm) and layer.track_running_stats:
        raise ModelError(f"{where} keeps statistics of private inputs, without noise; set track_running_stats=False")
    own = [n for n, p in layer.named_parameters(recurse=False) if p.requires_grad]
    if not own:
        return
    for kind, replacement in REPLACEMENTS.items():
        if isinstance(layer, kind):
            raise ModelError(
                f"{where} is computed by torch in one piece, without per-example gradients; take {replacement} "
                "instead, freeze it, or set privacy.dp_sgd = false"
            )
    buffers = [n for n, _ in layer.named_buffers()]
    if buffers:
        raise ModelError(
            f"{where} holds trainable parameters ({', '.join(own)}) and, itself or in a part, buffers "
            f"({', '.join(buffers)}), which Opacus cannot take together; put the parameters into a layer of their own, "
            "or the buffers outside it"
        )


def _refuse_half(model: nn.Module, x: Tensor) -> None:
    """Refuse a trainable layer that computes in half precision, whose gradients' norms are not those clipped to."""

    def look(path: str, layer: nn.Module, entered: tuple[object, ...], left: object) -> None:
        for value in (*entered, left):
            if isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16):
                kind = str(value.dtype).removeprefix("torch.")
                raise ModelError(
                    f"{type(model).__name__} computes {place(path, layer)} in {kind}, and clip and noise are exact for "
                    "float32 alone; take torch.autocast or the conversion out, or set privacy.dp_sgd = false"
                )

    watched = [(n, m) for n, m in model.named_modules() if any(p.requires_grad for p in m.parameters(recurse=False))]
    hooks = [layer.register_forward_hook(partial(look, path)) for path, layer in watched]
    try:
        try_out(model, x)
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def _refuse_mixing(model: nn.Module, x: Tensor, others: Tensor) -> None:
    """Refuse a model in which an example's logits, or what buffers keep, depend on the (other) examples.

    Args:
        model: is left in training mode.
        x: inputs (N, ...).
        others: of the same shape, unlike `x` in each entry.
    """
    name, among_others = type(model).__name__, torch.cat([x[:1], others[1:]])
    mixes = ModelError(f"{name} mixes the examples of a batch: an example's logits depend on the others")
    model.eval()
    if not _close(model(x.clone()), torch.cat([model(x[i : i + 1].clone()) for i in range(len(x))])):
        raise mixes
    model.train()
    # Random numbers are drawn alike in both trials, so that dropout makes no difference.
    one, other = try_out(model, x), try_out(model, among_others)
    if not _close(one.output[0], other.output[0]):
        raise mixes
    for buffer, value in one.buffers.items():
        if not torch.equal(value, other.buffers[buffer]):
            raise ModelError(
                f"{name} keeps what its inputs hold in a buffer ({buffer}), which no noise covers; leave it out, or "
                "set privacy.dp_sgd = false"
            )


def _close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-3, atol=1e-4)


def _compare_gradients(model: nn.Module, trainable: dict[str, nn.Parameter], x: Tensor, deterministic: bool) -> None:
    name, found = type(model).__name__, _gradients(model, trainable, x)
    wrong = (
        "(its layer is used outside a call too, changes its input in place, has examples in another dimension than the "
        "first, or a wrong rule for its gradients)"
    )
    for parameter, rows in found.items():
        if not deterministic and not _alike(rows.mean(0), trainable[parameter].grad):
            raise ModelError(
                f"{name} has per-example gradients that do not add up to the batch's at {parameter} {wrong}"
            )
    for i in range(len(x) if deterministic else 0):
        model.zero_grad()
        cross_entropy(model(x[i : i + 1].clone()), torch.zeros(1, dtype=torch.long)).backward()  # type: ignore[no-untyped-call]
        for parameter, rows in found.items():
            if not _alike(rows[i], trainable[parameter].grad):
                raise ModelError(
                    f"{name} has per-example gradients that differ from those of the example alone at {parameter} "
                    f"{wrong}"
                )


def _gradients(model: nn.Module, trainable: dict[str, nn.Parameter], x: Tensor) -> dict[str, Tensor]:
    """Each trainable parameter's per-example gradients (N, ...) by the hooks; their mean is left in its `grad`."""
    name = type(model).__name__
    hooks = OutputHooks(model, strict=True)
    try:
        loss = cross_entropy(model(x.clone()), torch.zeros(len(x), dtype=torch.long))
        loss.backward()  # type: ignore[no-untyped-call]
        found = {n: getattr(p, "grad_sample", None) for n, p in trainable.items()}
        waiting = {n for n, p in trainable.items() if getattr(p, "_forward_counter", 0)}  # Opacus' count of calls
    except RuntimeError as error:  # autograd's: no gradient at all, or what it needs was changed in place
        raise ModelError(f"{name} cannot be trained: {reason(error)}") from error
    finally:
        hooks.cleanup()
    for parameter, rows in found.items():
        if trainable[parameter].grad is None:
            raise ModelError(f"{name} has trainable parameters without a gradient ({parameter}); freeze or remove them")
        if parameter in waiting:
            raise ModelError(
                f"{name} calls the layer of {parameter} more often than gradients come back: gradient checkpointing "
                "calls it again, or what a call gave is not used; take torch.utils.checkpoint "
                "(gradient_checkpointing_disable()) or that call out, or set privacy.dp_sgd = false"
            )
        if rows is None:
            raise ModelError(
                f"{name} uses {parameter} outside a call of the layer that holds it, where there are no per-example "
                "gradients; call that layer in forward, or put the parameter into a layer that is called"
            )
        if len(rows) != len(x):
            raise ModelError(
                f"{name} has per-example gradients that disagree on the batch size: {len(rows)} of {parameter} for "
                f"{len(x)} examples; give its layer an input for each example, in the first dimension"
            )
    return {parameter: rows for parameter, rows in found.items() if rows is not None}


def _alike(gradient: Tensor, expected: Tensor | None) -> bool:
    return expected is not None and torch.allclose(
        gradient, expected, rtol=1e-2, atol=1e-4 + 1e-3 * float(expected.abs().max())
    )
