from typing import Any

_Array = Any
_Finish = tuple[_Array, int, float, _Array]
_Share = tuple[int, int, _Array]
_Target = tuple[_Array, int, int, bool]

def block(starts: _Array, indices: _Array, data: _Array, order: _Array, width: int, /) -> object: ...
def describe(block: object, /) -> tuple[int, int]: ...
def multiply(
    block: object,
    source: tuple[_Array, int, int, _Array, _Array],
    target: _Target,
    finish: _Finish,
    share: _Share,
    /,
) -> None: ...
def multiply_samples(
    block: object,
    source: tuple[_Array, _Array, _Array, _Array],
    target: _Target,
    finish: _Finish,
    share: _Share,
    /,
) -> None: ...
def move(
    source: tuple[_Array, int, int, int],
    lane_of: _Array,
    target: tuple[_Array, int, int],
    /,
) -> None: ...
def take(source: tuple[_Array, int, int, int], picked: _Array, lane_of: _Array, result: _Array, /) -> None: ...
def turn(source: tuple[_Array, _Array, _Array], target: tuple[_Array, _Array, _Array], /) -> None: ...
def instructions() -> str: ...
def use(name: str, /) -> bool: ...
def burn(count: int, /) -> float: ...
def sweep(data: _Array, count: int, /) -> None: ...
