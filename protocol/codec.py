"""Encoders and decoders, built once.

A peer that breaks the rules raises `MalformedMessage`, whatever the decoder underneath raised.
"""

from typing import Any, Final, TypeVar

import msgspec

from protocol.messages import Answer, Request, RunnerMessage, ServerMessage

JSON_TYPE: Final = "application/json"
MSGPACK_TYPE: Final = "application/msgpack"

T = TypeVar("T")

_json_encoder: Final = msgspec.json.Encoder()
_msgpack_encoder: Final = msgspec.msgpack.Encoder()
_request_decoder: Final = msgspec.msgpack.Decoder(Request)
_answer_decoder: Final = msgspec.msgpack.Decoder(Answer)
_body_decoders: Final[dict[str, Any]] = {
    JSON_TYPE: msgspec.json.Decoder(RunnerMessage),
    MSGPACK_TYPE: msgspec.msgpack.Decoder(RunnerMessage),
}
_reply_decoders: Final[dict[str, Any]] = {
    JSON_TYPE: msgspec.json.Decoder(ServerMessage),
    MSGPACK_TYPE: msgspec.msgpack.Decoder(ServerMessage),
}


class MalformedMessage(ValueError):
    """A peer sent bytes that are no message of the protocol; the text says where they stop making sense."""


def encode_json(value: Any) -> bytes:
    """JSON of any struct or builtin; bytes fields become base64."""
    return _json_encoder.encode(value)


def encode_frame(frame: Request | Answer) -> bytes:
    """One WebSocket frame, msgpack."""
    return _msgpack_encoder.encode(frame)


def encode_body(message: RunnerMessage | ServerMessage, content_type: str) -> bytes:
    """One HTTP body, in the negotiated content type."""
    return _msgpack_encoder.encode(message) if content_type == MSGPACK_TYPE else _json_encoder.encode(message)


def decode_request_frame(data: bytes) -> Request:
    """The runner's frame; raises `MalformedMessage`."""
    return _decode(_request_decoder, data)  # type: ignore[no-any-return]  # the decoder is built for it


def decode_answer_frame(data: bytes) -> Answer:
    """The control plane's frame; raises `MalformedMessage`."""
    return _decode(_answer_decoder, data)  # type: ignore[no-any-return]  # the decoder is built for it


def decode_runner_body(data: bytes, content_type: str) -> RunnerMessage:
    """A runner's HTTP body; raises `MalformedMessage`."""
    return _decode(_body_decoders[content_type], data)  # type: ignore[no-any-return]  # the decoder is built for it


def decode_server_body(data: bytes, content_type: str) -> ServerMessage:
    """The control plane's HTTP answer; raises `MalformedMessage`."""
    return _decode(_reply_decoders[content_type], data)  # type: ignore[no-any-return]  # the decoder is built for it


def _decode(decoder: Any, data: bytes) -> Any:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, ValueError) as error:
        # Depth bombs surface as RecursionError, bad UTF-8 as UnicodeDecodeError: all of it is the peer's fault.
        raise MalformedMessage(f"not a message of the runner protocol: {error}") from error
