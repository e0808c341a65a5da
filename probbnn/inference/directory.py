"""The directory of a run that can be resumed: what was asked for, its checkpoints, its draws.

- ``sampling.json``: the call, what identifies the posterior, versions, and how it ended;
- ``checkpoints/``: the newest two, see `probbnn.inference.checkpoint`;
- ``draws.zarr``: draws and their statistics, see `probbnn.inference.store`;
- ``progress.json``: where the run is, for whoever watches it;
- ``lock``: held by the process that is at work.
"""

import contextlib
import hashlib
import json
import os
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from probbnn.errors import InputError
from probbnn.files import claim, write_json
from probbnn.inference.checkpoint import Checkpoints
from probbnn.inference.plan import Plan
from probbnn.inference.runner import Run, RunState
from probbnn.inference.store import ZarrStore
from probbnn.machine import environment
from probbnn.posterior.base import Posterior
from probbnn.types import Position, PRNGKey

__all__ = ["Lock", "SamplingDirectory"]

_FILE = "sampling.json"
# Of these the draws depend on the version.
_DECISIVE = ("probbnn", "jax", "jaxlib", "flax", "optax", "blackjax", "numpyro")
_NUM_EXAMPLES = 64


class Lock:
    """Held by the one process that works on a directory; a killed process holds it no longer.

    Raises:
        InputError: if another process holds it.
    """

    def __init__(self, directory: Path) -> None:
        path = directory / "lock"
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        try:
            import fcntl
        except ImportError:  # not a system that has it
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._file, 32).decode(errors="replace").strip()
            os.close(self._file)
            raise InputError(
                f"another process ({holder or 'unknown'}) is at work on {directory}; wait for it, "
                "or stop it"
            ) from error
        os.ftruncate(self._file, 0)
        os.write(self._file, str(os.getpid()).encode())

    def release(self) -> None:
        """Let others have it."""
        with contextlib.suppress(OSError):
            os.close(self._file)


class SamplingDirectory:
    """A directory in which a run is kept.

    Attributes:
        path: where.
        record: the content of ``sampling.json``.
        store: where the run's draws go.
    """

    def __init__(self, path: Path, record: dict[str, Any], lock: Lock) -> None:
        self.path = path
        self.record = record
        self.store = ZarrStore(path / "draws.zarr")
        self._checkpoints = Checkpoints(path / "checkpoints")
        self._lock = lock
        self._told: set[str] = set()

    @classmethod
    def create(
        cls,
        out: str | os.PathLike[str],
        target: Posterior,
        call: Mapping[str, Any],
        rng_key: PRNGKey,
        positions: Position,
    ) -> Self:
        """Claim a directory for a run.

        Args:
            out: where; it must not exist, or be empty.
            target: what is sampled.
            call: what `probbnn.inference.sample.prepare` gives for the record.
            rng_key: of the run, of which the kind goes on record.
            positions: the starts, of which the types do.

        Raises:
            InputError: if it holds anything, or cannot be written.
        """
        path = Path(out).expanduser()
        claim(path)
        record = {
            "status": "running",
            "call": dict(call),
            "identity": identity(target),
            "environment": _decisive(),
            "key": _kind_of_key(rng_key),
            "dtypes": [str(leaf.dtype) for leaf in jax.tree.leaves(positions)],
        }
        return cls(path, record, Lock(path))

    @classmethod
    def open(cls, path: Path) -> Self:
        """A directory that some process has written.

        Raises:
            InputError: if it is none, is damaged, or another process is at work on it.
        """
        record = read_record(path)
        return cls(path, record, Lock(path))

    def begin(self, run: Run, state: RunState) -> None:
        """Write the first checkpoint, and only then the record: where that is, there is a state."""
        if not (self.path / _FILE).exists():
            self.save(run, state)
            self._tell(self._checkpoints.wait())
            self._write()

    def check(self, target: Posterior, *, force: bool) -> None:
        """See that going on gives what an uninterrupted run would have given.

        Raises:
            InputError: if the posterior is another one, which nothing can mend, or if versions or
                machine are, unless ``force`` says to go on all the same.
        """
        found, wanted = identity(target), self.record["identity"]
        for what, before in wanted.items():
            if not _same(before, found.get(what)):
                raise InputError(
                    f"{self.path} was sampled with another {what} ({_short(before)}, now "
                    f"{_short(found.get(what))}); give what it was begun with"
                )
        now = _decisive()
        changed = [
            f"{name} {before} (now {now.get(name)})"
            for name, before in self.record["environment"].items()
            if before != now.get(name)
        ]
        if changed and not force:
            raise InputError(
                f"{self.path} was begun with {', '.join(changed)}: its draws would not be those of "
                "an uninterrupted run; go on all the same with force=True"
            )

    def save(self, run: Run, state: RunState, stopped: str = "") -> None:
        """Write a checkpoint in the background; ``stopped``: why the run has ended, if it has."""
        plan = run.plan
        record = {
            "plan": {
                "num_steps": plan.num_steps,
                "num_warmup": plan.num_warmup,
                "thinning": plan.thinning,
                "phases": [list(phase) for phase in plan.phases or ()],
            },
            "seconds": state.seconds,
            "compile_seconds": state.compile_seconds,
            "rate": state.rate,
            "stopped": stopped,
            "settled": int(state.clock.step) >= plan.num_warmup,
        }
        self._tell(self._checkpoints.save(state.on_device, record))

    def _tell(self, trouble: str | None) -> None:
        if trouble and trouble not in self._told:
            self._told.add(trouble)
            warnings.warn(
                f"a checkpoint in {self.path} could not be written ({trouble}); the one before it "
                "is still there",
                stacklevel=4,
            )

    def newest(self, template: RunState, settled: RunState) -> tuple[RunState, Plan, str] | None:
        """State, plan and why it had stopped, of the newest checkpoint; ``None`` if there is none.

        Warns of newer ones that cannot be read.

        Args:
            template: a state of the same structure and types.
            settled: the same after warm-up.

        Raises:
            InputError: if none can be read.
        """
        found = self._checkpoints.newest(
            lambda record: (settled if record["settled"] else template).on_device
        )
        if found is None:
            return None
        for note in found.notes:
            warnings.warn(f"{self.path}: {note}; an earlier one is used", stacklevel=3)
        if found.state is None:
            raise InputError(
                f"{self.path}: no checkpoint can be read ({'; '.join(found.notes)}); start anew in "
                "another directory"
            )
        content, made = found.record["plan"], found.record
        phases = tuple((start, end) for start, end in content["phases"])
        plan = Plan(content["num_steps"], content["num_warmup"], content["thinning"], phases)
        state = RunState(*found.state)._replace(
            rate=made["rate"], seconds=made["seconds"], compile_seconds=made["compile_seconds"]
        )
        return state, plan, made["stopped"]

    def note_progress(self, **numbers: float | None) -> None:
        """Write where the run is."""
        with contextlib.suppress(OSError):  # of no concern to the run
            write_json(self.path / "progress.json", {"written": time.time(), **numbers})

    def end(self, status: str) -> None:
        """Put on record how it ended, when all checkpoints are written."""
        self.record["status"] = status
        self._tell(self._checkpoints.wait())
        with contextlib.suppress(OSError):  # the checkpoint is what counts
            self._write()

    def close(self) -> None:
        """Let go of the directory."""
        self._checkpoints.close()
        self._lock.release()

    def _write(self) -> None:
        write_json(self.path / _FILE, self.record)


def read_record(path: Path) -> dict[str, Any]:
    """The content of ``sampling.json``.

    Raises:
        InputError: if there is none, or it is none of ours.
    """
    try:
        record = json.loads((path / _FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} holds no run that can be resumed: it has no {_FILE}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path / _FILE} cannot be read ({error})") from error
    needed = {"status": str, "call": dict, "identity": dict, "environment": dict, "dtypes": list}
    for name, kind in needed.items():
        if not isinstance(record, dict) or not isinstance(record.get(name), kind):
            raise InputError(f"{path / _FILE} is damaged: it has no {name}")
    return record


def identity(target: Posterior) -> dict[str, Any]:
    """What tells one posterior from another: its data, and its density at a fixed position."""
    arrays = [np.asarray(leaf) for leaf in jax.tree.leaves(target.data)]
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    position = target.init(jax.random.key(0))
    some = target.data.gather(jnp.arange(min(_NUM_EXAMPLES, target.data_size)))
    shapes = {
        jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree.leaves_with_path(position)
    }
    return {
        "network": shapes,
        "data": digest.hexdigest()[:16],
        "prior": float(target.logprior_fn(position)),
        "network or likelihood": float(target.pointwise_loglikelihood_fn(position, some).sum()),
    }


def _same(before: Any, now: Any) -> bool:
    if isinstance(before, float) and isinstance(now, float):
        # Up to what another version or machine makes of the same sum.
        return bool(np.isclose(before, now, rtol=1e-4, atol=1e-4))
    return before == now


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _decisive() -> dict[str, Any]:
    """Versions and machine, as far as draws depend on them."""
    made = environment()
    device = made["device"]
    return {
        **{name: made["versions"].get(name) for name in _DECISIVE},
        "device": f"{device['count']} x {device['kind']}",
        "64-bit numbers": bool(jnp.zeros(0, float).dtype == "float64"),
    }


def _kind_of_key(key: PRNGKey) -> str:
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return str(jax.random.key_impl(key)) if typed else ""
