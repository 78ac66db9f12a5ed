"""DINOv2's tensors out of an ONNX graph that was exported from transformers' Dinov2Model.

An export keeps the names of biases and norms, but gives the matrices of linear layers, transposed, and the two parts of
the position table names of its own. They are found by the node that uses them, whose name holds the layer's.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from featherseg.core.errors import UserError

ROOT = "backbone"
LINEAR = {"attention.output.dense": "attn.proj", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
ALONE = {"norm1.weight": "norm1.weight", "norm1.bias": "norm1.bias", "norm2.weight": "norm2.weight",
         "norm2.bias": "norm2.bias", "layer_scale1.lambda1": "ls1.gamma", "layer_scale2.lambda1": "ls2.gamma"}
PROJECTIONS = ("query", "key", "value")
PLACES, TOGETHER = f"/{ROOT}/embeddings/Reshape_1", f"/{ROOT}/embeddings/Concat"


def read_graph(file: Path) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
    """The tensors of an ONNX file by name, and the inputs of its nodes by the node's name.

    Raises:
        UserError: the file is no ONNX graph.
    """
    import onnx

    try:
        graph = onnx.load(file, load_external_data=False).graph
        arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    except Exception as error:  # protobuf's, and whatever odd tensors give
        raise UserError(f"{file} is no ONNX graph ({error}); get it again.") from None
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    return tensors, {node.name: list(node.input) for node in graph.node}


def dinov2_of(tensors: dict[str, Tensor], inputs: dict[str, list[str]], source: str) -> dict[str, Tensor]:
    """DINOv2's tensors under timm's names, the class token's position first in the position table.

    Args:
        tensors, inputs: of the graph, as `read_graph` gives them.
        source: the file, for messages.

    Raises:
        UserError: the graph holds no DINOv2 in the form of this export.
    """
    try:
        return dict(_timms(tensors, inputs))
    except (KeyError, IndexError) as error:
        raise UserError(f"{source} does not hold DINOv2 as transformers exports it: {error} is missing.") from None


def _timms(tensors: dict[str, Tensor], inputs: dict[str, list[str]]) -> Iterator[tuple[str, Tensor]]:
    blocks = {name.split(".")[3] for name in tensors if name.startswith(f"{ROOT}.encoder.layer.")}
    if not blocks:
        raise KeyError(f"{ROOT}.encoder.layer")
    for block in range(len(blocks)):
        exported, own = f"{ROOT}.encoder.layer.{block}", f"blocks.{block}"
        for name, timms in ALONE.items():
            yield f"{own}.{timms}", tensors[f"{exported}.{name}"]
        projections = [f"{exported}.attention.attention.{name}" for name in PROJECTIONS]
        yield f"{own}.attn.qkv.weight", torch.cat([_matrix(name, tensors, inputs) for name in projections])
        yield f"{own}.attn.qkv.bias", torch.cat([tensors[f"{name}.bias"] for name in projections])
        for name, timms in LINEAR.items():
            yield f"{own}.{timms}.weight", _matrix(f"{exported}.{name}", tensors, inputs)
            yield f"{own}.{timms}.bias", tensors[f"{exported}.{name}.bias"]
    for kind in ("weight", "bias"):
        yield f"norm.{kind}", tensors[f"{ROOT}.layernorm.{kind}"]
        yield f"patch_embed.proj.{kind}", tensors[f"{ROOT}.embeddings.patch_embeddings.projection.{kind}"]
    yield "cls_token", tensors[f"{ROOT}.embeddings.cls_token"]
    yield "pos_embed", _positions(tensors, inputs)


def _matrix(layer: str, tensors: dict[str, Tensor], inputs: dict[str, list[str]]) -> Tensor:
    """The weight of a linear layer, (outputs, inputs)."""
    path = layer.replace(".", "/").replace("encoder/layer/", "encoder/layer.")
    return tensors[inputs[f"/{path}/MatMul"][1]].T.contiguous()


def _positions(tensors: dict[str, Tensor], inputs: dict[str, list[str]]) -> Tensor:
    """The position table (1, 1 + g * g, C)."""
    places = tensors[inputs[PLACES][0]]
    shape = (1, 1, places.shape[2])
    joined = [name for node, names in inputs.items() if node.startswith(TOGETHER) for name in names]
    first = [tensors[name] for name in joined if name in tensors and tensors[name].shape == shape]
    if not first:
        raise KeyError("the class token's position")
    return torch.cat([first[0], places], dim=1)
