"""The pickles of `torch.save`, read by a machine that knows containers and tensors and calls nothing.

Python's own unpickler calls what a file names, and PyTorch's builds tensors whose claims nobody has checked. This one
has a stack, a memo and a list of names, and makes dictionaries, lists and descriptions of tensors.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any

from keras_residual._errors import printable

TYPES = {
    "FloatStorage": "float32", "DoubleStorage": "float64", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool", "UntypedStorage": "uint8", "torch.uint16": "uint16",
    "torch.uint32": "uint32", "torch.uint64": "uint64",
}  # fmt: skip
"""What NumPy calls the types of numbers that are read, by the names of storages and of types without one."""

_MOST_STEPS = 2_000_000
"""More than a checkpoint of thousands of layers with its optimizer takes, and within memory whatever they make."""


class PickleError(ValueError):
    """What is wrong with a pickle: a text without a full stop."""


class ForbiddenObjectError(PickleError):
    """A pickle names an object that has no place in a checkpoint; the text is its name."""


@dataclass(frozen=True, slots=True)
class Storage:
    """A vector of numbers outside the pickle.

    Args:
        key: Its name in the file.
        kind: Type of its values as PyTorch calls it, such as `"FloatStorage"`.
        size: Number of its values.
        view: Of a part of a storage, `(start, size)`.
    """

    key: str
    kind: str
    size: int
    view: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Tensor:
    """A strided tensor of real numbers.

    Args:
        storage: Where its values are.
        offset: Index of the first one there.
        shape: Its shape.
        strides: How many values of the storage a step along each axis goes on.
        kind: Type of its values, such as `"torch.uint16"`, where the storage counts bytes; else None.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    kind: str | None


@dataclass(frozen=True, slots=True)
class Unread:
    """A tensor of another sort, which `what` names."""

    what: str


class _Name(str):
    """The module and name of an object outside the pickle."""


class _LeftOut:
    """A value that has nothing to do with weights."""


_TENSOR = re.compile(r"torch\._utils\._rebuild_tensor(_v2|_v3)?")
_TENSOR_WITH_ATTRIBUTES = "torch._tensor._rebuild_from_type_v2"
_PARAMETERS = {"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"}
_TENSOR_CLASSES = {"torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"}
_UNREAD = {
    "torch._utils._rebuild_sparse_tensor": "a sparse tensor",
    "torch._utils._rebuild_sparse_csr_tensor": "a sparse tensor",
    "torch._utils._rebuild_qtensor": "a quantised tensor",
    "torch._utils._rebuild_nested_tensor": "a nested tensor",
    "torch._utils._rebuild_meta_tensor_no_storage": "a tensor without values",
    "torch._utils._rebuild_wrapper_subclass": "a tensor of a class of its own",
    "torch._utils._rebuild_device_tensor_from_numpy": "a tensor of another device",
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": "a tensor of another device",
    "torch._utils._rebuild_xla_tensor": "a tensor of another device",
}
_DICTIONARIES = {"collections.OrderedDict", "collections.defaultdict", "collections.Counter"}
# What training programs keep beside the weights, of which nothing is made.
_LEFT_OUT = {
    "argparse.Namespace", "types.SimpleNamespace", "_codecs.encode", "copyreg._reconstructor", "builtins.object",
    "builtins.set", "builtins.frozenset", "builtins.list", "builtins.dict", "builtins.tuple", "builtins.bytes",
    "builtins.bytearray", "builtins.complex", "builtins.slice", "builtins.range", "builtins.int", "builtins.float",
    "builtins.str", "builtins.bool", "datetime.datetime", "datetime.date", "datetime.timedelta", "pathlib.Path",
    "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib.PurePosixPath", "numpy.dtype", "numpy.ndarray",
    "numpy.core.multiarray.scalar", "numpy.core.multiarray._reconstruct", "numpy.core.numeric._frombuffer",
    "torch.Size", "torch.device", "torch.serialization._get_layout",
}  # fmt: skip
_CONSTANT = re.compile(
    r"torch\.(bool|c?half|c?float|c?double|long|short|int|(u|q|qu)?int\d+(x\d)?|b?float\d+(_\w+)?|complex\d+|bits\w+"
    r"|strided|sparse_\w+|per_\w+|\w+_format)"
)
_STORAGE = re.compile(r"torch\.(cuda\.|storage\.)?_?(\w+Storage)")
# Protocol 2 has the names of Python 2; others differ between versions.
_RENAMED = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "pathlib._local": "pathlib",
    "numpy._core.multiarray": "numpy.core.multiarray",
    "numpy._core.numeric": "numpy.core.numeric",
}
_MOST_AXES = 32


def load(file: IO[bytes]) -> tuple[Any, dict[str, Storage]]:
    """Returns what a pickle holds, and the storages that it refers to by their keys.

    There are dictionaries, lists, tuples, texts, numbers, `Tensor` and `Unread`. Other values become objects that say
    nothing. The file is left at the end of the pickle.

    Raises:
        ForbiddenObjectError: If it names an object that has no place in a checkpoint.
        PickleError: If it is damaged, or longer than those of checkpoints are.
    """
    machine = _Machine()
    try:
        for number, (operation, argument, _) in enumerate(pickletools.genops(file)):
            if number > _MOST_STEPS:
                raise PickleError(f"its pickle takes more than {_MOST_STEPS} steps")
            if operation.name == "STOP":
                return machine.stack.pop(), machine.storages
            machine.step(operation.name, argument)
    except PickleError:
        raise
    # Of damaged bytes come IndexError, KeyError, TypeError, ValueError, AttributeError, UnicodeDecodeError and others.
    except Exception as error:
        raise PickleError(f"the file is damaged ({printable(error).rstrip('.') or type(error).__name__})") from None
    raise PickleError("the file is damaged (its pickle has no end)")


class _Machine:
    """The stack, that below each mark, the memo, and the storages by their keys."""

    def __init__(self):
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def step(self, name: str, argument: Any) -> None:
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _NEW:
            self.stack.append(_NEW[name]())
        elif name in _REMEMBER:
            self.memo[len(self.memo) if argument is None else argument] = self.stack[-1]
        elif name in _RECALL:
            self.stack.append(self.memo[argument])
        elif name in _OPERATIONS:
            _OPERATIONS[name](self, argument)
        else:
            raise PickleError(f"its pickle has the operation {name}, which torch.save does not write")

    def mark(self, _: Any) -> None:
        self.below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def last(self, number: int) -> tuple[Any, ...]:
        return tuple([self.stack.pop() for _ in range(number)][::-1])

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target += items
        elif not isinstance(target, _LeftOut):
            raise PickleError("the file is damaged (its pickle appends to what is no list)")

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):
            target |= _dictionary(items)
        elif not isinstance(target, _LeftOut):
            raise PickleError("the file is damaged (its pickle sets items of what has none)")

    def name(self, text: str | None) -> None:
        module, name = self.last(2) if text is None else text.split(" ", 1)
        full = f"{_RENAMED.get(module, module)}.{name}"
        if not (full in _NAMES or _TENSOR.fullmatch(full) or _CONSTANT.fullmatch(full) or _STORAGE.fullmatch(full)):
            raise ForbiddenObjectError(full)
        self.push(_Name(full))

    def make(self, _: Any) -> None:
        function, arguments = self.last(2)
        if not (isinstance(function, _Name) and isinstance(arguments, tuple)):
            raise PickleError("the file is damaged (it calls what is no function)")
        self.push(_made(function, arguments))

    def refer(self, _: Any) -> None:
        storage = _storage(self.stack.pop())
        known = self.storages.setdefault(storage.key, storage)
        if (known.kind, known.size) != (storage.kind, storage.size):
            raise PickleError("the file is damaged (two storages have one key)")
        self.push(storage)


_NAMES = {*_UNREAD, *_PARAMETERS, *_TENSOR_CLASSES, *_DICTIONARIES, *_LEFT_OUT, _TENSOR_WITH_ATTRIBUTES}
_VALUES = {
    "BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "BINFLOAT", "FLOAT", "BINUNICODE",
    "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "BINSTRING", "SHORT_BINSTRING", "STRING", "BINBYTES",
    "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
# A set is a list, so that nothing but names is hashed: the hash of tuples in tuples overflows the stack of Python.
_NEW: Mapping[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict, "EMPTY_SET": list,
}  # fmt: skip
_REMEMBER = {"BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"}
_RECALL = {"BINGET", "LONG_BINGET", "GET"}
_OPERATIONS: Mapping[str, Callable[[_Machine, Any], Any]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "MARK": _Machine.mark,
    "POP": lambda machine, _: machine.stack.pop() if machine.stack else machine.since_mark(),
    "POP_MARK": lambda machine, _: machine.since_mark(),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, _: machine.push(machine.last(1)),
    "TUPLE2": lambda machine, _: machine.push(machine.last(2)),
    "TUPLE3": lambda machine, _: machine.push(machine.last(3)),
    "LIST": lambda machine, _: machine.push(machine.since_mark()),
    "FROZENSET": lambda machine, _: machine.push(machine.since_mark()),
    "DICT": lambda machine, _: machine.push(_dictionary(machine.since_mark())),
    "APPEND": lambda machine, _: machine.append([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.since_mark()),
    "ADDITEMS": lambda machine, _: machine.append(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.set_items(list(machine.last(2))),
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.name,
    "REDUCE": _Machine.make,
    "NEWOBJ": _Machine.make,
    "BUILD": lambda machine, _: machine.stack.pop(),  # attributes, which nothing here has
    "BINPERSID": _Machine.refer,
}


def _dictionary(items: list[Any]) -> dict[Any, Any]:
    """Returns keys and values in turn as a dictionary.

    State dicts have names as keys and optimizers numbers; entries with others are left out.
    """
    pairs = zip(items[::2], items[1::2], strict=True)
    return {key: value for key, value in pairs if type(key) is str or (type(key) is int and key.bit_length() < 60)}


def _made(function: _Name, arguments: tuple[Any, ...]) -> Any:
    """Returns what stands for the result of a call."""
    match = _TENSOR.fullmatch(function)
    if match:
        return _tensor(match[1], *arguments)
    if function in _UNREAD:
        return Unread(_UNREAD[function])
    if function in _PARAMETERS:
        return arguments[0]
    if function == _TENSOR_WITH_ATTRIBUTES:
        inner, kind, inner_arguments, *_ = arguments
        plain = kind in _TENSOR_CLASSES and isinstance(inner, _Name) and inner != _TENSOR_WITH_ATTRIBUTES
        return _made(inner, inner_arguments) if plain else Unread("a tensor of a class of its own")
    if function in _DICTIONARIES:
        # Python 2 gave pairs; of defaultdict it is a function.
        pairs = arguments[0] if arguments and isinstance(arguments[0], list) else []
        return _dictionary([part for pair in pairs for part in pair])
    return _LeftOut()


def _storage(reference: Any) -> Storage:
    """Returns what a reference `("storage", type, key, device, size, view?)` names."""
    _, kind, key, _, size, *rest = reference
    match = _STORAGE.fullmatch(kind) if isinstance(kind, _Name) else None
    # Before version 0.4 PyTorch kept tensors that share their values as views.
    view = rest[0][1:] if rest and rest[0] is not None else None
    viewed = view is None or (len(view) == 2 and _sizes(*view) and sum(view) <= size)
    if not (match and viewed and reference[0] == "storage" and type(key) in (str, int) and _sizes(size)):
        raise PickleError("the file is damaged (a storage is not described)")
    return Storage(str(key), match[2], size, view)


def _tensor(version: str | None, storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> Tensor | Unread:
    *_, metadata = (*rest, None, None, None, None)[: 4 if version == "_v3" else 3]
    if metadata:
        return Unread("a tensor that is negated or conjugated when it is read")
    shape, strides = tuple(shape), tuple(strides)
    described = isinstance(storage, Storage) and len(shape) == len(strides) <= _MOST_AXES
    if not (described and _sizes(offset, *shape, *strides)):
        raise PickleError("the file is damaged (a tensor is not described)")
    return Tensor(storage, offset, shape, strides, str(rest[2]) if version == "_v3" else None)


def _sizes(*values: Any) -> bool:
    return all(type(value) is int and 0 <= value < 2**62 for value in values)
