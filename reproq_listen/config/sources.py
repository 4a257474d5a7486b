"""One setting, and the places its value may come from: flags, then environment, then a file, then the default.

An empty text counts as not given, in every source, except where emptiness has a meaning of its own (`empty_counts`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from reproq_listen.config.file import ConfigFile, read_regular
from reproq_listen.errors import SettingError

T = TypeVar("T")
MAX_SECRET_BYTES = 64 << 10
LEVELS = ("default", "file", "environment", "flag")
"""Kinds of sources, the strongest last."""


@dataclass(frozen=True, kw_only=True)
class Setting(Generic[T]):
    """One setting: where its text may come from, how the text becomes a value, and what to tell people of it."""

    parse: Callable[[str], T]
    flag: str | None = None
    metavar: str = ""
    """What stands for the value in help texts. Empty: the flag is a switch and takes none."""
    variable: str | None = None
    keys: tuple[str, ...] = ()
    """Its keys in the configuration file, the strongest first."""
    default: str | None = None
    """As text, parsed like any other. None: there is none, or it is found out when the program starts."""
    default_note: str = ""
    """What holds without a `default`."""
    sample: str = ""
    """A value other than the default, for example files."""
    help: str = ""
    group: str = ""
    """Heading in long help texts."""
    used_by: tuple[str, ...] = ()
    """Commands that take its flag."""
    is_secret: bool = False
    """Never shown; may also come from the file that the variable `variable` + `_FILE` names."""
    is_list: bool = False
    """A list in the configuration file; separated by commas everywhere else."""
    empty_counts: bool = False

    @property
    def name(self) -> str:
        """How messages call it."""
        return self.flag or self.keys[0] if self.flag or self.keys else str(self.variable)


@dataclass(frozen=True)
class Found:
    """The text of a setting, and where it came from."""

    text: str
    kind: str
    """One of LEVELS."""
    name: str
    """The flag, the variable, or file, line and key."""


class Sources:
    """The places a setting may come from."""

    def __init__(self, flags: Mapping[str, object], environ: Mapping[str, str], file: ConfigFile | None = None) -> None:
        self._flags = flags
        self._environ = environ
        self.file = file

    def find(self, setting: Setting[T]) -> T | None:
        """Give the value, or None if it is not set. Raises SettingError that names the source."""
        found = self.trace(setting)
        if found is None or found.kind == "default":
            return None
        return parsed(setting, found)

    def get(self, setting: Setting[T], default: T | None = None) -> T:
        """Give the value, or `default`, or the setting's own default."""
        value = self.find(setting)
        if value is None:
            value = default
        if value is None:
            assert setting.default is not None, f"{setting.name} has no default"
            value = setting.parse(setting.default)
        return value

    def trace(self, setting: Setting[T]) -> Found | None:
        """Give the text that counts and where it came from, unparsed; None if there is not even a default."""
        given = self._flags.get(setting.flag) if setting.flag else None
        if setting.flag and (given or (given == "" and setting.empty_counts)):
            return Found(str(given), "flag", setting.flag)
        found = self._from_environment(setting) or self._from_file(setting)
        if found is None and setting.default is not None:
            return Found(setting.default, "default", "default")
        return found

    def source_of(self, setting: Setting[T]) -> str:
        """Where the text comes from, for messages; the setting's name if there is none."""
        found = self.trace(setting)
        return setting.name if found is None else found.name

    def is_on(self, flag: str) -> bool:
        """Whether a switch of the command line is given."""
        return bool(self._flags.get(flag))

    def given(self, flag: str) -> bool:
        """Whether a flag with a value is given on the command line."""
        return bool(self._flags.get(flag))

    def _from_environment(self, setting: Setting[T]) -> Found | None:
        if setting.variable is None:
            return None
        text = self._environ.get(setting.variable)
        is_given = bool(text) or (text is not None and setting.empty_counts)
        path = self._environ.get(f"{setting.variable}_FILE") if setting.is_secret else None
        if is_given and path:
            raise SettingError(f"{setting.variable} and {setting.variable}_FILE are both set: unset one of them")
        if path:
            return Found(read_secret(path, f"{setting.variable}_FILE"), "environment", f"{setting.variable}_FILE")
        return Found(str(text), "environment", setting.variable) if is_given else None

    def _from_file(self, setting: Setting[T]) -> Found | None:
        for key in setting.keys if self.file is not None else ():
            assert self.file is not None
            value = self.file.values.get(key)
            if value is not None and (value.text or setting.empty_counts):
                return Found(value.text, "file", f"{self.file.place(value.line)}: {key}")
        return None


def parsed(setting: Setting[T], found: Found) -> T:
    """Give the value of a text. Raises SettingError that names where the text came from."""
    try:
        return setting.parse(found.text)
    except ValueError as error:
        raise SettingError(f"{found.name}: {error}") from None


def read_secret(path: str, variable: str) -> str:
    """Give the secret in a file, without the newline at its end. Raises SettingError."""
    try:
        data, _ = read_regular(path, MAX_SECRET_BYTES + 1)
        text = data.decode()
    except OSError as error:
        raise SettingError(f"{variable}: {path!a} cannot be read: {error.strerror}") from None
    except ValueError:
        raise SettingError(f"{variable}: {path!a} is not a file of UTF-8 text") from None
    if len(data) > MAX_SECRET_BYTES:
        raise SettingError(f"{variable}: {path!a} has more than {MAX_SECRET_BYTES} bytes: that is no secret")
    text = text.rstrip("\r\n")
    if not text:
        raise SettingError(f"{variable}: {path!a} is empty")
    return text
