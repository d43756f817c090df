"""`python -m benchmarks drain --size 5000 --rounds 1`: index ceiling, update ceiling, product."""

from __future__ import annotations

import argparse
import shutil
import sys

from benchmarks.ceilings import ceiling
from benchmarks.cluster import Cluster
from benchmarks.corpus import fresh, make_corpus
from benchmarks.product import Product, clean_environment
from dev.services import CHECKOUT, Services

FOLDER = CHECKOUT / ".dev" / "bench"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("line")
    parser.add_argument("--size", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency", type=float, default=50)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    options = parser.parse_args()
    clean_environment()
    env = dict(pair.split("=", 1) for pair in options.set)
    shutil.rmtree(FOLDER, ignore_errors=True)
    corpus = make_corpus(options.size)
    warm = make_corpus(1000, seed=8)
    with Services(
        FOLDER, heap="2g", opensearch_settings={"action.auto_create_index": "false"}
    ) as stack:
        cluster = Cluster(stack.opensearch.url, stack.opensearch.pid)
        with Product(stack, cluster, FOLDER / "product", env=env) as product:
            ceiling(cluster, warm, fresh(cluster, warm), "index")
            fresh(cluster, warm)
            product.drain()
            for number in range(options.rounds):
                index = ceiling(cluster, corpus, fresh(cluster, corpus), "index")
                update = ceiling(cluster, corpus, fresh(cluster, corpus), "update")
                fresh(cluster, corpus)
                product.forget()
                product.api.reset(latency_ms=options.latency)
                drain = product.drain(expect=options.size)
                print(
                    f"round {number}: index {index:.0f}/s update {update:.0f}/s product "
                    f"{drain.rate:.0f}/s ({drain.rate / index:.2f} of index, "
                    f"{drain.rate / update:.2f} of update; {drain.seconds:.2f} s recorded, "
                    f"{drain.seconds_seen:.2f} s seen); cpu "
                    + " ".join(f"{n} {s:.2f}" for n, s in drain.cpu.items())
                    + f" opensearch {drain.opensearch_cpu:.1f}; api {drain.api}; "
                    f"redis {drain.redis_commands}; requests {drain.opensearch_requests}; "
                    f"queue {max(s.gauges['queue'] for s in drain.samples):.0f}",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
