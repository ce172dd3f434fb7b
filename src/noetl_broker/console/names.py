"""Names in the paths of routes: they may have slashes, as paths of playbooks do."""

from __future__ import annotations

from starlette.convertors import PathConvertor, register_url_convertor


def register_names(kind: str, *endings: str) -> None:
    """Let routes say `{name:kind}`: a name that does not end as a route below it does, as in `/NAME/pause`.

    Without this, a wrong method of that route would act on another name.
    """

    class Convertor(PathConvertor):
        regex = f"(?!(?:.*/)?(?:{'|'.join(endings)})$).+"

    register_url_convertor(kind, Convertor())
