"""Draw the rates that `plot` measured, in the environment of the peers. usage: ... PNG < JSON"""

from __future__ import annotations

import json
import sys
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

TITLES = {"depth": "waiting tasks", "workers": "workers"}


def draw(result: dict[str, Any], png: str) -> None:
    """Two diagrams with logarithmic rates: over depth, over workers."""
    mpl.use("agg")
    figure, panels = plt.subplots(1, 2, figsize=(11, 5), sharey=True)
    for panel, (name, title) in zip(panels, TITLES.items(), strict=True):
        for program, rates in result["measures"]["plot"][name].items():
            panel.plot([int(size) for size in rates], list(rates.values()), marker="o", label=program)
        panel.set(xlabel=title, yscale="log", ylim=(10, None))
        panel.grid(visible=True, which="major", alpha=0.4)
    panels[0].set(xscale="log", ylabel="no-op tasks a second")
    panels[1].set_xticks([int(size) for size in next(iter(result["measures"]["plot"]["workers"].values()))])
    panels[1].legend()
    versions = {"PostgreSQL": result["versions"]["postgresql"]}
    for program in result["programs"].values():
        versions |= {name: text for name, text in program["versions"].items() if name != "python"}
    figure.suptitle("No-op tasks a second, all durable, on one PostgreSQL server", fontsize=11)
    made = ", ".join(f"{name} {text}" for name, text in versions.items())
    machine = f"{result['machine']['cpus']} CPUs, load {result['machine']['load']:.1f} at the start, {result['at']}"
    figure.text(0.01, 0.01, f"{made}\n{machine}, {result['sizes']['rounds']} rounds", fontsize=6)
    if result["warnings"]:
        figure.text(0.5, 0.55, "not a measurement: see the warnings", fontsize=22, color="red", alpha=0.4, ha="center")
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(png, dpi=110)


if __name__ == "__main__":
    draw(json.load(sys.stdin), sys.argv[1])
