"""One setting, and the places its value may come from: flags, then environment, then a file, then the default.

A setting that nobody gave is not the same as an empty one. An empty variable or an empty text in the file counts as
not given, but where emptiness has a meaning of its own (`empty_counts`).
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
"""Where a text may come from, the strongest last."""


@dataclass(frozen=True)
class Setting(Generic[T]):
    """One setting: where it may come from, and how its text becomes a value."""

    flag: str | None
    parse: Callable[[str], T]
    env: str | None = None
    keys: tuple[str, ...] = ()
    """Its keys in the configuration file, the strongest first."""
    default: str | None = None
    """As text, parsed like any other. None: there is none, or it is found out when the program starts."""
    about: str = ""
    secret: bool = False
    """Never shown; may also come from the file that the variable `env` + `_FILE` names."""
    empty_counts: bool = False

    @property
    def name(self) -> str:
        """How to speak of it."""
        return self.flag or self.keys[0] if self.flag or self.keys else str(self.env)


@dataclass(frozen=True)
class Found:
    """The text of a setting, and whose it is."""

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
        """Give the value, or None if nobody set it. Raises SettingError that names the source."""
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
        if given is not None and setting.flag:
            return Found(str(given), "flag", setting.flag)
        found = self._from_environment(setting) or self._from_file(setting)
        if found is None and setting.default is not None:
            return Found(setting.default, "default", "default")
        return found

    def is_on(self, flag: str) -> bool:
        return bool(self._flags.get(flag))

    def given(self, flag: str) -> bool:
        return self._flags.get(flag) is not None

    def _from_environment(self, setting: Setting[T]) -> Found | None:
        if setting.env is None:
            return None
        text = self._environ.get(setting.env)
        is_given = bool(text) or (text is not None and setting.empty_counts)
        path = self._environ.get(f"{setting.env}_FILE") if setting.secret else None
        if is_given and path:
            raise SettingError(f"{setting.env} and {setting.env}_FILE are both set: unset one of them")
        if path:
            return Found(read_secret(path, f"{setting.env}_FILE"), "environment", f"{setting.env}_FILE")
        return Found(str(text), "environment", setting.env) if is_given else None

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
