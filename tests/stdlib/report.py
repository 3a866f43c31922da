"""The report, as text and as JSON."""

import dataclasses
import json
import platform

from .compare import Comparison, stale

__all__ = ["as_json", "print_deviations", "print_table"]


def print_table(plain, comparisons, columns):
    """Module by module: how many tests of those that pass on plain Python pass in each column."""
    by_place = {(one.module, one.column): one for one in comparisons}
    others = [column for column in columns if column != "plain"]
    width = max(map(len, plain), default=0)
    print(f"\nPython {platform.python_version()}: tests that pass, of those that pass on plain Python\n")
    print(f"{'module':{width}}  {'plain':>6}" + "".join(f"  {column:>14}" for column in others))
    for module, outcomes in plain.items():
        passed = sum(outcome.passed for outcome in outcomes.values())
        cells = (_cell([by_place[module, column]] if (module, column) in by_place else []) for column in others)
        print(f"{module:{width}}  {passed:>6}" + "".join(f"  {cell:>14}" for cell in cells))
    total = sum(outcome.passed for outcomes in plain.values() for outcome in outcomes.values())
    sums = [_cell([one for one in comparisons if one.column == column]) for column in others]
    print(f"{'total':{width}}  {total:>6}" + "".join(f"  {cell:>14}" for cell in sums))
    shares = [_share([one for one in comparisons if one.column == column]) for column in others]
    print(f"{'':{width}}  {'':>6}" + "".join(f"  {share:>14}" for share in shares))


def _cell(comparisons: list[Comparison]) -> str:
    if not comparisons:
        return "-"
    passed, expected = sum(one.passed for one in comparisons), sum(len(one.expected) for one in comparisons)
    hung = sum(deviation.outcome.kind == "hung" for one in comparisons for deviation in one.deviations)
    return f"{passed} of {expected}" if not hung else f"{passed} of {expected}, {hung} hung"


def _share(comparisons: list[Comparison]) -> str:
    expected = sum(len(one.expected) for one in comparisons)
    # Rounded down: what is not all must not read as all.
    return f"{sum(one.passed for one in comparisons) * 10_000 // expected / 100:.2f} %" if expected else "-"


def print_deviations(comparisons, *, details):
    for one in comparisons:
        for deviation in one.deviations:
            is_fault = deviation in one.faults
            reason = deviation.known.reason if deviation.known else "NOT IN THE TABLE" if is_fault else "-"
            print(f"\n{one.column}: {deviation.name} {deviation.outcome.kind}: {reason}")
            if is_fault and details:
                print(_indented(deviation.outcome.detail))
    for one in comparisons:
        for deviation in one.unsteady:
            print(f"\n{one.column}: {deviation.name} {deviation.outcome.kind}, but not when it was run again")
    for known in stale(comparisons):
        print(f"\nin the table, but passes now: {known.tests} ({', '.join(known.columns)}): {known.reason}")


def _indented(text):
    return "\n".join(f"    {line}" for line in text.rstrip().splitlines()[-12:])


def as_json(plain, comparisons):
    def told(outcomes):
        return {name: dataclasses.asdict(outcome) for name, outcome in outcomes.items()}

    columns = {"plain": {module: told(outcomes) for module, outcomes in plain.items()}}
    for one in comparisons:
        columns.setdefault(one.column, {})[one.module] = told(one.outcomes)
    deviations = [
        {
            "column": one.column,
            "test": deviation.name,
            "outcome": dataclasses.asdict(deviation.outcome),
            "reason": deviation.known and deviation.known.reason,
        }
        for one in comparisons
        for deviation in one.deviations
    ]
    totals = {
        column: {
            "passed": sum(one.passed for one in comparisons if one.column == column),
            "expected": sum(len(one.expected) for one in comparisons if one.column == column),
        }
        for column in columns
        if column != "plain"
    }
    whole = {"python": platform.python_version(), "totals": totals, "deviations": deviations, "columns": columns}
    return json.dumps(whole, indent=1)
