# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""gRPC without generated code: tables of the messages and methods in use, and calls with plain dictionaries.

Generated code fits a narrow range of protobuf's versions, and distributions ship no code for these services. The
tables name the fields in use only: what else an answer holds is passed over.
"""

from __future__ import annotations

import copy

from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError, EngineMissing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    # {message: {field: (number, type)}}. Types are protobuf's scalars and names of messages of the same table, either
    # with "repeated " before it, or "map<key,value>". An enumeration is "int32".
    Messages = dict[str, dict[str, tuple[int, str]]]
    # {short name: (path, message of the request, message of the answer)}
    Methods = dict[str, tuple[str, str, str]]

# Numbers of FieldDescriptorProto.Type.
_SCALARS = {
    "double": 1,
    "float": 2,
    "int64": 3,
    "uint64": 4,
    "int32": 5,
    "bool": 8,
    "string": 9,
    "bytes": 12,
    "uint32": 13,
}
_MESSAGE = 11
_OPTIONAL, _REPEATED = 1, 3
_PACKAGE = "stillpoint"
# Messages of protobuf's own that any table may name.
_WELL_KNOWN: Messages = {
    "Empty": {},
    "Any": {"type_url": (1, "string"), "value": (2, "bytes")},
    "Timestamp": {"seconds": (1, "int64"), "nanos": (2, "int32")},
}


class CallError(EngineError):
    """A call failed; ``code`` is gRPC's name of the kind, for instance ``NOT_FOUND``."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class Schema:
    """Encodes and decodes the messages of a table.

    Args:
        messages: the table.
    Raises:
        EngineMissing: Python's protobuf library is not installed.
    """

    def __init__(self, messages: Messages) -> None:
        try:
            from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
        except ImportError as e:
            raise EngineMissing(
                f"Python's protobuf library cannot be imported ({e}). Install the package python3-protobuf on this "
                "host.",
                library="google.protobuf",
            ) from e
        table = {**_WELL_KNOWN, **messages}
        file = descriptor_pb2.FileDescriptorProto(name="stillpoint.proto", package=_PACKAGE, syntax="proto3")
        for name, fields in table.items():
            message = file.message_type.add(name=name)
            for field, (number, kind) in fields.items():
                _declare(message, field, number, kind)
        pool = descriptor_pool.DescriptorPool()
        pool.AddSerializedFile(file.SerializeToString())
        if hasattr(message_factory, "GetMessageClass"):
            make = message_factory.GetMessageClass
        else:  # protobuf up to 4.21
            make = message_factory.MessageFactory(pool).GetPrototype
        self._table = table
        self._classes = {name: make(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in table}

    def encode(self, name: str, values: dict[str, Any]) -> bytes:
        """Return the wire form of a message; nested messages are dictionaries, None stands for an absent field."""
        message = self._classes[name]()
        self._fill(message, name, values)
        data: bytes = message.SerializeToString()
        return data

    def decode(self, name: str, data: bytes) -> dict[str, Any]:
        """Return a message's fields: all of the table; an absent one is 0, "", [] or {}."""
        message = self._classes[name]()
        message.ParseFromString(data)
        return self._read(message, name)

    def _fill(self, message: Any, name: str, values: dict[str, Any]) -> None:
        for field, value in values.items():
            kind = self._table[name][field][1]
            if value is None:
                continue
            place = getattr(message, field)
            if kind.startswith("map<"):
                inner = _map_types(kind)[1]
                for key, entry in value.items():
                    if inner in _SCALARS:
                        place[key] = entry
                    else:
                        self._fill(place[key], inner, entry)
            elif kind.startswith("repeated "):
                inner = kind[len("repeated ") :]
                if inner in _SCALARS:
                    place.extend(value)
                else:
                    for entry in value:
                        self._fill(place.add(), inner, entry)
            elif kind in _SCALARS:
                setattr(message, field, value)
            else:
                place.SetInParent()  # there, even if it is empty
                self._fill(place, kind, value)

    def _read(self, message: Any, name: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for field, (_number, kind) in self._table[name].items():
            value = getattr(message, field)
            if kind.startswith("map<"):
                inner = _map_types(kind)[1]
                found[field] = {key: self._plain(value[key], inner) for key in value}
            elif kind.startswith("repeated "):
                found[field] = [self._plain(entry, kind[len("repeated ") :]) for entry in value]
            elif kind in _SCALARS or message.HasField(field):
                found[field] = self._plain(value, kind)
            else:
                found[field] = {}
        return found

    def _plain(self, value: Any, kind: str) -> Any:
        return value if kind in _SCALARS else self._read(value, kind)


def _map_types(kind: str) -> tuple[str, str]:
    key, _comma, value = kind[len("map<") : -1].partition(",")
    return key, value.strip()


def _declare(message: Any, name: str, number: int, kind: str) -> None:
    field = message.field.add(name=name, number=number, label=_OPTIONAL)
    if kind.startswith("map<"):
        # On the wire a map is a list of messages with a key and a value; protobuf insists on this name for them.
        entry = message.nested_type.add(name="".join(part.capitalize() for part in name.split("_")) + "Entry")
        entry.options.map_entry = True
        for place, inner in enumerate(_map_types(kind), start=1):
            _declare(entry, ("key", "value")[place - 1], place, inner)
        field.label, field.type = _REPEATED, _MESSAGE
        field.type_name = f".{_PACKAGE}.{message.name}.{entry.name}"
        return
    if kind.startswith("repeated "):
        field.label, kind = _REPEATED, kind[len("repeated ") :]
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type, field.type_name = _MESSAGE, f".{_PACKAGE}.{kind}"


class Client:
    """Calls a gRPC server on a socket of this host.

    Each call has a connection of its own: as long as one is open, the library keeps every fork of this process waiting.

    Args:
        server: what errors call it, for instance ``containerd``.
        address: path of its socket; ``unix://`` before it is allowed.
        messages: the table of messages.
        methods: the table of methods.
        timeout: seconds that each call may take.
        metadata: sent with each call.
    Raises:
        EngineMissing: Python's gRPC library is not installed.
    """

    def __init__(
        self,
        server: str,
        address: str,
        messages: Messages,
        methods: Methods,
        *,
        timeout: int,
        metadata: dict[str, str] | None = None,
    ) -> None:
        try:
            import grpc
        except ImportError as e:
            raise EngineMissing(
                f"Python's gRPC library cannot be imported ({e}). Install the package python3-grpcio on this host.",
                library="grpc",
            ) from e
        self._grpc = grpc
        self._server = server
        self.path = address[len("unix://") :] if address.startswith("unix://") else address
        self._schema = Schema(messages)
        self._methods = methods
        self._timeout: int | None = timeout
        self._metadata = tuple((metadata or {}).items())

    def call(self, what: str, method: str, **fields: Any) -> dict[str, Any]:
        """Call a method with one answer.

        Args:
            what: for errors, what it is for: ``list its containers``.
            method: short name of the method.
            fields: of the request.
        Returns:
            The answer's fields.
        Raises:
            CallError: ``<server> could not <what>: <its own words>``.
        """
        path, request, answer = self._methods[method]
        message = self._schema.encode(request, fields)
        try:
            with self._connect() as channel:
                data = channel.unary_unary(path)(message, timeout=self._timeout, metadata=self._metadata)
        except self._grpc.RpcError as e:
            raise self._error(what, e) from e
        return self._schema.decode(answer, data)

    def stream(self, what: str, method: str, **fields: Any) -> list[dict[str, Any]]:
        """Call a method that answers with a stream, and return all of it. Arguments and errors as for :meth:`call`."""
        path, request, answer = self._methods[method]
        message = self._schema.encode(request, fields)
        try:
            with self._connect() as channel:
                pieces = list(channel.unary_stream(path)(message, timeout=self._timeout, metadata=self._metadata))
        except self._grpc.RpcError as e:
            raise self._error(what, e) from e
        return [self._schema.decode(answer, data) for data in pieces]

    def patient(self) -> Client:
        """Return the same client without a limit of time."""
        other = copy.copy(self)
        other._timeout = None
        return other

    def encode(self, name: str, values: dict[str, Any]) -> bytes:
        """Return the wire form of a message of the table, for a field of type ``Any``."""
        return self._schema.encode(name, values)

    def decode(self, name: str, data: bytes) -> dict[str, Any]:
        """Return the fields of a message of the table that a field of type ``Any`` holds."""
        return self._schema.decode(name, data)

    def _connect(self) -> Any:
        return self._grpc.insecure_channel(
            f"unix:{self.path}",
            options=(
                # Servers written in Go refuse the socket's path, which is what the library would send.
                ("grpc.default_authority", "localhost"),
                ("grpc.max_receive_message_length", -1),
                ("grpc.enable_http_proxy", 0),
            ),
        )

    def _error(self, what: str, error: Any) -> CallError:
        code = error.code().name
        words = error.details() or code
        if code == "UNAVAILABLE":
            text = (
                f"{self._server} does not answer at {self.path}, so it could not {what}: {words}. Is it running on "
                "this host, and is the address right?"
            )
        elif code == "DEADLINE_EXCEEDED":
            text = (
                f"{self._server} could not {what} within {self._timeout} s. Look for what keeps it busy in its log, "
                "or give a longer timeout."
            )
        elif code == "UNIMPLEMENTED":
            text = f"{self._server} at {self.path} could not {what}, since it does not offer that: {words}"
        else:
            text = f"{self._server} could not {what}: {words}"
        return CallError(text, code=code)
