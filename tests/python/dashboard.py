"""Holds a dashboard against Grafana's own models of dashboards, panels and Prometheus queries: dashboard.py FILE

Every field must be known to the models and go through them unchanged, every value must be of the type they give: one of
an enumeration's, for example. Panels, queries and units must be of kinds that Grafana has. Prints what is not so.
"""

import json
import sys
import types
import typing

from grafana_foundation_sdk.cog import plugins, runtime
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard, RowPanel


def changed(given, kept, place):
    """What went in and did not come out. Fields that came in addition are the models' defaults."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for name, value in given.items():
            if name in kept:
                yield from changed(value, kept[name], f"{place}.{name}")
            else:
                yield f"{place}.{name}: Grafana's models do not know this field"
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for number, pair in enumerate(zip(given, kept, strict=True)):
            yield from changed(*pair, f"{place}[{number}]")
    elif given != kept:
        yield f"{place}: {given!r} becomes {kept!r}"


def mistyped(value, hint, place):
    """The values inside that are not of the types of the models' attributes."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        faults = [list(mistyped(value, one, place)) for one in inner]
        yield from min(faults, key=len)
    elif origin is typing.Literal:
        if value not in inner:
            yield f"{place}: {value!r} is none of {inner}"
    elif origin is list and isinstance(value, list):
        for number, item in enumerate(value):
            yield from mistyped(item, inner[0], f"{place}[{number}]")
    elif hasattr(value, "to_json"):
        for name, of_attribute in typing.get_type_hints(type(value)).items():
            yield from mistyped(getattr(value, name), of_attribute, f"{place}.{name}")
    elif hint not in (object, typing.Any) and not fits(value, origin or hint):
        yield f"{place}: {value!r} is not {hint}"


def fits(value, kind):
    if kind is float:
        return type(value) in (int, float)
    if hasattr(kind, "__members__"):
        return value in kind.__members__.values()
    return type(value) is kind


def charts(dashboard):
    """The panels that are more than headings."""
    return [panel for panel in dashboard.panels if not isinstance(panel, RowPanel)]


def unknown_kinds(dashboard):
    """Kinds are plain strings in the models, which let any pass."""
    known_units = {unit for unit in vars(units).values() if isinstance(unit, str)}
    for panel in charts(dashboard):
        place = f".panels[{dashboard.panels.index(panel)}]"
        if runtime.panelcfg_config(panel.type_val) is None:
            yield f"{place}: there is no panel {panel.type_val!r}"
        if panel.field_config.defaults.unit not in known_units:
            yield f"{place}: there is no unit {panel.field_config.defaults.unit!r}"
        for target in panel.targets:
            if type(target).__module__.rpartition(".")[2] != "prometheus":
                yield f"{place}: a query that is not Prometheus'"


def main():
    plugins.register_default_plugins()
    with open(sys.argv[1], encoding="utf-8") as file:
        given = json.load(file)
    dashboard = Dashboard.from_json(given)
    kept = json.loads(json.dumps(dashboard, cls=JSONEncoder))
    faults = [
        *changed(given, kept, ""),
        *mistyped(dashboard, Dashboard, ""),
        *unknown_kinds(dashboard),
    ]
    for fault in faults:
        print(fault, file=sys.stderr)
    print(f"{len(charts(dashboard))} panels, {sum(len(panel.targets) for panel in charts(dashboard))} queries")
    sys.exit(1 if faults else 0)


main()
