"""The notebook preset's pSGLD step: the chain runner against a host loop in the notebook's style.

    python benchmarks/speed.py [--data-dir DIR]

runs both in turns, in one process, and writes ``results/speed-jax-VERSION.json`` and
``.md``. About three minutes on two cores. Run nothing beside it.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _results import markdown_table, write

import probbnn as pb
from probbnn.experiments.presets import find_preset

TIMED_STEPS = 150
TIMED_ROUNDS = 5


def main() -> None:
    """Time both loops and write the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="TFDS data directory (default: TFDS_DATA_DIR)")
    arguments = parser.parse_args()
    train, _ = pb.load("mnist", arguments.data_dir)
    speed = compare_speed(train)
    version = ".".join(jax.__version__.split(".")[:2])  # XLA's CPU code differs between them
    write(f"speed-jax-{version}", "python benchmarks/speed.py", speed, page(speed))


def page(speed: dict[str, Any]) -> str:
    """The comparison as Markdown."""
    rows = []
    for name, key in (("probbnn chain runner", "runner"), ("host loop", "host_loop")):
        rounds = ", ".join(f"{1e3 * seconds:.1f}" for seconds in speed[key]["rounds"])
        rows.append([name, f"{1e3 * speed[key]['median']:.1f}", rounds])
    table = markdown_table(["loop", "ms per step (median)", "rounds"], rows)
    return (
        "# Speed of one pSGLD step of the preset `notebook`\n\n"
        "LeNet-300-100, 10 chains x 1,000 shared examples, float32; "
        f"{TIMED_STEPS} steps a round, rounds in turns.\n\n{table}\n\n"
        f"The chain runner is {speed['ratio']:.2f} x as fast. Not equal: its noise is the same "
        "Threefry hash with both output words used, where the host loop calls "
        "`jax.random.normal`; and it also keeps the gradient norm and the log density of each "
        "step."
    )


def compare_speed(train: pb.Dataset) -> dict[str, Any]:
    """Seconds per pSGLD step of the chain runner and of a host loop, measured in turns."""
    runner, host_loop = chain_runner(train), notebook_host_loop(train)
    rounds: dict[str, list[float]] = {"runner": [], "host_loop": []}
    for _ in range(TIMED_ROUNDS):
        rounds["runner"].append(runner())
        rounds["host_loop"].append(host_loop())
    medians = {key: median(values) for key, values in rounds.items()}
    return {
        **{key: {"median": medians[key], "rounds": rounds[key]} for key in rounds},
        "ratio": medians["host_loop"] / medians["runner"],
    }


def chain_runner(train: pb.Dataset) -> Callable[[], float]:
    """The notebook preset's pSGLD through `pb.sample`: returns seconds per step."""
    method = find_preset("notebook").methods["psgld"]
    target = pb.LogDensity(pb.LeNet300100(), train, prior_scale=60**-0.5)

    def timed() -> float:
        draws = pb.sample(
            jax.random.key(0),
            target,
            "psgld",
            num_chains=method.num_chains,
            num_steps=TIMED_STEPS,
            num_warmup=TIMED_STEPS - 1,
            batch_size=1_000,
            shared_minibatches=method.shared_minibatches,
            progress=False,
            **method.settings,
        )
        return draws.seconds / TIMED_STEPS

    return timed


def notebook_host_loop(train: pb.Dataset) -> Callable[[], float]:
    """The same step in the notebook's style, one jitted call per Python iteration."""
    network = pb.LeNet300100()
    step_size, beta, eps, num_chains, batch_size = 5e-3, 0.9, 1e-9, 10, 1_000

    def objective(params: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        logits = network.apply({"params": params}, images.astype(jnp.float32) / 255)
        cross_entropy = -jnp.mean(jax.nn.one_hot(labels, 10) * jax.nn.log_softmax(logits))
        return cross_entropy + 0.5e-4 * sum(jnp.sum(p**2) for p in jax.tree.leaves(params))

    @jax.jit
    def update(rng_key: jax.Array, params: Any, r: Any, images: Any, labels: Any) -> Any:
        grads = jax.vmap(jax.grad(objective), (0, None, None))(params, images, labels)
        r = jax.tree.map(lambda r, g: beta * r + (1 - beta) * g**2, r, grads)
        leaves, structure = jax.tree.flatten(params)
        keys = structure.unflatten(jax.random.split(rng_key, len(leaves)))

        def move(key: jax.Array, p: jax.Array, r: jax.Array, g: jax.Array) -> jax.Array:
            s = step_size / (jnp.sqrt(r) + eps)
            return p - s * g + jnp.sqrt(2 * s) * jax.random.normal(key, p.shape)

        return jax.tree.map(move, keys, params, r, grads), r

    def batches(seed: int) -> Any:
        rng = np.random.default_rng(seed)
        while True:
            order = rng.permutation(len(train))
            for start in range(0, len(train), batch_size):
                index = order[start : start + batch_size]
                yield train.images[index], train.labels[index]

    def init(rng_key: jax.Array) -> Any:
        return network.init(rng_key, jnp.zeros((1, 28, 28, 1)))["params"]

    def timed() -> float:
        params = jax.vmap(init)(jax.random.split(jax.random.key(0), num_chains))
        r = jax.tree.map(jnp.zeros_like, params)
        key, stream = jax.random.key(1), batches(0)
        for step in range(TIMED_STEPS + 1):
            if step == 1:  # the first step compiles
                jax.block_until_ready(params)
                started = time.perf_counter()
            params, r = update(jax.random.fold_in(key, step), params, r, *next(stream))
        jax.block_until_ready(params)
        return (time.perf_counter() - started) / TIMED_STEPS

    return timed


if __name__ == "__main__":
    main()
