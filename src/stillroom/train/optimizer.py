"""Muon for matrices inside layers, AdamW for everything else; for one student or many at once.

Every tensor has the student as its first axis, and no number of one student touches another's.

Muon: Jordan et al. 2024 (kellerjordan.github.io/posts/muon), with Nesterov momentum 0.95 and five
Newton-Schulz steps. Matrices of one shape, of all layers and students, are orthogonalised in one
batch. AdamW: Loshchilov and Hutter 2019 (arXiv 1711.05101), with the arithmetic of torch's own,
whose first step loads modules for more than a second that nothing here needs.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_BETA1, _BETA2, _EPSILON = 0.9, 0.98, 1e-9


class Optimizer:
    """Holds float32 masters, and updates them and the working copies from gradients.

    Args:
        masters: Parameter name to float32 weights, (students, ...).
        workers: The same in the working type.
        muon_lr: Learning rate of matrices inside layers.
        adam_lr: Learning rate of all other parameters.
        weight_decay: Of matrices inside layers.
        clip: Largest norm of a student's gradient of all other parameters.
    """

    def __init__(
        self,
        masters: Mapping[str, Tensor],
        workers: Mapping[str, Tensor],
        *,
        muon_lr: float,
        adam_lr: float,
        weight_decay: float,
        clip: float,
    ) -> None:
        self.masters, self.workers = masters, workers
        self.muon_lr, self.adam_lr = muon_lr, adam_lr
        self.weight_decay, self.clip = weight_decay, clip
        self.steps = 0
        by_shape: dict[torch.Size, list[str]] = {}
        self.rest: list[str] = []
        for name, master in masters.items():
            if master.ndim == 3 and name.startswith("layers."):
                by_shape.setdefault(master.shape, []).append(name)
            else:
                self.rest.append(name)
        self.groups = [
            (names, torch.stack([masters[name] for name in names]).zero_())
            for names in by_shape.values()
        ]
        self.means = [torch.zeros_like(masters[name]) for name in self.rest]
        self.squares = [torch.zeros_like(masters[name]) for name in self.rest]

    @torch.no_grad()
    def step(self, grads: Mapping[str, Tensor], rate: float) -> None:
        """Update the masters and copy them to the workers.

        Args:
            grads: Parameter name to gradients, (students, ...), in the working type.
            rate: Share of the learning rates at this step, 0 to 1.
        """
        self._muon(grads, self.muon_lr * rate)
        self._adam(grads, self.adam_lr * rate)
        torch._foreach_copy_(
            list(self.workers.values()), [self.masters[name] for name in self.workers]
        )

    def _muon(self, grads: Mapping[str, Tensor], lr: float) -> None:
        for names, momentum in self.groups:
            masters = [self.masters[name] for name in names]
            grad = torch.stack([grads[name] for name in names]).float()
            momentum.lerp_(grad, 0.05)
            update = _orthogonal(grad.lerp_(momentum, 0.95).flatten(0, 1)).view_as(momentum)
            update *= max(1.0, update.shape[2] / update.shape[3]) ** 0.5
            torch._foreach_mul_(masters, 1 - lr * self.weight_decay)
            torch._foreach_add_(masters, update.unbind(), alpha=-lr)

    def _adam(self, grads: Mapping[str, Tensor], lr: float) -> None:
        self.steps += 1
        masters = [self.masters[name] for name in self.rest]
        wide = [grads[name].float() for name in self.rest]
        norms = torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in wide])
        scale = (self.clip / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp(max=1.0)
        wide = [grad * scale.view(-1, *[1] * (grad.ndim - 1)) for grad in wide]
        torch._foreach_lerp_(self.means, wide, 1 - _BETA1)
        torch._foreach_mul_(self.squares, _BETA2)
        torch._foreach_addcmul_(self.squares, wide, wide, 1 - _BETA2)
        roots = torch._foreach_sqrt(self.squares)
        torch._foreach_div_(roots, (1 - _BETA2**self.steps) ** 0.5)
        torch._foreach_add_(roots, _EPSILON)
        torch._foreach_addcdiv_(masters, self.means, roots, -lr / (1 - _BETA1**self.steps))


def _orthogonal(matrices: Tensor) -> Tensor:
    """Bring all singular values of each matrix near 1, by five Newton-Schulz steps in bfloat16."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[1] > matrices.shape[2]
    # Sums of a transposed matrix and a plain one are slow.
    x = (matrices.transpose(1, 2) if tall else matrices).bfloat16().contiguous()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = torch.bmm(x, x.transpose(1, 2))
        x = a * x + torch.bmm(b * gram + torch.bmm(c * gram, gram), x)
    result: Tensor = (x.transpose(1, 2) if tall else x).float()
    return result
