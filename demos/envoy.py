"""`python3 -m demos envoy`: one trace through a proxy that traces, too: front, Envoy, back.

Envoy has Datadog's own tracer, in C++. It takes the context from the headers that `front` wrote, and writes its own
for `back`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from demos.processes import Running, ServiceProcess, service_environment
from demos.services import envoy
from demos.traces import known, new_trace, say, show

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack

    from asynctrace.agent import AgentThread
    from demos.services import Service

SERVICES = {"back", "envoy", "front"}
READING = (
    "front calls back, and Envoy stands between them, with a tracer of its own. Its span is a child of front's call, "
    "and back's request a child of Envoy's span. What a bar has more than the one below it is what that hop took."
)


def run(running: ExitStack, agent: AgentThread, page: str) -> tuple[Running, str]:
    """Show the trace; gives what runs, and a command that sends it one more request."""

    def between(back: str) -> Service:
        proxy = envoy(back, agent=agent.url)
        say(f"Envoy {proxy.how}")
        return proxy

    chain = start_chain(running, agent.url, between)
    say("front, envoy and back are up: three processes; sending a request")
    before = known(agent)
    status, reason, _ = chain.ask("/greeting")
    say("Envoy sends its spans every two seconds: waiting for them\n")
    trace = new_trace(agent, before, SERVICES, chain)
    show(trace, f"A request through Envoy: GET /greeting -> {status} {reason}", READING, page)
    return chain, f"curl {chain.address}/greeting"


def start_chain(running: ExitStack, agent_url: str, between: Callable[[str], Service]) -> Running:
    """back, the proxy that `between` starts for its URL, and front, all of which end with `running`."""
    environment = service_environment(agent_url)

    def start(name: str) -> ServiceProcess:
        service = ServiceProcess(name, environment)
        running.callback(service.stop)
        return service.wait_until_ready()

    back = start("back")
    proxy = running.enter_context(between(back.address))
    environment["DEMO_BACK_URL"] = proxy.url
    front = start("front")
    for service in (back, front):  # both are told to end before the first is waited for
        running.callback(service.end)
    return Running(front.address, (back, front))
