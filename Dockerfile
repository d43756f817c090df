# The image of worker, beat, Flower, the consumer of Kafka and the HTTP service; docker-compose.yml
# tells them apart by their commands.
# Code and packages belong to root and are read-only to the user that runs them; what is written
# (the log file) goes to /var/lib/enrich, which is also the working directory.

FROM python:3.11.14-slim-bookworm AS packages
COPY requirements-image.lock ./
# Wheels only: a package that would need a compiler must fail here and not drag one in.
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check \
       --only-binary :all: --require-hashes -r requirements-image.lock

FROM python:3.11.14-slim-bookworm
RUN groupadd --gid 10001 enrich \
    && useradd --uid 10001 --gid enrich --no-create-home --home-dir /var/lib/enrich \
       --shell /usr/sbin/nologin enrich \
    && install -d -o enrich -g enrich -m 0750 /var/lib/enrich
COPY --from=packages /opt/venv /opt/venv
COPY celeryconfig.py flowerconfig.py /app/
COPY enrich /app/enrich
COPY tasks /app/tasks
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# Compiled here, since nothing can be written there later.
RUN python -m compileall -q /app
WORKDIR /var/lib/enrich
USER 10001:10001
CMD ["celery", "-A", "enrich", "worker", "--loglevel", "WARNING"]
