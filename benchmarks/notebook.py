"""The seed notebook's experiment on real MNIST and Fashion-MNIST, beside its published figures.

    python benchmarks/notebook.py [--data-dir DIR] [--out DIR] [--seed N]

writes ``results/notebook.json`` and ``results/notebook.md``, and the run directory with the four
figures. It also times the notebook's pSGLD step run by the chain runner against the same step run
as the notebook runs it, one jitted call per Python iteration, alternately in the same process.
About 10 minutes on two cores.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _results import markdown_table, new_run_directory, write

import probbnn as pb
from probbnn.experiment import RunResult, run
from probbnn.presets import find_preset

# probml/pyprobml, notebook bnn_mnist_sgld_jaxbayes: {step: (train or val, test)} accuracies.
PUBLISHED_SGD = {
    0: (0.362, 0.368),
    500: (0.971, 0.963),
    1000: (0.985, 0.977),
    1500: (0.986, 0.977),
    2000: (0.989, 0.980),
    2500: (0.992, 0.981),
    3000: (0.995, 0.981),
    3500: (0.991, 0.973),
    4000: (0.994, 0.981),
    4500: (0.996, 0.982),
    5000: (0.994, 0.981),
}
PUBLISHED_SGLD = {
    500: (0.512, 0.526),
    1000: (0.806, 0.803),
    1500: (0.869, 0.875),
    2000: (0.902, 0.907),
    2500: (0.917, 0.921),
    3000: (0.930, 0.929),
    3500: (0.940, 0.938),
    4000: (0.944, 0.941),
    4500: (0.947, 0.944),
    5000: (0.952, 0.946),
}
# (predicts on at threshold 0.6, right of those) on Fashion-MNIST, as the notebook's text says.
PUBLISHED_FASHION = {"sgd": ("about 80 %", "about 6 %"), "sgld": ("less than 20 %", "about 4 %")}
PUBLISHED_SECONDS = {"sgd": 22.9, "sgld": 23.3}

TIMED_STEPS = 150
TIMED_ROUNDS = 3


def main() -> None:
    """Time both loops, run the preset, and write the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="TFDS data directory (default: TFDS_DATA_DIR)")
    parser.add_argument("--out", type=Path, default=new_run_directory("notebook"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    train, _ = pb.load("mnist", arguments.data_dir)
    print("timing the chain runner against a host loop …", flush=True)
    speed = compare_speed(train)
    result = run(
        find_preset("notebook"),
        arguments.out,
        seed=arguments.seed,
        data_dir=arguments.data_dir,
        report=partial(print, flush=True),
    )
    content = {"seed": arguments.seed, **figures_of(result, train), "speed": speed}
    command = f"python benchmarks/notebook.py --seed {arguments.seed}"
    write("notebook", command, content, page(content))


def figures_of(result: RunResult, train: pb.Dataset) -> dict[str, Any]:
    """Everything that the notebook reports, as we measured it."""
    found: dict[str, Any] = {}
    for method, kind in (("map", "plug_in"), ("psgld", "votes")):
        metrics = result.metrics["methods"][method]
        fashion = metrics["sets"]["fashion"][kind]["thresholds"]
        at = fashion["thresholds"].index(0.6)
        found[metrics["label"]] = {
            # The notebook counts steps from 0 and reports after the step.
            "curve": {p["step"] - 1: (p["train"], p["test"]) for p in metrics["curve"]},
            "seconds": metrics["seconds"],
            "fashion_at_0.6": {
                "predicts": fashion["coverage"][at],
                "right": fashion["accuracy"][at],
            },
        }
    draws = next(m.draws for m in result.methods if m.method == "psgld")
    kernel = draws.positions["Dense_0"]["kernel"][:, -1]
    never_inked = (train.images == 0).all(axis=0).ravel()
    log_density = draws.trace["logdensity"].mean(axis=0)
    found["chains"] = {
        "temperature": draws.temperature,
        "first_kernel_shape": list(kernel.shape),
        "first_kernel_std": float(kernel.std()),
        "never_inked_pixels": int(never_inked.sum()),
        "never_inked_std": float(kernel[:, never_inked].std()),
        # Stationary chains would keep their level.
        "log_density_over_temperature": {
            str(stop): float(log_density[stop - 500 : stop].mean() / draws.temperature)
            for stop in range(1_000, 5_001, 1_000)
        },
    }
    return found


def page(content: dict[str, Any]) -> str:
    """The results as Markdown, our figures beside the published ones."""
    speed = content["speed"]
    parts = ["# The seed notebook, reproduced\n"]
    for label, title, published in (
        ("sgd", "SGD (RMSprop 1e-3): accuracy on train[:10000] / test", PUBLISHED_SGD),
        ("sgld", "RMS-SGLD, 10 chains: accuracy on train[:10000] / test", PUBLISHED_SGLD),
    ):
        curve = content[label]["curve"]
        rows = [
            [step, *(f"{a:.3f} / {b:.3f}" for a, b in (curve[step], theirs))]
            for step, theirs in published.items()
        ]
        rows.append(["seconds", f"{content[label]['seconds']:.1f}", PUBLISHED_SECONDS[label]])
        parts += [f"## {title}\n", markdown_table(["step", "probbnn", "published"], rows), ""]
    rows = []
    for label, name in (("sgd", "plug-in"), ("sgld", "votes of 10 chains")):
        ours = content[label]["fashion_at_0.6"]
        right = "no predictions" if ours["right"] is None else f"{100 * ours['right']:.1f} %"
        predicts, theirs_right = PUBLISHED_FASHION[label]
        rows.append([name, f"{100 * ours['predicts']:.1f} %", predicts, right, theirs_right])
    header = ["Fashion-MNIST at threshold 0.6", "predicts on", "published", "right", "published"]
    parts += ["## Distribution shift\n", markdown_table(header, rows), ""]
    chains = content["chains"]
    levels = ", ".join(
        f"{v:,.0f} (to step {k})" for k, v in chains["log_density_over_temperature"].items()
    )
    parts += [
        "## What the chains are doing\n",
        f"T = {chains['temperature']:,.0f}. The first kernel's draws have shape "
        f"{tuple(chains['first_kernel_shape'])} and standard deviation "
        f"{chains['first_kernel_std']:.0f}; {chains['never_inked_std']:.0f} on the "
        f"{chains['never_inked_pixels']} pixels that are never inked in training. Mean log "
        f"density / T over 500 steps: {levels}. Chains that had converged would keep their "
        "level.\n",
        "## Speed of one pSGLD step (10 chains x 1,000 shared examples, float32)\n",
        markdown_table(
            ["loop", "ms per step (median)", "rounds"],
            [
                [
                    name,
                    f"{1e3 * speed[key]['median']:.1f}",
                    ", ".join(f"{1e3 * s:.1f}" for s in speed[key]["rounds"]),
                ]
                for name, key in (("probbnn chain runner", "runner"), ("host loop", "host_loop"))
            ],
        ),
        f"\nThe chain runner is {speed['ratio']:.2f} x as fast. Not equal: its noise is the same "
        "Threefry hash with both output words used, where the host loop calls "
        "`jax.random.normal`.",
    ]
    return "\n".join(parts)


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
    preset = find_preset("notebook")
    method = preset.methods["psgld"]
    target = pb.LogDensity(pb.LeNet300100(), train, prior_scale=preset.prior_scale)

    def timed() -> float:
        draws = pb.sample(
            jax.random.key(0),
            target,
            "psgld",
            num_chains=method.num_chains,
            num_steps=TIMED_STEPS,
            num_warmup=TIMED_STEPS - 1,
            batch_size=preset.batch_size,
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
