"""Kafka as the consumer sees it: the only importer of confluent_kafka.

The client's options are decided here, and its errors become ours.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol, cast

from enrich.errors import (
    AccessRefused,
    EnrichError,
    Halt,
    ServerUnavailable,
    SettingsError,
    package_missing,
)
from enrich.ledger.realtime import Partition
from enrich.realtime.consumer import Message
from enrich.realtime.settling import Place
from enrich.settings import Settings

try:
    from confluent_kafka import (
        Consumer,
        KafkaError,
        KafkaException,
        TopicCollection,
        TopicPartition,
    )
    from confluent_kafka.admin import AdminClient
except ImportError:
    raise package_missing("Kafka needs confluent-kafka", "kafka") from None

log = logging.getLogger(__name__)

#: How a consumer is called in the lists of its group.
CLIENT_ID = "enrich"

#: Seconds for one question to the brokers, and for one look whether they refuse it: the client
#: itself tries again until the time is over.
TIMEOUT_SECONDS, LOOK_SECONDS = 10.0, 0.5

#: How often a topic's id is asked for, where it is not told for a reason that passes.
ID_TRIES = 3

#: Seconds between two polls after which a consumer counts as hanging. Polling goes on whatever a
#: batch waits for, so that only a batch which is waited for when a partition is given up counts.
MAX_POLL_SECONDS = 300

#: Bounds of what the client has read ahead, in all, in kilobytes.
QUEUED_KILOBYTES = 32 * 1024

_UNREACHABLE = frozenset(
    {
        *(KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._RESOLVE),
        *(KafkaError._TIMED_OUT, KafkaError._MSG_TIMED_OUT, KafkaError.REQUEST_TIMED_OUT),
        *(KafkaError.BROKER_NOT_AVAILABLE, KafkaError.LEADER_NOT_AVAILABLE),
        *(KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS),
        *(KafkaError.NOT_COORDINATOR, KafkaError._WAIT_COORD, KafkaError.NETWORK_EXCEPTION),
        KafkaError._TIMED_OUT_QUEUE,
    }
)
_LOGIN = frozenset({KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED})
_RIGHTS = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "may not read the topic: give it Read and Describe",
    KafkaError.GROUP_AUTHORIZATION_FAILED: (
        "may not use the group CONSUMER_GROUP_ID: give it Read on the group"
    ),
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "may not use the cluster",
}
_NO_TOPIC = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})
#: The group has changed meanwhile, or this consumer is leaving it; the next assignment says who has
#: what.
_REBALANCING = frozenset(
    {
        *(KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID),
        *(KafkaError.REBALANCE_IN_PROGRESS, KafkaError._ASSIGNMENT_LOST, KafkaError._STATE),
        *(KafkaError.FENCED_INSTANCE_ID, KafkaError._NO_OFFSET, KafkaError.STALE_MEMBER_EPOCH),
        *(KafkaError.FENCED_MEMBER_EPOCH, KafkaError._DESTROY),
    }
)


class Group(Protocol):
    """What is told when partitions come and go; called while `Broker.consume` is."""

    def assigned(self, partitions: Mapping[Partition, int | None]) -> None:
        """These are ours from now on, each with the offset that is committed, if any."""
        ...

    def revoked(self, places: Collection[Place]) -> None:
        """These are to be given up; what is committed until this returns still counts."""
        ...

    def lost(self, places: Collection[Place]) -> None:
        """These belong to others already; nothing may be committed."""
        ...


def client_options(settings: Settings) -> dict[str, Any]:
    """The options that all clients of these settings share: brokers and security.

    Raises SettingsError: no brokers are named.
    """
    if not settings.kafka_bootstrap_servers:
        raise SettingsError(
            "KAFKA_BOOTSTRAP_SERVERS is not set: name the brokers, host:port, in the environment "
            "or in .env"
        )
    options: dict[str, Any] = {
        "bootstrap.servers": settings.kafka_bootstrap_servers,
        "security.protocol": settings.kafka_security_protocol,
        "client.id": CLIENT_ID,
        "allow.auto.create.topics": False,
        # Topics and partitions that are made later are found within this time.
        "topic.metadata.refresh.interval.ms": 30_000,
        "reconnect.backoff.max.ms": 5_000,
        # What it has to say comes by error_cb.
        "log_level": 2,
    }
    given = {
        "ssl.ca.location": settings.kafka_ssl_ca_location,
        "ssl.certificate.location": settings.kafka_ssl_certificate_location,
        "ssl.key.location": settings.kafka_ssl_key_location,
        "ssl.key.password": settings.kafka_ssl_key_password.get_secret_value(),
        "sasl.mechanism": settings.kafka_sasl_mechanism,
        "sasl.username": settings.kafka_sasl_username,
        "sasl.password": settings.kafka_sasl_password.get_secret_value(),
    }
    if settings.kafka_sasl_mechanism == "OAUTHBEARER":
        given |= {
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.token.endpoint.url": settings.kafka_oauth_token_url,
            "sasl.oauthbearer.client.id": settings.kafka_oauth_client_id,
            "sasl.oauthbearer.client.secret": settings.kafka_oauth_client_secret.get_secret_value(),
            "sasl.oauthbearer.scope": settings.kafka_oauth_scope,
            "https.ca.location": settings.kafka_ssl_ca_location,
        }
    return options | {name: value for name, value in given.items() if value}


def admin_options(settings: Settings) -> dict[str, Any]:
    """The options of a client that only asks; it passes over those of consumers."""
    return client_options(settings) | dict(settings.kafka_options)


def consumer_options(settings: Settings) -> dict[str, Any]:
    """The options of the consumer: nothing is committed by itself, nothing is taken for done."""
    options = client_options(settings) | {
        "group.id": settings.consumer_group_id,
        "group.protocol": settings.kafka_group_protocol,
        "auto.offset.reset": settings.kafka_auto_offset_reset,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "max.poll.interval.ms": MAX_POLL_SECONDS * 1000,
        # For so long a commit waits that was under way when its broker died, and with it a consumer
        # that is to end; the client's own minute is longer than most are given.
        "socket.timeout.ms": int(TIMEOUT_SECONDS * 1000),
        "isolation.level": "read_committed",
        "queued.max.messages.kbytes": QUEUED_KILOBYTES,
        "fetch.queue.backoff.ms": 50,
    }
    if settings.kafka_group_protocol == "classic":
        options["partition.assignment.strategy"] = "cooperative-sticky"
    return options | dict(settings.kafka_options)


class Broker:
    """A consumer of a group; used by one thread."""

    def __init__(self, settings: Settings, group: Group) -> None:
        """Raises SettingsError: the client does not take its options."""
        self._settings = settings
        self._group = group
        self._topics = list(settings.kafka_topic)
        #: The last that was told of each topic.
        self._known_ids: dict[str, str] = {}
        #: The last trouble with the connection that was told; "" while there is none.
        self.trouble = ""
        #: Whether it is that no broker answers.
        self._away = False
        #: The topics that are not there, as far as is known.
        self._missing: Sequence[str] = ()
        self._reason: EnrichError | None = None
        self._refusal: EnrichError | None = None
        #: Until then what is wrong ends the start, and is told by its end.
        self._joined = False
        self._closing = False
        self._lock = threading.Lock()
        try:
            self._client = Consumer(
                consumer_options(settings) | {"error_cb": self._note_trouble}, logger=_Silent()
            )
            self._admin = AdminClient(admin_options(settings) | {"error_cb": self._note_trouble})
        except (KafkaException, ValueError, TypeError) as error:
            raise SettingsError(refused_options(error)) from None

    # -- at the start

    def look(self) -> list[str]:
        """See that the brokers answer and the topics are there; the topics that are not, which are
        trouble until they come.

        Raises:
            ServerUnavailable: no broker answers.
            AccessRefused: login, certificate or rights are refused.
        """
        known = self._known_topics()
        missing = []
        for topic in self._topics:
            found = known.get(topic) or self._known_topics(topic).get(topic)
            if found is None or found.error is not None:
                error = found.error if found is not None else None
                if error is not None and error.code() not in _NO_TOPIC:
                    raise self.named(error)
                missing.append(topic)
        self._miss(missing)
        return missing

    def _known_topics(self, *topic: str) -> Mapping[str, Any]:
        """What the brokers tell of all topics, or of one.

        Raises ServerUnavailable, AccessRefused: no broker answers, and why.
        """
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while True:
            try:
                found = self._admin.list_topics(*topic, timeout=LOOK_SECONDS)
                return cast(Mapping[str, Any], found.topics)
            except KafkaException as error:
                # Only says that nothing came. Why comes by error_cb, which only a poll calls.
                self._admin.poll(0)
                if self._refusal is not None:
                    raise self._refusal from None
                if time.monotonic() >= deadline:
                    raise self._reason or self.named(error.args[0]) from None

    def join(self) -> None:
        """Become a member of the group."""
        self._joined = True
        self._client.subscribe(
            self._topics,
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )

    # -- polling

    def consume(self, most: int, seconds: float) -> Sequence[Message]:
        """Messages, and errors in their place; calls the group's methods on the way.

        Raises Halt, AccessRefused: Kafka refuses this consumer.
        """
        if (refusal := self._refusal) is not None:
            self._refusal = None
            raise refusal
        try:
            return cast(Sequence[Message], self._client.consume(most, seconds))
        except KafkaException as error:
            raise self.named(error.args[0]) from None

    def pause(self, places: Iterable[Place]) -> None:
        """Give no messages of these; they stay assigned."""
        try:
            self._client.pause([TopicPartition(*place) for place in places])
        except KafkaException as error:
            # Their topic was deleted a moment ago.
            log.info("partitions were not paused: %s", error.args[0].name())

    def resume(self, places: Iterable[Place]) -> None:
        try:
            self._client.resume([TopicPartition(*place) for place in places])
        except KafkaException as error:
            log.info("partitions were not resumed: %s", error.args[0].name())

    def commit(self, offsets: Mapping[Place, int]) -> bool:
        """Commit offsets; whether that was done. It is not while partitions change hands, nor while
        no broker answers."""
        if self._away:
            # The client would wait for the whole time after which a member counts as lost, also
            # when this one is told to end.
            self.try_again()
            if self._away:
                return False
        wanted = [TopicPartition(*place, offset) for place, offset in offsets.items()]
        try:
            answered = self._client.commit(offsets=wanted, asynchronous=False)
        except KafkaException as error:
            code = error.args[0].code()
            if code not in _REBALANCING | _UNREACHABLE | _NO_TOPIC:
                raise self.named(error.args[0]) from None
            log.info("offsets were not committed: %s", error.args[0].name())
            return False
        return all(one.error is None for one in answered or ())

    def end_of(self, place: Place) -> int | None:
        """The offset that the partition's next message will have, as far as it was told."""
        try:
            _, high = self._client.get_watermark_offsets(TopicPartition(*place), cached=True)
        except KafkaException:
            return None
        return high if high >= 0 else None

    def begin_of(self, place: Place) -> int | None:
        """The partition's oldest offset, as far as it was told."""
        try:
            low, _ = self._client.get_watermark_offsets(TopicPartition(*place), cached=True)
        except KafkaException:
            return None
        return low if low >= 0 else None

    def topic_id(self, topic: str) -> str:
        """Kafka's own id of a topic, "" where it is not told."""
        return self._topic_ids([topic])[topic]

    def note(self, error: Any) -> None:
        """An error that came in place of a message.

        Raises Halt, AccessRefused: nothing can go on.
        """
        named = self.named(error)
        if error.fatal() or isinstance(named, AccessRefused):
            raise named
        if error.code() == KafkaError._MAX_POLL_EXCEEDED:
            # Over with this poll: the client joins the group again.
            log.warning("%s", named)
        elif error.code() in _NO_TOPIC:
            # The client says it once, and not when it is over.
            known = self._missing
            self.try_again()
            if set(self._missing) - set(known):
                log.warning("%s; waiting for it", self.trouble)
        else:
            self._note_trouble(error)

    def try_again(self) -> None:
        """See whether trouble is over: the brokers answer, and the topics are there."""
        try:
            there = self._admin.list_topics(timeout=LOOK_SECONDS).topics
        except KafkaException:
            return
        self._miss([topic for topic in self._topics if topic not in there])

    def _miss(self, topics: Sequence[str]) -> None:
        """Nothing is wrong but that these topics are not there."""
        self._missing = topics
        where = f"Kafka at {self._settings.kafka_bootstrap_servers}"
        with self._lock:
            self._away = False
            self.trouble = f"{where} has no topic {', '.join(topics)}" if topics else ""

    def close(self) -> None:
        """Give up all partitions and leave the group."""
        self._closing = True
        self._client.close()

    # -- the group

    def _on_assign(self, client: Any, partitions: Sequence[Any]) -> None:
        if self._closing:
            # They go to another at once, and a question to the group would not be answered: the
            # client would wait for it until its time is over, and then for its end for good.
            return
        committed = self._committed(client, partitions) if partitions else {}
        ids = self._topic_ids(sorted({one.topic for one in partitions}))
        self._group.assigned(
            {
                Partition(one.topic, ids[one.topic], one.partition): committed.get(
                    (one.topic, one.partition)
                )
                for one in partitions
            }
        )

    def _committed(self, client: Any, partitions: Sequence[Any]) -> dict[Place, int | None]:
        """The committed offset of each, None where none is; nothing where it is not told."""
        try:
            answered = client.committed(partitions, timeout=TIMEOUT_SECONDS)
        except KafkaException as error:
            log.info("committed offsets are not known yet: %s", error.args[0].name())
            return {}
        return {
            (one.topic, one.partition): one.offset if one.offset >= 0 else None for one in answered
        }

    def _on_revoke(self, client: Any, partitions: Sequence[Any]) -> None:
        self._group.revoked([(one.topic, one.partition) for one in partitions])

    def _on_lost(self, client: Any, partitions: Sequence[Any]) -> None:
        self._group.lost([(one.topic, one.partition) for one in partitions])

    def _topic_ids(self, topics: Sequence[str]) -> dict[str, str]:
        """Kafka's own ids, which tell a topic that was made anew from the old one; "" where they
        are never told. Counts belong to them, so that trouble which passes must not hide one."""
        found: dict[str, str] = {}
        for _ in range(ID_TRIES):
            left = [topic for topic in topics if topic not in found]
            if not left:
                break
            found |= self._ids_told(left)
        self._known_ids |= {topic: id_ for topic, id_ in found.items() if id_}
        return {topic: found.get(topic) or self._known_ids.get(topic, "") for topic in topics}

    def _ids_told(self, topics: Sequence[str]) -> dict[str, str]:
        """Of topics whose description was given or refused; others are to be asked for again."""
        told: dict[str, str] = {}
        try:
            answers = self._admin.describe_topics(
                TopicCollection(list(topics)), request_timeout=TIMEOUT_SECONDS
            )
        except (KafkaException, ValueError):
            return dict.fromkeys(topics, "")
        for topic, answer in answers.items():
            try:
                told[topic] = str(answer.result().topic_id)
            except KafkaException as error:
                log.info("the id of topic %s is not known: %s", topic, error.args[0].name())
                if error.args[0].code() not in _UNREACHABLE | _NO_TOPIC:
                    told[topic] = ""
        return told

    # -- errors

    def named(self, error: Any) -> EnrichError:
        return named(self._settings, error)

    def _note_trouble(self, error: Any) -> None:
        """Called by the client for what concerns no single message; it goes on by itself."""
        named = self.named(error)
        with self._lock:
            if isinstance(named, AccessRefused) or error.fatal():
                self._refusal = named
            self._away = self._away or error.code() in _UNREACHABLE
            if self.trouble and error.code() == KafkaError._ALL_BROKERS_DOWN:
                # Follows the reason, and says less.
                return
            self._reason = named
            known, self.trouble = self.trouble, str(named)
        if self._joined and known != str(named):
            log.warning("%s; waiting for it", named)


def named(settings: Settings, error: Any) -> EnrichError:
    """An error of the client in our words."""
    code = error.code()
    where = f"Kafka at {settings.kafka_bootstrap_servers}"
    if code in _RIGHTS:
        return AccessRefused(f"{where}: {_who(settings)} {_RIGHTS[code]}")
    if code in _LOGIN and "OAUTHBEARER token" in error.str():
        # The brokers were not asked; and a token is renewed long before it ends.
        return ServerUnavailable(
            "no token for Kafka is had at KAFKA_OAUTH_TOKEN_URL: check it, KAFKA_OAUTH_CLIENT_ID, "
            "KAFKA_OAUTH_CLIENT_SECRET and KAFKA_OAUTH_SCOPE"
        )
    if code in _LOGIN:
        return AccessRefused(
            f"{where} refused the login: check KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME and "
            "KAFKA_SASL_PASSWORD, or the KAFKA_OAUTH_ settings"
        )
    # Brokers refuse a client's certificate after the handshake.
    if code == KafkaError._SSL or "SSL alert number" in error.str():
        return AccessRefused(
            f"{where}: the TLS connection was refused; check KAFKA_SSL_CA_LOCATION, the "
            "brokers' certificate and, where they ask for one, KAFKA_SSL_CERTIFICATE_LOCATION"
        )
    if code == KafkaError.UNSUPPORTED_VERSION or code == KafkaError._UNSUPPORTED_FEATURE:
        return Halt(
            f"{where} does not know KAFKA_GROUP_PROTOCOL="
            f"{settings.kafka_group_protocol}: brokers of 4.0 know `consumer`"
        )
    if code == KafkaError._MAX_POLL_EXCEEDED:
        return ServerUnavailable(
            f"this process stood still for more than {MAX_POLL_SECONDS} s, as when a machine "
            "sleeps: its partitions went to others, and it joins the group again"
        )
    if code in _NO_TOPIC:
        return Halt(f"{where} has no topic of KAFKA_TOPIC={','.join(settings.kafka_topic)}")
    if code in _UNREACHABLE:
        return ServerUnavailable(
            f"{where} cannot be reached: check KAFKA_BOOTSTRAP_SERVERS, "
            "KAFKA_SECURITY_PROTOCOL and that it runs"
        )
    return Halt(f"{where} refuses the consumer ({error.name()})")


def _who(settings: Settings) -> str:
    if settings.kafka_sasl_username:
        return f"KAFKA_SASL_USERNAME {settings.kafka_sasl_username}"
    return "this client"


class _Silent(logging.Logger):
    """The client's own lines name addresses and say nothing that error_cb does not."""

    def __init__(self) -> None:
        super().__init__("confluent_kafka", logging.CRITICAL + 1)


def refused_options(error: Exception) -> str:
    """Why no client is made of these options, in a sentence."""
    first = error.args[0] if error.args else error
    # Some of the client's own sentences end with a line break.
    text = " ".join(str(first.str() if isinstance(first, KafkaError) else first).split())
    if "key values mismatch" in text:
        return "KAFKA_SSL_KEY_LOCATION: not the key of KAFKA_SSL_CERTIFICATE_LOCATION"
    for part in ("ca", "certificate", "key"):
        if f"ssl.{part}.location failed" in text:
            return (
                f"KAFKA_SSL_{part.upper()}_LOCATION: the file is not there, may not be read, or is "
                "not in PEM"
                + ("; or KAFKA_SSL_KEY_PASSWORD is not its password" if part == "key" else "")
            )
    return f"the client of Kafka refuses its options: {text}"
