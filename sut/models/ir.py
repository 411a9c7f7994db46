"""OpenVINO's own model files (IR): an ``.xml`` with the graph, beside a ``.bin`` of the same name with the weights.

Only what has to be known before a run is read, and as XML: the runtime, which reads all of it, is for the processes
that run models.
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from backends.base import TensorSpec
from sut.errors import InputError, one_line
from sut.models.files import ModelInfo, check_beside, nearest_first, read_model
from sut.text import shortened

SUFFIX = ".xml"

_MOST_BYTES = 2**25
"""An IR of a hundred layers takes 0.5 MB; as a tree each byte takes some ten."""
_VERSIONS = ("10", "11")
"""All that OpenVINO reads since 2020."""
_DTYPES = {
    **{"BF16": "bfloat16", "BOOL": "bool"},
    **{f"FP{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"{sign}{bits}": f"{kind}{bits}" for sign, kind in (("I", "int"), ("U", "uint")) for bits in (8, 16, 32, 64)},
}


def check_ir(path: Path) -> ModelInfo:
    """Read the inputs and outputs of an IR, under the names that OpenVINO has for them; its weights are looked for.

    Raises ``InputError`` for what is missing, no IR, of an unknown version, damaged, or lacks its weights.
    """
    net = _net(path)
    inputs, outputs = (tuple(_tensors(path, net, kind)) for kind in ("Parameter", "Result"))
    return ModelInfo(path=path, inputs=inputs, outputs=outputs, beside=_weights(path, net))


def layer_types(path: Path) -> list[str]:
    """The type of each layer of an IR. Raises what ``check_ir`` does for one that cannot be read."""
    return [layer.get("type", "") for layer in _net(path).iter("layer")]


def expose_scores(path: Path, output: str, to: Path) -> str | None:
    """Write a copy of an IR to ``to``, beside its weights, where the output ``output`` shows what its TopK reads.

    That is the TopK nearest before it: what ONNX calls ArgMax is one, too. Returns the name that this output has then;
    None, and nothing is written, where no such layer is found. Raises what ``check_ir`` does.
    """
    net = _net(path)
    place = [spec.name for spec in _tensors(path, net, "Result")].index(output)
    result = _layers(net, "Result")[place]
    [shown] = _edges_to(net, result)
    layers = {layer.get("id"): layer for layer in net.iterfind("layers/layer")}
    for layer in nearest_first(
        shown.get("from-layer"), layers, lambda layer: [edge.get("from-layer") for edge in _edges_to(net, layer)]
    ):
        if layer.get("type") == "TopK":
            [read] = [edge for edge in _edges_to(net, layer) if edge.get("to-port") == "0"]
            shown.attrib.update({key: read.attrib[key] for key in ("from-layer", "from-port")})
            result.attrib.pop("output_names", None)
            to.write_bytes(ElementTree.tostring(net))
            to.with_suffix(".bin").symlink_to(path.with_suffix(".bin").absolute())
            return _tensors(to, net, "Result")[place].name
    return None


def _net(path: Path) -> Element:
    text = read_model(path, _MOST_BYTES, "an .xml file of OpenVINO's").decode("utf-8", errors="replace")
    if "<!DOCTYPE" in text:  # which is all that could make it grow; OpenVINO writes none
        raise InputError(f"model {path} is XML with a DOCTYPE, expected OpenVINO's IR, which has none")
    try:
        net = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise InputError(
            f"model {path} is cut off, damaged or no XML at all ({one_line(error)}), expected OpenVINO's IR; copy or "
            "export it again"
        ) from error
    if net.tag != "net" or net.get("version") not in _VERSIONS:
        got = f"<{shortened(net.tag)}> of version {shortened(net.get('version', 'none'))}"
        raise InputError(
            f"model {path} is XML with {got}, expected OpenVINO's IR: <net> of version {' or '.join(_VERSIONS)}"
        )
    return net


def _layers(net: Element, kind: str) -> list[Element]:
    """Those of the graph itself, without the graphs within its loops."""
    return net.findall(f"layers/layer[@type='{kind}']")


def _edges_to(net: Element, layer: Element) -> list[Element]:
    return [edge for edge in net.iterfind("edges/edge") if edge.get("to-layer") == layer.get("id")]


def _tensors(path: Path, net: Element, kind: str) -> list[TensorSpec]:
    """The inputs (``Parameter``) or outputs (``Result``) of a graph."""
    ports = {
        (layer.get("id"), port.get("id")): port
        for layer in net.iterfind("layers/layer")
        for port in layer.iterfind("output/port")
    }
    found: list[TensorSpec] = []
    for layer in _layers(net, kind):
        places: list[tuple[str | None, str | None]] = [(layer.get("id"), "0")]
        if kind == "Result":
            places = [(edge.get("from-layer"), edge.get("from-port")) for edge in _edges_to(net, layer)]
        port = next((ports[place] for place in places if place in ports), None)
        if port is None:
            raise _damaged(path, f"{layer.get('name')} is not connected")
        name = _name(layer, port, net.get("version") == "10")
        found.append(_spec(path, name or f"{'output' if kind == 'Result' else 'input'}{len(found)}", port))
    return found


def _name(layer: Element, port: Element, is_old: bool) -> str:
    """The name that the backend has for a tensor: the one its node is called after, or the first by the alphabet.

    Empty for a tensor without a name. Up to version 10 all are called after their nodes, whatever else they are called.
    """
    text = layer.get("output_names") or port.get("names") or ""
    names = {name.replace(r"\,", ",") for name in re.split(r"(?<!\\),", text) if name}
    own = layer.get("name", "").partition("/sink_port_")[0]
    if is_old:
        names.add(own)
    is_result = layer.get("type") == "Result"
    return own if is_result and own in names else min(names, default="")


def _spec(path: Path, name: str, port: Element) -> TensorSpec:
    precision = port.get("precision", "")
    try:
        axes = [int(axis.text or "") for axis in port.findall("dim")]
    except ValueError:
        raise _damaged(path, f"{name} has an axis that is no number") from None
    return TensorSpec(name, _DTYPES.get(precision, precision), tuple(axis if axis >= 0 else None for axis in axes))


def _weights(path: Path, net: Element) -> tuple[Path, ...]:
    """The .bin file, there and long enough; none for a graph that needs none and has none."""
    file = path.with_suffix(".bin")
    constants = (data.attrib for data in net.iterfind(".//layer[@type='Const']/data"))
    try:
        needed = max((int(each["offset"]) + int(each["size"]) for each in constants), default=0)
    except (KeyError, ValueError):
        raise _damaged(path, f"a constant of it has no place in {file.name}") from None
    if not needed and not file.is_file():
        return ()
    check_beside(path, file, needed)
    return (file,)


def _damaged(path: Path, why: str) -> InputError:
    return InputError(f"model {path} is damaged: {why}; export it again")
