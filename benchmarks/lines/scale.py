"""Line 5: one, two, four and eight processes at 2 s a request, where the API's latency binds."""

from __future__ import annotations

from benchmarks.corpus import make_corpus
from benchmarks.rounds import Figure, at_least, median, stated
from benchmarks.stage import Stage

LATENCY_MS = 2_000.0
PROCESSES = (1, 2, 4, 8)
#: Texts a request, fewer than by default: with more, OpenSearch would bind before the latency does.
BATCH = 100
#: For eight processes: ten requests each, so that start and end weigh little.
_LOGS = 80 * BATCH


def measure(stage: Stage) -> list[Figure]:
    rates: dict[int, float] = {}
    for processes in PROCESSES:
        stage.say(f"scale: {processes} processes")
        rates[processes] = rate_of(stage, processes)
    stage.data["scale"] = {
        "latency_ms": LATENCY_MS,
        "batch": BATCH,
        "rates": {str(n): r for n, r in rates.items()},
    }
    one = rates[PROCESSES[0]]
    return [
        *(stated("scale", f"{n} processes", rate, "/s") for n, rate in rates.items()),
        *(
            at_least("scale", f"{n} processes, of linear", rates[n] / (n * one), 0.9)
            for n in PROCESSES[1:]
        ),
    ]


def rate_of(stage: Stage, processes: int) -> float:
    """Vectors a second of one worker with that many processes; the median of the rounds."""
    corpus = make_corpus(
        (stage.options.size or _LOGS) * processes // PROCESSES[-1], distinct_share=1.0
    )
    env = {"ENRICH_BATCH_SIZE": str(BATCH)}
    with stage.product(env=env, concurrency=processes) as product:
        stage.warm(product, 200 * processes)
        return median(
            [
                stage.drain(product, corpus, latency_ms=LATENCY_MS).rate
                for _ in range(stage.rounds(1, 3))
            ]
        )
