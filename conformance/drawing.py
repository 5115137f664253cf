"""A rig drawn as a stack, and the parts of a case in words. Pure text; knows nothing of a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pydantic import BeforeValidator

from conformance.model import Arm, Layer, NoShortage, Shortage, Step, Value, format_size, parse_size

_OWN_WORDS = frozenset({"name", "layer", "role", "verb", "kind", "limit"})
"""Fields that are told apart from the others, or that are no part of what is done."""


def words(value: Value, *, but: Iterable[str] = ()) -> str:
    """What is said of a layer, a step or a shortage, without what is as it always is."""
    told = []
    for name, field in type(value).model_fields.items():
        held = getattr(value, name)
        if name in but or held in (field.default, ()):
            continue
        sized = any(
            isinstance(extra, BeforeValidator) and extra.func is parse_size
            for extra in field.metadata
        )
        told.append(f"{name.replace('_', ' ')} {_word(held, sized=sized)}")
    return ", ".join(told)


def _word(held: object, *, sized: bool) -> str:
    if isinstance(held, Value):
        return f"({words(held)})"
    if isinstance(held, bool):
        return "yes" if held else "no"
    if isinstance(held, int):
        # A size behind a union has lost its mark; below a page nothing is meant as one.
        return format_size(held) if sized or held >= 4096 else str(held)
    if isinstance(held, tuple):
        return " ".join(_word(one, sized=sized) for one in held)
    return str(held)


def step_words(step: Step) -> str:
    """What a step does, with its limit in seconds left out."""
    return words(step, but=_OWN_WORDS)


def shortage_words(shortage: Shortage) -> str:
    """What runs short."""
    kind = getattr(shortage, "kind", "")
    return f"{kind} ({words(shortage, but={'kind', 'layer'})})"


def stack(arm: Arm) -> list[str]:
    """The layers as boxes upon each other, the bottom below, and what runs short beside its own."""
    short = getattr(arm.shortage, "layer", None)
    named = {layer.name: layer for layer in arm.layers}
    chains = _chains(arm.layers, named)
    lines: list[str] = []
    for number, (chain, rest) in enumerate(chains):
        texts = [_label(layer) for layer in chain]
        width = max(map(len, texts)) + 2
        if number:
            lines.append("")
        lines.append(f"┌{'─' * width}┐")
        for place, (layer, text) in enumerate(zip(chain, texts, strict=True)):
            if place:
                lines.append(f"├{'─' * width}┤")
            mark = f"  ◄ {shortage_words(arm.shortage)}" if layer.name == short else ""
            lines.append(f"│ {text:<{width - 2}} │{mark}")
        lines.append(f"└{'─' * width}┘")
        if rest:
            lines[-1] += f"  on {rest}, above"
    told = short is not None or arm.shortage.binds in arm.cgroups
    if not told and not isinstance(arm.shortage, NoShortage):
        lines.append(f"short: {shortage_words(arm.shortage)}")
    return lines


def _label(layer: Layer) -> str:
    skipped = _OWN_WORDS | set(layer.STANDS_ON)
    more = words(layer, but=skipped - {"limit"})
    below = [name for _, name in layer.supports()]
    over = f" over {' and '.join(below)}" if len(below) > 1 else ""
    return f"{layer.name}: {layer.SORT}{over}{', ' + more if more else ''}"


def _chains(
    layers: Sequence[Layer], named: Mapping[str, Layer]
) -> list[tuple[tuple[Layer, ...], str]]:
    """Stacks from top to bottom, the tallest first; each with what it stands on of an earlier one."""
    carried = {name for layer in layers for _, name in layer.supports()}
    starts = [layer for layer in layers if layer.name not in carried]
    tops = len(starts)
    stacks: list[list[Layer]] = []
    for start in starts:  # grows: what a layer stands on besides is a stack of its own
        chain = [start]
        while below := [named[name] for _, name in chain[-1].supports()]:
            starts += [layer for layer in below[1:] if layer not in starts]
            chain.append(below[0])
        stacks.append(chain)
    stacks = sorted(stacks[:tops], key=len, reverse=True) + stacks[tops:]
    drawn: set[str] = set()
    found = []
    for chain in stacks:
        own = [layer for layer in chain if layer.name not in drawn]
        if not own:
            continue
        rest = chain[len(own)].name if len(own) < len(chain) else ""
        drawn |= {layer.name for layer in own}
        found.append((tuple(own), rest))
    return found
