"""Per-example gradients by Opacus' hooks, also of models that change what a layer gave in place."""

from functools import partial
from typing import Any

import torch
from opacus.grad_sample import GradSampleHooks
from opacus.grad_sample.functorch import prepare_layer
from opacus.layers.dp_rnn import DPGRU, DPLSTM, DPRNN
from torch import Tensor, nn

from securekd.errors import ModelError
from securekd.models.trial import reason


class OutputHooks(GradSampleHooks):  # type: ignore[misc]
    """Opacus' hooks, but for where the gradient at a layer's output is caught: on the output itself.

    Opacus takes a full backward hook, for which torch hands on a view of the output, and refuses to change that in
    place (`nn.ReLU(inplace=True)`, `x += y`). A hook on a tensor gets the gradient with respect to the tensor as it was
    when the hook was set, whatever is done to it afterwards.

    Raises:
        ModelError: with the layer for which there is no per-example gradient, when it is set up or used.
    """

    def add_hooks(
        self, *, loss_reduction: str = "mean", batch_first: bool = True, force_functorch: bool = False
    ) -> None:
        """Watch every layer with trainable parameters of its own."""
        self._names = {module: name for name, module in self._module.named_modules()}
        self._module.autograd_grad_sample_hooks = self.autograd_grad_sample_hooks = []
        for layer in self.iterate_submodules(self._module):
            if type(layer) in (DPRNN, DPLSTM, DPGRU):  # made of layers that are watched themselves
                continue
            if type(layer) not in self.GRAD_SAMPLERS:
                self._explained(layer, prepare_layer, layer, batch_first=batch_first)
            self.autograd_grad_sample_hooks.append(layer.register_forward_hook(self._watch))
        self.enable_hooks()

    def _watch(self, layer: nn.Module, entered: tuple[Any, ...], left: Any) -> None:
        if not (self.hooks_enabled and layer.training and torch.is_grad_enabled()):
            return
        tensors = entered and all(isinstance(x, Tensor) for x in (*entered, left))
        if not tensors or (len(entered) > 1 and type(layer) not in self.GRAD_SAMPLERS):
            taken = ", ".join(type(x).__name__ for x in entered) or "nothing by position"
            raise self._refusal(layer, f"it takes {taken} and gives a {type(left).__name__}")
        self.capture_activations_hook(layer, entered, left)
        left.register_hook(partial(self._caught, layer))

    def _caught(self, layer: nn.Module, gradient: Tensor) -> None:
        self._explained(
            layer,
            self.capture_backprops_hook,
            layer,
            None,
            (gradient,),
            loss_reduction=self.loss_reduction,
            batch_first=self.batch_first,
        )

    def _explained(self, layer: nn.Module, call: Any, *args: Any, **options: Any) -> None:
        try:
            call(*args, **options)
        except Exception as error:  # what Opacus and torch.func raise for layers that they cannot take apart
            raise self._refusal(layer, reason(error)) from error

    def _refusal(self, layer: nn.Module, why: str) -> ModelError:
        return ModelError(
            f"{place(self._names[layer], layer)} has no per-example gradients: it must take one tensor by position and "
            f"give one, examples first ({why}); rewrite it, freeze it, or set privacy.dp_sgd = false"
        )


def place(path: str, layer: nn.Module) -> str:
    """A layer as errors name it: its path within the model, and its type."""
    return f"{path} ({type(layer).__name__})" if path else type(layer).__name__
