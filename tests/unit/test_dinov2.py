"""DINOv2's tower is transformers', out of its own weights and out of an exported graph."""

import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from transformers.models.dinov2.configuration_dinov2 import Dinov2Config
from transformers.models.dinov2.modeling_dinov2 import Dinov2Model

from featherseg.core.errors import UserError
from featherseg.models.towers.dinov2 import build_dinov2, interpolated, on_grid
from featherseg.models.towers.dinov2_onnx import dinov2_of, read_graph

WIDTH, DEPTH, HEADS, PATCH, PLACES = 32, 3, 2, 4, 5
RENAMED = {"attention.q_proj": "attention.attention.query", "attention.k_proj": "attention.attention.key",
           "attention.v_proj": "attention.attention.value", "attention.o_proj": "attention.output.dense"}
TABLE = "embeddings.position_embeddings"


@pytest.fixture(scope="module")
def reference() -> Dinov2Model:
    torch.manual_seed(0)
    model = Dinov2Model(Dinov2Config(
        hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=HEADS, image_size=PATCH * PLACES,
        patch_size=PATCH)).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def exported(name: str) -> str:
    """The name that an export gives a tensor of transformers' model."""
    for own, theirs in RENAMED.items():
        name = name.replace(f".{own}.", f".{theirs}.")
    return f"backbone.{name}"


def is_matrix(name: str, tensor: torch.Tensor) -> bool:
    return tensor.ndim == 2 and name.endswith(".weight")


@pytest.fixture
def graph(reference, tmp_path):
    """An ONNX file in the form of torch's export of a module whose `backbone` is the reference."""
    tensors, nodes = {}, []
    for count, (name, tensor) in enumerate(reference.state_dict().items()):
        if name == TABLE:
            tensors |= {"onnx::Concat_1": tensor[:, :1], "onnx::Reshape_2": tensor[:, 1:]}
            place = "/backbone/embeddings"
            nodes += [helper.make_node("Concat", ["onnx::Concat_1", "shape"], ["first"], f"{place}/Concat_5"),
                      helper.make_node("Reshape", ["onnx::Reshape_2", "shape"], ["grid"], f"{place}/Reshape_1")]
        elif is_matrix(name, tensor):
            key = f"onnx::MatMul_{100 - count}"  # numbered otherwise than the blocks are
            path = exported(name).removesuffix(".weight").replace(".", "/").replace("encoder/layer/", "encoder/layer.")
            tensors[key] = tensor.T
            nodes.append(helper.make_node("MatMul", ["states", key], [f"out{count}"], f"/{path}/MatMul"))
        elif "mask_token" not in name:
            tensors[exported(name)] = tensor
    values = [numpy_helper.from_array(tensor.contiguous().numpy(), name) for name, tensor in tensors.items()]
    made = helper.make_graph(nodes, "saliency", [helper.make_tensor_value_info("input", TensorProto.FLOAT, None)], [],
                             values)
    onnx.save(helper.make_model(made), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def states_of(tower, pixels):
    states = tower._pos_embed(tower.patch_embed(pixels))
    for block in tower.blocks:
        states = block(states)
    return tower.norm(states)


@pytest.mark.parametrize("side", [PLACES, 3, 8])
def test_an_exported_graph_is_transformers_model_at_any_size(reference, graph, side):
    tensors = dinov2_of(*read_graph(graph), "model.onnx")
    tower = build_dinov2(WIDTH, DEPTH, HEADS, PATCH, side * PATCH).double().eval()
    tower.load_state_dict(on_grid(tensors, side))
    pixels = torch.randn(2, 3, side * PATCH, side * PATCH, dtype=torch.double)
    with torch.no_grad():
        expected = reference(pixels).last_hidden_state
        assert torch.allclose(states_of(tower, pixels), expected, atol=1e-9)


def test_places_on_their_own_grid_stay_and_others_lie_between():
    places = torch.arange(9.0).view(1, 9, 1)
    assert torch.equal(interpolated(places, 3), places)
    wider = interpolated(places, 6)
    assert wider.shape == (1, 36, 1) and wider.mean() == pytest.approx(4.0, abs=1e-4)
    assert torch.equal(interpolated(places[:, :8], 3), places[:, :8])  # on no square grid


def test_tensors_that_are_none_of_dinov2_come_back_as_they_are():
    odd = {"cls_token": torch.zeros(1, 4), "pos_embed": torch.zeros(1, 10, 4)}
    assert on_grid(odd, 3) is odd


def test_a_graph_of_something_else_is_one_sentence(graph, tmp_path):
    tensors, inputs = read_graph(graph)
    del inputs["/backbone/encoder/layer.1/mlp/fc1/MatMul"]
    with pytest.raises(UserError, match=r"model\.onnx does not hold DINOv2 .*layer\.1/mlp/fc1/MatMul.* is missing"):
        dinov2_of(tensors, inputs, "model.onnx")
    tensors, inputs = read_graph(graph)
    for prefix, said in (("backbone.encoder.layer", "backbone.encoder.layer"),
                         ("onnx::Concat", "class token's position")):
        fewer = {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}
        with pytest.raises(UserError, match=f"does not hold DINOv2 .*{said}.* is missing"):
            dinov2_of(fewer, inputs, "model.onnx")
    (tmp_path / "no.onnx").write_bytes(b"no graph at all")
    with pytest.raises(UserError, match=r"no\.onnx is no ONNX graph"):
        read_graph(tmp_path / "no.onnx")
