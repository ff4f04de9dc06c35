"""The training loop that the stages share: AdamW, one-cycle learning rate, seeded by step, resumable."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

_SAVE_EVERY = 250
_LOG_EVERY = 50


def fit(
    name: str,
    model: nn.Module,
    loss_of: Callable[[torch.Generator], Tensor],
    *,
    steps: int,
    learning_rate: float,
    folder: Path,
    seed: int,
    weight_decay: float = 0.01,
    ema: nn.Module | None = None,
) -> None:
    """Train ``model`` for ``steps`` calls of ``loss_of``; go on where ``folder/NAME.pt`` left off.

    Every step draws from its own generator, seeded by (seed, step), so a resumed run equals an undisturbed
    one. ``ema`` follows the weights with decay min(0.999, (1 + step) / (10 + step)).
    """
    state_file = folder / f"{name}.pt"
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=learning_rate, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=steps, pct_start=0.08
    )
    start = 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        start = state["step"]
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        if ema is not None:
            ema.load_state_dict(state["ema"])
    began, mean = time.monotonic(), 0.0
    for step in range(start, steps):
        loss = loss_of(torch.Generator().manual_seed(seed * 1_000_003 + step))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if ema is not None:
            _follow(ema, model, min(0.999, (1 + step) / (10 + step)))
        mean = loss.item() if step == start else 0.98 * mean + 0.02 * loss.item()
        if (step + 1) % _LOG_EVERY == 0:
            pace = (time.monotonic() - began) / (step + 1 - start)
            print(
                f"{name} {step + 1}/{steps} loss {mean:.4f} {pace:.3f} s/step "
                f"{pace * (steps - step - 1) / 60:.1f} min left",
                flush=True,
            )
        if (step + 1) % _SAVE_EVERY == 0 or step + 1 == steps:
            state = {"step": step + 1, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
            state |= {"schedule": schedule.state_dict()} | ({} if ema is None else {"ema": ema.state_dict()})
            torch.save(state, state_file.with_suffix(".part"))
            state_file.with_suffix(".part").replace(state_file)


@torch.no_grad()
def _follow(ema: nn.Module, model: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(ema.parameters()), list(model.parameters()), 1 - decay)
