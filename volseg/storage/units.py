"""Units of length."""

from __future__ import annotations

from unicodedata import normalize

_PREFIXES = {
    "quecto": -30, "ronto": -27, "yocto": -24, "zepto": -21, "atto": -18, "femto": -15, "pico": -12, "nano": -9,
    "micro": -6, "milli": -3, "centi": -2, "deci": -1, "": 0, "deca": 1, "deka": 1, "hecto": 2, "kilo": 3, "mega": 6,
    "giga": 9, "tera": 12, "peta": 15, "exa": 18, "zetta": 21, "yotta": 24, "ronna": 27, "quetta": 30,
}  # fmt: skip
_SYMBOLS = {
    "q": -30, "r": -27, "y": -24, "z": -21, "a": -18, "f": -15, "p": -12, "n": -9, "u": -6, "μ": -6, "m": -3,
    "c": -2, "d": -1, "": 0, "da": 1, "h": 2, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18, "Z": 21, "Y": 24,
    "R": 27, "Q": 30,
}  # fmt: skip
_NAMED = {
    "angstrom": 0.1, "ångstrom": 0.1, "ångström": 0.1, "å": 0.1, "micron": 1e3, "inch": 2.54e7, "inches": 2.54e7,
    "in": 2.54e7, "foot": 3.048e8, "feet": 3.048e8, "ft": 3.048e8, "yard": 9.144e8, "yd": 9.144e8,
    "mile": 1.609344e12, "mi": 1.609344e12,
}  # fmt: skip
"""In nanometres."""


def length_nm(unit: object) -> float | None:
    """Return a unit of length in nanometres; None if it is none that UDUNITS knows by this name or symbol.

    Names may be British, plural and capitalised; symbols keep their case (mm is not Mm).

    >>> length_nm("micrometres"), length_nm("µm"), length_nm("Angstrom"), length_nm("pixel")
    (1000.0, 1000.0, 0.1, None)
    """
    if not isinstance(unit, str):
        return None
    text = normalize("NFKC", unit).strip()  # the micro sign becomes mu, the angstrom sign a letter
    if text.endswith("m") and text[:-1] in _SYMBOLS:
        return float(f"1e{_SYMBOLS[text[:-1]] + 9}")
    name = text.casefold()
    singular = name.removesuffix("s")
    for base in ("meter", "metre"):
        if singular.endswith(base) and singular.removesuffix(base) in _PREFIXES:
            return float(f"1e{_PREFIXES[singular.removesuffix(base)] + 9}")
    return _NAMED.get(name, _NAMED.get(singular))
