"""The command line of the rig: `python -m bench`, which `make bench` and `make bench-quick` call."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys

from bench import page, quick, scale, where
from bench.counting import CountError
from bench.peers import EVERYONE
from bench.processes import choose_cores, raise_descriptor_limit
from bench.report import tables
from bench.rig import RigError
from bench.rounds import gather, install, say, say_loudly

NAMES = [peer.name for peer in EVERYONE]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure the gateway next to others. Without arguments: everyone, in a quarter of an hour; the "
        "results are written to bench/results/ and docs/performance.md.",
    )
    parser.add_argument("--quick", action="store_true", help="in under a minute: ratios to the bare relay and to nginx")
    parser.add_argument("--record", action="store_true", help="with --quick: put the counted instructions on record")
    parser.add_argument("--scale", action="store_true", help="the gateway alone, over models, connections and calls")
    parser.add_argument("--where", action="store_true", help="where the work of a call goes, in bytecodes")
    parser.add_argument("--install", action="store_true", help="only install the peers (LiteLLM alone takes 600 MB)")
    parser.add_argument("--page", action="store_true", help="only write the page and the charts from the results anew")
    parser.add_argument("--only", metavar="PEER,…", default=",".join(NAMES), help=f"of {', '.join(NAMES)}")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="how often everything is measured (3)")
    parser.add_argument("--seconds", type=float, default=1.5, metavar="S", help="how long a load is measured (1.5)")
    parser.add_argument("--resume", action="store_true", help="take up the run that was interrupted")
    parser.add_argument("--print", action="store_true", help="print the tables, write no results")
    arguments = parser.parse_args()
    arguments.only = arguments.only.split(",")
    if unknown := set(arguments.only) - set(NAMES):
        parser.error(f"no such peer: {', '.join(unknown)}")
    return arguments


def main() -> int:
    """Do what was asked; return the exit code."""
    arguments = _arguments()
    if platform.system() != "Linux":
        say_loudly("The rig reads /proc and uses epoll: it runs on Linux only.")
        return 2
    if arguments.install:
        return 1 if install(arguments.only)[1] else 0
    if arguments.page:
        page.write_page()
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # So that what was started is ended.
    cores = choose_cores()
    if cores.gateway == cores.rig:
        say_loudly("Only one core may be used: gateway, load and upstream share it, and no number here means much.")
    os.sched_setaffinity(0, {cores.rig})
    descriptors = raise_descriptor_limit()
    load = os.getloadavg()[0]
    say(f"gateway on core {cores.gateway}, rig on core {cores.rig}, {descriptors} descriptors, load {load:.2f}")
    try:
        if arguments.quick:
            quick.run(cores, record=arguments.record)
        elif arguments.scale:
            page.RESULTS.mkdir(exist_ok=True)
            scaled = scale.measure(cores, seconds=arguments.seconds)
            scale.write(scaled, page.RESULTS / "scale.json")
            say(scale.text(scaled))
        elif arguments.where:
            page.RESULTS.mkdir(exist_ok=True)
            functions = where.measure(cores)
            (page.RESULTS / "where.json").write_text(json.dumps(functions, indent=1, sort_keys=True) + "\n")
            say(where.text(functions))
        else:
            results = gather(
                cores, arguments.only, rounds=arguments.rounds, seconds=arguments.seconds, resume=arguments.resume
            )
            say("\n" + tables(results))
            if not arguments.print:
                page.write_results(results)
    except (RigError, CountError) as error:
        say_loudly(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
