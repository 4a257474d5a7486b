"""The result as text."""

from __future__ import annotations

from typing import Any


def table(result: dict[str, Any]) -> str:
    """Versions, a row of numbers for each program, and the bounds."""
    columns = {
        f"{measure}: {what}": values
        for measure, found in result["measures"].items()
        for what, values in found.items()
        if isinstance(values, dict) and measure != "plot"
    }
    lines = ["", *_versions(result), ""]
    for title, values in columns.items():
        lines.append(title)
        lines += [f"  {name:<16}{_text(value):>16}" for name, value in values.items()]
    for measure, found in result["measures"].items():
        for bound in found["bounds"]:
            verdict = "ok" if bound["holds"] else "MISSED"
            lines.append(f"{measure}: {bound['what']}: {bound['value']} (at most {bound['at_most']:.3g}) {verdict}")
    return "\n".join([*lines, *(f"WARNING: {text}" for text in result["warnings"])])


def _versions(result: dict[str, Any]) -> list[str]:
    lines = [_pairs(result["versions"]), _pairs(result["settings"]), f"load {result['machine']['load']:.1f}"]
    for name, program in result["programs"].items():
        lines.append(f"{name}: {program['settings']} ({_pairs(program['versions'])})")
    return lines


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _text(value: object) -> str:
    return "..".join(map(str, value)) if isinstance(value, list) else str(value)
