"""`python3 -m demos.services`: which servers there are; with `-- CMD`, runs CMD with their URLs set.

Nothing keeps running afterwards.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

from demos.services import ServiceUnavailable, postgres, rabbitmq


def main(argv: list[str]) -> int:
    """Shows both services, or runs a command with them; the command's exit code is ours."""
    if argv and (argv[0] != "--" or len(argv) == 1):
        print(__doc__)
        return 2
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # through the exit handlers, which end the servers
    with contextlib.ExitStack() as stack:
        urls = {}
        for variable, find in (("ASYNCTRACE_POSTGRES_URL", postgres), ("ASYNCTRACE_AMQP_URL", rabbitmq)):
            try:
                service = stack.enter_context(find())
            except ServiceUnavailable as error:
                print(error, file=sys.stderr)
                return 1
            urls[variable] = service.url
            print(
                f"{variable}={service.url}  # {service.how}",
                file=sys.stderr if argv else sys.stdout,
                flush=True,
            )
        if not argv:
            return 0
        try:
            return subprocess.run(argv[1:], env={**os.environ, **urls}, check=False).returncode
        except OSError as error:
            print(error, file=sys.stderr)
            return 127


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
