"""Serve a trained model over HTTP, on this machine alone unless told otherwise.

    pip install -e '.[serve]'
    python serve.py --model runs/demo/slmrec_4_8 --port 8000

GET / is a page to try it, GET /docs describes the interface, POST /recommend answers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from slmrec.checks import at_least
from slmrec.command_line import parse_arguments
from slmrec.errors import InputError
from slmrec.runtime import run_main


@dataclass
class ServeArguments:
    """Which model, where, and how requests are batched."""

    model: str = field(metadata={"help": "directory of a trained model"})
    host: str = field(default="127.0.0.1", metadata={"help": "address to listen on; 0.0.0.0 lets other machines in"})
    port: int = field(default=8000, metadata={"help": "port to listen on; 0 takes a free one and prints it"})
    wait_ms: float = field(default=3.0, metadata={"help": "milliseconds that a request waits for others to be answered with"})
    max_batch: int = field(default=256, metadata={"help": "histories answered together at most"})
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda or cuda:N"})
    precision: Literal["fp32", "bf16"] = field(
        default="fp32", metadata={"help": "in which an E4SRec or SLMRec computes; bf16 is faster where the device has it"}
    )

    def __post_init__(self):
        at_least("wait_ms", self.wait_ms, 0)
        at_least("max_batch", self.max_batch, 1)
        if not 0 <= self.port < 2**16:
            raise InputError(f"--port {self.port}: must be in 0..65535")


def main(argv: list[str] | None = None) -> None:
    (args,) = parse_arguments(ServeArguments, argv, description=__doc__)
    try:
        import uvicorn

        from slmrec.serving.app import create_app
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed: pip install -e '.[serve]'") from None
    from slmrec.recommendation import load

    app = create_app(
        load(args.model, args.device, args.precision), Path(args.model).name, wait=args.wait_ms / 1000, most=args.max_batch
    )
    uvicorn.run(app, host=args.host, port=args.port, log_level="info", access_log=False, timeout_graceful_shutdown=10)


if __name__ == "__main__":
    run_main(main)
