"""quernel._c is what quernel.h and quernel_io.h say: every struct, every constant, every function."""

from __future__ import annotations

import ctypes
import re
import subprocess
from ctypes import POINTER, c_char_p, c_double, c_float, c_int, c_int64, c_size_t, c_uint64, c_void_p
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from quernel import _c

HEADERS = [ROOT / "runtime" / "quernel.h", ROOT / "runtime" / "io" / "quernel_io.h"]
TEXT = "\n".join(re.sub(r"/\*.*?\*/", "", header.read_text(), flags=re.S) for header in HEADERS)
STRUCTS = {
    "qn_plane": _c.Plane,
    "qn_planes": _c.Planes,
    "qn_allocator": _c.Allocator,
    "qn_open_options": _c.OpenOptions,
    "qn_args": _c.Args,
    "qn_rows": _c.Rows,
    "qn_raw": _c.Raw,
    "qn_tensor": _c.Tensor,
    "qn_stack": _c.Stack,
    "qn_meta": _c.Meta,
}
ENUMS = {"qn_status": ("QN_", _c.Status), "qn_level": ("QN_", _c.Level), "qn_type": ("QN_T_", _c.Type)}


def compiled(folder: Path, expressions: list[str]) -> list[int]:
    """Values of integer expressions, as the compiler has them."""
    lines = "".join(f'printf("%lld\\n", (long long)({e}));\n' for e in expressions)
    source = folder / "values.c"
    source.write_text(f'#include <stdio.h>\n#include "quernel_io.h"\nint main(void) {{\n{lines}return 0;\n}}\n')
    program = folder / "values"
    include = [f"-I{header.parent}" for header in HEADERS]
    subprocess.run(["cc", *include, str(source), "-o", str(program)], check=True)
    return [int(line) for line in subprocess.run([program], check=True, capture_output=True).stdout.split()]


def body(name: str) -> list[str]:
    """Names of the fields of a struct, in their order."""
    found = re.search(r"typedef struct " + name + r" \{(.*?)\} " + name + ";", TEXT, re.S)
    assert found, name
    fields = []
    for declaration in found[1].split(";"):
        declaration = re.sub(r"\[.*?\]", "", declaration.strip())
        pointer = re.search(r"\(\*(\w+)\)", declaration)
        fields += [pointer[1]] if pointer else [re.findall(r"\w+", part)[-1] for part in declaration.split(",") if part]
    return fields


@pytest.mark.parametrize("name", STRUCTS)
def test_struct(name: str, tmp_path: Path) -> None:
    struct = STRUCTS[name]
    fields: list[str] = [field[0] for field in struct._fields_]
    assert fields == body(name)
    where = [f"offsetof({name}, {field})" for field in fields]
    size = [f"sizeof((({name} *)0)->{field})" for field in fields]
    assert compiled(tmp_path, [f"sizeof({name})", *where, *size]) == [
        ctypes.sizeof(struct),
        *(getattr(struct, field).offset for field in fields),
        *(getattr(struct, field).size for field in fields),
    ]


@pytest.mark.parametrize("name", ENUMS)
def test_constants(name: str, tmp_path: Path) -> None:
    prefix, enum = ENUMS[name]
    assert compiled(tmp_path, [prefix + value.name for value in enum]) == [value.value for value in enum]
    if name == "qn_type":
        assert [_c.serving.qn_type_name(value) for value in enum] == [v.name.lower().encode() for v in enum]
        assert _c.serving.qn_type_name(len(enum)) is None
    if name == "qn_status":
        assert [_c.serving.qn_status_name(value) for value in enum] == [f"QN_{v.name}".encode() for v in enum]
        assert len(re.findall(r"^  X\((?:OK|E_)", TEXT, re.M)) == len(enum)
    limits = [_c.MAX_PLANES, _c.MAX_DIMS]
    assert compiled(tmp_path, ["QN_MAX_PLANES", "QN_MAX_DIMS"]) == limits


# ---- Functions -------------------------------------------------------------------------------------------------------

SCALARS: dict[str, Any] = {
    "void": None,
    "int": c_int,
    "size_t": c_size_t,
    "int64_t": c_int64,
    "uint64_t": c_uint64,
    "float": c_float,
    "double": c_double,
    **dict.fromkeys(ENUMS, c_int),
}


def as_ctypes(spelling: str) -> Any:
    """What ctypes calls a type of C. Pointers to numbers are addresses, unless one value is given back."""
    spelling = spelling.replace("const", "").strip()
    base, stars = spelling.rstrip("* ").strip(), spelling.count("*")
    if not stars:
        return SCALARS[base]
    kind: Any = STRUCTS.get(base)
    if kind is None:
        kind = c_char_p if base == "char" else POINTER(c_size_t) if base == "size_t" else c_void_p
        stars -= 1
    for _ in range(stars):
        kind = POINTER(kind)
    return kind


def declared() -> dict[str, tuple[Any, list[Any]]]:
    found = {}
    for result, name, arguments in re.findall(r"QN_API ([\w\s]+?\**)\s*(\bqn_\w+)\(([^)]*)\);", TEXT):
        parts = [re.sub(r"\w+$", "", a.strip()) for a in arguments.split(",")] if arguments != "void" else []
        if name not in _c.UNUSED:
            found[name] = as_ctypes(result), [as_ctypes(part) for part in parts]
    return found


def test_functions() -> None:
    functions = declared()
    # The text of config.json is not terminated, so it is an address.
    functions["qn_model_config"] = (c_void_p, functions["qn_model_config"][1])
    assert {**_c.SERVING, **_c.READING} == functions
    assert set(re.findall(r"QN_API [^;]*?\b(qn_\w+)\(", TEXT)) == set(functions) | _c.UNUSED
