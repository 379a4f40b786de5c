"""A model of two nodes, written byte by byte, so that looking at a device needs no ``onnx`` package."""

from __future__ import annotations

#: Edge of the square matrix ``x`` that the model takes, float32.
SIZE = 8
_FLOAT = 1
_IR_VERSION, _OPSET = 10, 21


def probe_model() -> bytes:
    """An ONNX model: ``y = x @ x + x`` for ``x [SIZE, SIZE] float32``.

    A matrix product and a sum make a GPU provider load its libraries and start kernels made for its GPU.
    """
    graph = b"".join(
        [
            _message(1, _node("MatMul", ("x", "x"), "square")),
            _message(1, _node("Add", ("square", "x"), "y")),
            _text(2, "probe"),
            _message(11, _value("x")),
            _message(12, _value("y")),
        ]
    )
    return b"".join([_number(1, _IR_VERSION), _message(7, graph), _message(8, _text(1, "") + _number(2, _OPSET))])


def _node(operator: str, inputs: tuple[str, ...], output: str) -> bytes:
    """A NodeProto."""
    return b"".join([*(_text(1, name) for name in inputs), _text(2, output), _text(3, output), _text(4, operator)])


def _value(name: str) -> bytes:
    """A ValueInfoProto of a float matrix."""
    shape = _message(1, _number(1, SIZE)) * 2
    tensor = _number(1, _FLOAT) + _message(2, shape)
    return _text(1, name) + _message(2, _message(1, tensor))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _text(field: int, value: str) -> bytes:
    return _message(field, value.encode())


def _message(field: int, payload: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    """A number in protobuf's form: seven bits a byte, lowest first, the high bit set on all but the last."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
