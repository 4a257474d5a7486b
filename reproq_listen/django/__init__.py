"""For projects of Django 6: the backend of `django.tasks`, and a migration that brings the schema. Extra `django`.

INSTALLED_APPS = [..., "reproq_listen.django"]
TASKS = {"default": {"BACKEND": "reproq_listen.django.ReproqBackend"}}
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from reproq_listen.django.backend import ReproqBackend
    from reproq_listen.django.task import ReproqTask

__all__ = ["ReproqBackend", "ReproqTask"]


def __getattr__(name: str) -> object:
    # Django imports this package for its app before settings are ready; the backend needs them.
    if name == "ReproqBackend":
        from reproq_listen.django.backend import ReproqBackend

        return ReproqBackend
    if name == "ReproqTask":
        from reproq_listen.django.task import ReproqTask

        return ReproqTask
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
